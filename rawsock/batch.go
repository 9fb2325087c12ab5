package rawsock

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchLen is how many packets one sendmmsg(2) takes. From 32 up the cost per
// packet hardly falls any more.
const batchLen = 64

// controlLen holds IPv6's three control messages, the longer set: pktinfo,
// hop limit, traffic class. Every part is aligned to a word.
const controlLen = 40 + 24 + 24

// message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	sent   uint32
}

// A batch gathers packets of one family in the form that the kernel reads.
type batch struct {
	fd       int // -1: the host doesn't have the family
	cutting  int // sends what the interface has no room for, in fragments
	device   int // interface index that the sockets are bound to
	n        int
	index    [batchLen]int // of the packet in the caller's slice
	messages [batchLen]message
	segments [batchLen]unix.Iovec
	names    [batchLen]unix.RawSockaddrInet6 // or, shorter, RawSockaddrInet4
	controls [batchLen][controlLen / 8]uint64
}

// open opens the sockets.
func (b *batch) open(family int) (err error) {
	if b.fd, err = openRaw(family, unix.IP_PMTUDISC_PROBE); err != nil {
		return err
	}
	if b.cutting, err = openRaw(family, unix.IP_PMTUDISC_OMIT); err != nil {
		return err
	}
	b.prepare(uint16(family))
	return nil
}

// prepare writes what is the same in every message.
func (b *batch) prepare(family uint16) {
	for k := range b.messages {
		h := &b.messages[k].header
		h.Iov = &b.segments[k]
		h.SetIovlen(1)
		name := &b.names[k]
		name.Family = family
		h.Name = (*byte)(unsafe.Pointer(name))
		c := control{buf: b.control(k)}
		if family == unix.AF_INET {
			h.Namelen = unix.SizeofSockaddrInet4
			c.add(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		} else {
			h.Namelen = unix.SizeofSockaddrInet6
			c.add(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		}
		h.Control = unsafe.SliceData(c.buf)
	}
}

func (b *batch) control(k int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&b.controls[k])), controlLen)
}

// add appends a checked packet, the caller's i-th.
func (b *batch) add(i int, p *Packet) {
	k := b.n
	b.n++
	b.index[k] = i

	b.segments[k].Base = unsafe.SliceData(p.Segment)
	b.segments[k].SetLen(len(p.Segment))
	name := &b.names[k]
	c := control{buf: b.control(k)}
	info := unsafe.Pointer(&c.buf[unix.CmsgLen(0)])
	if p.Dst.Is4() {
		(*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr = p.Dst.As4()
		*(*unix.Inet4Pktinfo)(info) = unix.Inet4Pktinfo{Ifindex: int32(p.Ifindex), Spec_dst: p.Src.As4()}
		c.n = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
		c.addInt(unix.IPPROTO_IP, unix.IP_TTL, p.TTL)
		c.addInt(unix.IPPROTO_IP, unix.IP_TOS, p.TOS)
	} else {
		name.Addr, name.Scope_id = p.Dst.As16(), 0
		if p.Dst.IsLinkLocalUnicast() {
			name.Scope_id = uint32(p.Ifindex)
		}
		*(*unix.Inet6Pktinfo)(info) = unix.Inet6Pktinfo{Addr: p.Src.As16(), Ifindex: uint32(p.Ifindex)}
		c.n = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
		c.addInt(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, p.TTL)
		c.addInt(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, p.TOS)
	}
	b.messages[k].header.SetControllen(c.n)
}

// control writes control messages (cmsg(3)) one after the other.
type control struct {
	buf []byte
	n   int
}

// add begins a message and returns where its n octets go.
func (c *control) add(level, typ int32, n int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.buf[c.n]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(n))
	data := unsafe.Pointer(&c.buf[c.n+unix.CmsgLen(0)])
	c.n += unix.CmsgSpace(n)
	return data
}

// addInt adds a message that holds an int, unless it is 0: the default.
func (c *control) addInt(level, typ int32, v uint8) {
	if v != 0 {
		*(*int32)(c.add(level, typ, 4)) = int32(v)
	}
}

// sendmmsg sends messages and returns how many went. It stops at the one that
// fails and tells why only when that is the first.
func sendmmsg(fd int, messages []message) (int, unix.Errno) {
	// Raw: it does not wait, but works for tens of µs, after which the runtime would give
	// its processor away; see briefWait.
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	return int(n), errno
}

// flush sends the batch. What stops it goes again, since only so the kernel says why:
// where a firewall rejects some, and makes a RST of each, it may leave then.
func (b *batch) flush(failed func(i int, err error)) {
	stopped := false
	for k := 0; k < b.n; {
		n, errno := sendmmsg(b.fd, b.messages[k:b.n])
		cut := errno == unix.EMSGSIZE
		if cut {
			n, errno = sendmmsg(b.cutting, b.messages[k:k+1])
		}
		switch errno {
		case 0:
			if stopped && !cut {
				failed(b.index[k], ErrSecondTry)
			}
			k += n
			stopped = !cut
		case unix.EINTR:
		default:
			failed(b.index[k], os.NewSyscallError("sendmmsg", errno))
			k++
			stopped = false
		}
	}
	b.n = 0
}

// bind binds the sockets to an interface, or to none by 0. IPv6 needs it: where
// a packet names its source, the interface that IPV6_PKTINFO names is a mere
// preference among routes of one metric (net/ipv6/route.c,
// ip6_route_output_flags_noref), whereas IPv4's is binding.
func (b *batch) bind(ifindex int) error {
	for _, fd := range []int{b.fd, b.cutting} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, ifindex); err != nil {
			b.device = -1 // nobody knows of both
			return optionError("SO_BINDTOIFINDEX", err)
		}
	}
	b.device = ifindex
	return nil
}

func (b *batch) close() error { return errors.Join(closeFD(&b.fd), closeFD(&b.cutting)) }

// closeFD closes a descriptor, unless it is closed.
func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return os.NewSyscallError("close", err)
}
