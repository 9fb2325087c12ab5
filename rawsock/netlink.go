package rawsock

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// netlinkTimeout bounds the wait for an answer. The kernel has it ready when the
// request has been sent (net/netlink/af_netlink.c, netlink_unicast_kernel).
const netlinkTimeout = time.Second

// errNetlink is an answer that is cut off or missing.
var errNetlink = errors.New("rtnetlink: no whole answer")

// A netlinkSocket asks the kernel one thing at a time. It needs no capability.
type netlinkSocket struct {
	fd  int
	seq uint32
	out []byte
	in  []byte
}

func openNetlink() (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	patience := unix.NsecToTimeval(int64(netlinkTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, errors.Join(optionError("SO_RCVTIMEO", err), unix.Close(fd))
	}
	return &netlinkSocket{fd: fd, in: make([]byte, 32<<10)}, nil
}

// begin starts a request; its fixed part and its attributes follow.
func (s *netlinkSocket) begin(typ uint16, fixed ...byte) {
	s.seq++
	s.out = binary.NativeEndian.AppendUint32(s.out[:0], 0) // the length, in the end
	s.out = binary.NativeEndian.AppendUint16(s.out, typ)
	s.out = binary.NativeEndian.AppendUint16(s.out, unix.NLM_F_REQUEST)
	s.out = binary.NativeEndian.AppendUint32(s.out, s.seq)
	s.out = binary.NativeEndian.AppendUint32(s.out, 0)
	s.out = append(s.out, fixed...)
}

// attribute adds one to the request (rtnetlink(7), struct rtattr).
func (s *netlinkSocket) attribute(typ uint16, value []byte) {
	s.out = binary.NativeEndian.AppendUint16(s.out, uint16(unix.SizeofRtAttr+len(value)))
	s.out = binary.NativeEndian.AppendUint16(s.out, typ)
	s.out = append(s.out, value...)
	for len(s.out)%unix.NLMSG_ALIGNTO != 0 {
		s.out = append(s.out, 0)
	}
}

func (s *netlinkSocket) address(typ uint16, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		s.attribute(typ, b[:])
		return
	}
	b := a.As16()
	s.attribute(typ, b[:])
}

func (s *netlinkSocket) number(typ uint16, v uint32) {
	s.attribute(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// ask sends the request and returns the one message that answers it, valid until
// the next.
func (s *netlinkSocket) ask() (typ uint16, body []byte, err error) {
	binary.NativeEndian.PutUint32(s.out, uint32(len(s.out)))
	if err := unix.Sendto(s.fd, s.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, nil, os.NewSyscallError("sendto", err)
	}
	for {
		n, _, err := unix.Recvfrom(s.fd, s.in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, nil, os.NewSyscallError("recvfrom", err)
		}
		m, _, ok := cutNotice(s.in[:n])
		switch {
		case !ok:
			return 0, nil, errNetlink
		case m.seq != s.seq: // a late one, of a request that was given up
			continue
		case m.typ == unix.NLMSG_ERROR && len(m.body) >= 4:
			return 0, nil, os.NewSyscallError("rtnetlink", unix.Errno(-int32(binary.NativeEndian.Uint32(m.body))))
		}
		return m.typ, m.body, nil
	}
}

func (s *netlinkSocket) close() error { return closeFD(&s.fd) }

// A notice is one of netlink's messages, without its header.
type notice struct {
	typ  uint16
	seq  uint32
	body []byte
}

// cutNotice takes the first message of a datagram.
func cutNotice(b []byte) (m notice, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return m, nil, false
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > len(b) {
		return m, nil, false
	}
	m = notice{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n]}
	return m, b[min(align(n), len(b)):], true
}

// cutAttribute takes the first attribute of a message's rest.
func cutAttribute(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < unix.SizeofRtAttr {
		return 0, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < unix.SizeofRtAttr || n > len(b) {
		return 0, nil, nil, false
	}
	typ = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return typ, b[unix.SizeofRtAttr:n], b[min(align(n), len(b)):], true
}

// align is NLMSG_ALIGN and RTA_ALIGN, which are the same.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// addressOf reads an attribute's address; the zero Addr if it is none.
func addressOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// numberOf reads an attribute's 32 bits; 0 if it has others.
func numberOf(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
