package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Listen listens inside the host and closes with the test. Addresses are
// numeric. MPTCP, which Go would use by default, is off: the peer is plain TCP.
// Nothing accepts: the kernel completes handshakes and queues them.
func (h *Host) Listen(network, addr string) net.Listener {
	h.lab.tb.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	var ln net.Listener
	var err error
	h.Do(func() { ln, err = lc.Listen(context.Background(), network, addr) })
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: %v", h.Name, err)
	}
	h.lab.tb.Cleanup(func() { _ = ln.Close() })
	return ln
}

// Serve listens inside the host and calls handle, in a goroutine of its own,
// with every connection; the connection is closed when handle returns and when
// the test ends. A nil handle closes at once.
func (h *Host) Serve(network, addr string, handle func(net.Conn)) net.Listener {
	h.lab.tb.Helper()
	ln := h.Listen(network, addr)
	ctx, cancel := context.WithCancel(context.Background())
	h.lab.tb.Cleanup(cancel)
	h.lab.going.Go(func() {
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				h.lab.tb.Errorf("lab: host %s: %v", h.Name, err)
				return
			}
			h.lab.going.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				if handle != nil {
					handle(conn)
				}
				stop()
				_ = conn.Close()
			})
		}
	})
	return ln
}

// Discard reads until the peer closes: a handle for Serve that accepts and
// does nothing else.
func Discard(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// Dial connects from inside the host; numeric addresses only. Its error is
// net.Dialer's.
func (h *Host) Dial(network, addr string, timeout time.Duration) (net.Conn, error) {
	h.lab.tb.Helper()
	d := net.Dialer{Timeout: timeout}
	d.SetMultipathTCP(false)
	var c net.Conn
	var err error
	h.Do(func() { c, err = d.Dial(network, addr) })
	return c, err
}

// A Backlog is a TCP listener that never accepts and whose accept queue is
// filled on purpose.
type Backlog struct {
	Addr netip.AddrPort
	host *Host
	fd   int
	room int // connections that the accept queue holds
	held []net.Conn
}

// Backlog listens on addr with the given backlog. The kernel's accept queue
// holds one connection more than the backlog (sk_acceptq_is_full compares with
// >), so 0 leaves room for one.
func (h *Host) Backlog(addr netip.AddrPort, backlog int) *Backlog {
	h.lab.tb.Helper()
	b := &Backlog{Addr: addr, host: h, fd: -1, room: backlog + 1}
	var err error
	h.Do(func() { b.fd, err = listenTCP(addr, backlog) })
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: listen on %s: %v", h.Name, addr, err)
	}
	h.lab.tb.Cleanup(func() {
		for _, c := range b.held {
			_ = c.Close()
		}
		_ = unix.Close(b.fd)
	})
	return b
}

// Fill makes real connections from within the host until the accept queue is
// full but for leave. When it is full the kernel ignores SYNs; when it fills
// between a SYN and the handshake's ACK, that ACK is ignored and the SYN-ACK
// retransmitted.
func (b *Backlog) Fill(leave int) {
	b.host.lab.tb.Helper()
	to := b.Addr.Addr()
	if to.IsUnspecified() {
		to = netip.MustParseAddr("127.0.0.1")
		if b.Addr.Addr().Is6() {
			to = netip.IPv6Loopback()
		}
	}
	for len(b.held) < b.room-leave {
		c, err := b.host.Dial("tcp", netip.AddrPortFrom(to, b.Addr.Port()).String(), 5*time.Second)
		if err != nil {
			b.host.lab.tb.Fatalf("lab: host %s: fill the accept queue of %s: %v", b.host.Name, b.Addr, err)
		}
		b.held = append(b.held, c)
	}
}

// listenTCP is socket, bind and listen with a backlog of the caller's, which
// package net does not offer.
func listenTCP(addr netip.AddrPort, backlog int) (fd int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, os.NewSyscallError("listen", err)
	}
	return fd, nil
}
