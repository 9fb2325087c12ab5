package rawsock

import (
	"errors"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Bell rings when TCP segments to a range of local ports arrive. It
// is a packet socket for IPv4 and one for IPv6 that nobody reads for what it holds: a reader of the tap could
// be woken by the tap, but that takes the kernel 1 to 2 µs between our stamp of
// the segment and that of a capture which is served after us. One protocol's packet sockets get
// it when all captures have, which are for all protocols (net/core/dev.c, __netif_receive_skb_core),
// and before IP does. A raw socket gets it then too, but for its sake the kernel believes ICMP
// errors that quote any segment: a redirect, or a path's MTU (net/ipv4/raw.c, raw_err).
type Bell struct {
	fds []int
	buf [1]byte
}

// OpenBell opens a bell for the ports first to last. It needs CAP_NET_RAW.
func OpenBell(first, last uint16) (*Bell, error) {
	b := &Bell{}
	for _, protocol := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		fd, err := openBell(protocol, first, last)
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		b.fds = append(b.fds, fd)
	}
	return b, nil
}

func openBell(protocol, first, last uint16) (int, error) {
	code, err := kernelFilter(bellFilter(protocol, first, last))
	if err != nil {
		return -1, err
	}
	// Protocol 0: the socket receives nothing until bind names one.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, socketError(err)
	}
	if err := attachFilter(fd, code); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	// One segment rings as well as a hundred.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return -1, errors.Join(optionError("SO_RCVBUF", err), unix.Close(fd))
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol)}); err != nil {
		return -1, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return fd, nil
}

// bellFilter passes an octet of what goes to the ports, over a packet that begins at its IP
// header. What has a header between that and TCP's rings no bell, nor has a later fragment a port.
func bellFilter(protocol, first, last uint16) []bpf.Instruction {
	port := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ipv6HeaderLen + 2, Size: 2},
	}
	if protocol == unix.ETH_P_IP {
		port = []bpf.Instruction{
			bpf.LoadAbsolute{Off: 6, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragmentOffset, SkipTrue: 7},
			bpf.LoadAbsolute{Off: 9, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 5},
			bpf.LoadMemShift{Off: 0},
			bpf.LoadIndirect{Off: 2, Size: 2},
		}
	}
	return append(port,
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(first), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(last), SkipTrue: 1},
		bpf.RetConstant{Val: 1},
		bpf.RetConstant{Val: 0},
	)
}

// FDs are readable while the bell rings.
func (b *Bell) FDs() []int { return b.fds }

// Silence ends the ringing.
func (b *Bell) Silence() {
	for _, fd := range b.fds {
		for range 64 { // more than its buffer holds
			if _, err := unix.Read(fd, b.buf[:]); err != nil {
				break
			}
		}
	}
}

// Close closes the sockets.
func (b *Bell) Close() error {
	var errs []error
	for _, fd := range b.fds {
		errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
	}
	b.fds = nil
	return errors.Join(errs...)
}
