package rawsock

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Losses tells what this host has lost: interfaces that were taken down or removed,
// or that have no carrier any more, and addresses of its own. The kernel's notice is in
// its socket when the change is made, so that whoever reads it before he gives up on an
// answer knows why there was none. A filter lets through nothing else: a host whose links
// and addresses come and go all day makes no work here. It needs no capability and is one
// goroutine's.
type Losses struct {
	fd   int
	dark int // of carriers alone: where one goes that many interfaces share, as VLANs do, their notices fill a socket
	in   [8 << 10]byte
}

// OpenLosses begins to listen.
func OpenLosses() (*Losses, error) {
	l := &Losses{fd: -1, dark: -1}
	var err error
	if l.fd, err = openLosses(lossFilter(), unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR); err == nil {
		l.dark, err = openLosses(darkFilter(), unix.RTNLGRP_LINK)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func openLosses(program []bpf.Instruction, groups ...int) (int, error) {
	filter, err := kernelFilter(program)
	if err != nil {
		return -1, err
	}
	fd, err := openNotices()
	if err != nil {
		return -1, err
	}
	if err = attachFilter(fd, filter); err == nil {
		err = joinGroups(fd, groups)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Where the filters look: struct nlmsghdr, struct ifinfomsg. Netlink's numbers are in the
// host's order, a filter's in the network's.
const typeAt, flagsAt = 4, unix.SizeofNlMsghdr + 8

// lossFilter passes RTM_DELLINK, RTM_DELADDR, and RTM_NEWLINK of an interface that is
// not up.
func lossFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(htons(unix.RTM_DELADDR)), SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(htons(unix.RTM_DELLINK)), SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(htons(unix.RTM_NEWLINK)), SkipTrue: 3},
		bpf.LoadAbsolute{Off: flagsAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: htonl(unix.IFF_UP), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	}
}

// darkFilter passes RTM_NEWLINK of an interface that is up and has no carrier.
func darkFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(htons(unix.RTM_NEWLINK)), SkipTrue: 4},
		bpf.LoadAbsolute{Off: flagsAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: htonl(unix.IFF_UP), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: htonl(unix.IFF_LOWER_UP), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	}
}

// htonl puts a number into network byte order.
func htonl(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

// Read calls fn for each loss since the last call, with the interface's index or with
// the address, and does not wait. With neither there were more than the socket holds:
// anything may be lost. An interface that is dark is up, but has no carrier; so may any be.
func (l *Losses) Read(fn func(ifindex int, a netip.Addr, dark bool)) {
	l.read(l.fd, false, fn)
	l.read(l.dark, true, fn)
}

func (l *Losses) read(fd int, dark bool, fn func(ifindex int, a netip.Addr, dark bool)) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&l.in)), uintptr(len(l.in)))
		switch errno {
		case 0:
			hear(l.in[:n], dark, fn)
		case unix.EINTR:
		case unix.ENOBUFS:
			fn(0, netip.Addr{}, dark)
		default: // EAGAIN
			return
		}
	}
}

// hear takes a datagram of notices.
func hear(b []byte, dark bool, fn func(ifindex int, a netip.Addr, dark bool)) {
	for len(b) > 0 {
		m, rest, ok := cutNotice(b)
		if !ok {
			return
		}
		b = rest
		switch m.typ {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			// One of AF_BRIDGE says that an interface has left its bridge.
			if len(m.body) >= ifinfomsgLen && m.body[0] == unix.AF_UNSPEC {
				fn(int(int32(binary.NativeEndian.Uint32(m.body[4:]))), netip.Addr{}, dark)
			}
		case unix.RTM_DELADDR:
			if a := readAddress(m.body); a.IsValid() {
				fn(0, a, false)
			}
		}
	}
}

const ifaddrmsgLen = 8 // struct ifaddrmsg

// readAddress reads the address of a message about one: IFA_LOCAL, which IPv6 and
// links without a peer's address may lack, else IFA_ADDRESS (linux/if_addr.h).
func readAddress(body []byte) (a netip.Addr) {
	if len(body) < ifaddrmsgLen {
		return a
	}
	for rest := body[ifaddrmsgLen:]; ; {
		typ, value, next, more := cutAttribute(rest)
		if !more {
			return a
		}
		switch typ {
		case unix.IFA_LOCAL:
			return addressOf(value)
		case unix.IFA_ADDRESS:
			a = addressOf(value)
		}
		rest = next
	}
}

// isTentative asks whether an IPv6 address is tentative.
func (s *netlinkSocket) isTentative(a netip.Addr) bool {
	var fixed [ifaddrmsgLen]byte
	fixed[0] = unix.AF_INET6
	s.begin(unix.RTM_GETADDR, fixed[:]...)
	s.address(unix.IFA_ADDRESS, a)
	typ, body, err := s.ask()
	return err == nil && typ == unix.RTM_NEWADDR && len(body) >= ifaddrmsgLen && body[2]&unix.IFA_F_TENTATIVE != 0
}

// Close ends listening.
func (l *Losses) Close() error { return errors.Join(closeFD(&l.fd), closeFD(&l.dark)) }
