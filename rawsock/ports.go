package rawsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Ports holds source ports, so that no other socket of the host gets them:
// bind(2) on one fails, connect(2) skips it. They are free again when the
// process ends, however it ends.
type Ports struct {
	fds []int
}

// ReservePorts holds the ports first..last with sockets that are bound and do
// not listen. The kernel answers a SYN-ACK to such a port with a RST.
func ReservePorts(first, last uint16) (*Ports, error) {
	return holdPorts(first, last, func(int, int) error { return nil }, false)
}

// holdPorts binds a dual-stack socket to each port, prepared before it is
// bound.
func holdPorts(first, last uint16, prepare func(fd, family int) error, listen bool) (*Ports, error) {
	if first == 0 || first > last {
		return nil, fmt.Errorf("port range %d-%d is empty or begins at 0", first, last)
	}
	p := &Ports{}
	for port := int(first); port <= int(last); port++ {
		if err := p.hold(port, prepare, listen); err != nil {
			return nil, errors.Join(portError(port, err), p.Close())
		}
	}
	return p, nil
}

func (p *Ports) hold(port int, prepare func(fd, family int) error, listen bool) error {
	fd, family, err := dualStackSocket()
	if err != nil {
		return err
	}
	p.fds = append(p.fds, fd)
	if err := prepare(fd, family); err != nil {
		return err
	}
	if err := bindAny(fd, family, port); err != nil {
		return err
	}
	if !listen {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, 1))
}

// dualStackSocket returns a TCP socket for both families, or for IPv4 only
// where the host has no IPv6.
func dualStackSocket() (fd, family int, err error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err = unix.Socket(unix.AF_INET6, kind, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET, kind, 0)
		return fd, unix.AF_INET, os.NewSyscallError("socket", err)
	}
	if err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	// net.ipv6.bindv6only sets the default.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		return -1, 0, errors.Join(optionError("IPV6_V6ONLY", err), unix.Close(fd))
	}
	return fd, unix.AF_INET6, nil
}

// bindAny binds to the port on every address.
func bindAny(fd, family, port int) error {
	var any unix.Sockaddr = &unix.SockaddrInet6{Port: port}
	if family == unix.AF_INET {
		any = &unix.SockaddrInet4{Port: port}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, any))
}

// portError says what to do about a port that can't be held.
func portError(port int, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return errPortInUse{port, err}
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return fmt.Errorf("source port %d: %w: raise the limit of open files (LimitNOFILE)", port, err)
	}
	return fmt.Errorf("source port %d: %w", port, err)
}

// errPortInUse explains EADDRINUSE.
type errPortInUse struct {
	port int
	err  error
}

func (e errPortInUse) Error() string {
	return fmt.Sprintf("source port %d is in use by another socket (see ss -tanp 'sport = :%d'): "+
		"choose another source_ports range", e.port, e.port)
}

func (e errPortInUse) Unwrap() error { return e.err }

// Close lets the ports go.
func (p *Ports) Close() error {
	var errs []error
	for _, fd := range p.fds {
		errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
	}
	p.fds = nil
	return errors.Join(errs...)
}
