package rawsock

import (
	"errors"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Bell rings when TCP segments to a range of local ports arrive. It is a raw
// socket a family that nobody reads for what it holds: a reader of the tap could
// be woken by the tap, but that takes the kernel 1 to 2 µs between our stamp of
// the segment and that of a capture which is served after us. A raw socket gets
// it when all captures have (net/ipv4/ip_input.c, ip_protocol_deliver_rcu), and
// before the TCP socket that guards the port. What a firewall drops does not ring.
type Bell struct {
	fds []int
	buf [1]byte
}

// OpenBell opens a bell for the ports first to last. It needs CAP_NET_RAW.
func OpenBell(first, last uint16) (*Bell, error) {
	b := &Bell{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := openBell(family, first, last)
		if errors.Is(err, unix.EAFNOSUPPORT) && family == unix.AF_INET6 {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		b.fds = append(b.fds, fd)
	}
	return b, nil
}

func openBell(family int, first, last uint16) (int, error) {
	code, err := kernelFilter(bellFilter(family, first, last))
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, socketError(err)
	}
	if err := attachFilter(fd, code); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if err := distrust(fd, family, unix.IP_PMTUDISC_INTERFACE); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	// One segment rings as well as a hundred.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return -1, errors.Join(optionError("SO_RCVBUF", err), unix.Close(fd))
	}
	return fd, nil
}

// bellFilter passes an octet of what goes to the ports. A raw IPv4 socket shows a
// packet from its IP header on, a raw IPv6 socket from its TCP header on.
func bellFilter(family int, first, last uint16) []bpf.Instruction {
	port := []bpf.Instruction{bpf.LoadAbsolute{Off: 2, Size: 2}}
	if family == unix.AF_INET {
		port = []bpf.Instruction{bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: 2, Size: 2}}
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
