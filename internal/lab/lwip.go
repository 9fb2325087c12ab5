package lab

import (
	"bufio"
	"context"
	_ "embed"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/lwip/peer.c
var lwipSource string

// The ports of an lwIP peer.
const (
	LWIPCloses  = 80 // reads, and closes once the peer has closed
	LWIPAnswers = 81 // answers the first data with 200 octets and closes
)

// An LWIP is a peer behind a TUN whose TCP is that of Debian's lwIP, with the
// options it is packaged with.
type LWIP struct {
	tb  testing.TB
	in  io.Writer
	out *bufio.Scanner
}

// LWIPPeer gives the host a neighbour at one IPv4 and one IPv6 address that
// speaks TCP as lwIP does, and compiles it.
func LWIPPeer(tb testing.TB, h *Host, addr4, addr6 string) *LWIP {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "peer")
	compiler := h.Command(tb.Context(), tool(tb, "gcc", "gcc"), "-O1", "-I/usr/include/lwip", "-x", "c", "-", "-llwip", "-o", path)
	compiler.Stdin = strings.NewReader(lwipSource)
	if out, err := compiler.CombinedOutput(); err != nil {
		tb.Fatalf("lab: lwIP of host %s, which needs liblwip-dev: %v\n%s", h.Name, err, out)
	}

	p := &Peer{tb: tb, end: h.newEnd(h.lab.nextJoint(), 1, "tun")}
	p.tun = openTUN(p.end)
	for _, a := range []string{addr4, addr6} {
		addr := netip.MustParseAddr(a)
		p.own(netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	device := os.NewFile(uintptr(p.tun.fd), p.end.Iface)
	cmd := h.Command(context.Background(), path, addr4, addr6) // ends with its input
	cmd.ExtraFiles = []*os.File{device}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatalf("lab: lwIP of host %s: %v", h.Name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatalf("lab: lwIP of host %s: %v", h.Name, err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("lab: lwIP of host %s: %v", h.Name, err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("lab: lwIP of host %s: %v", h.Name, err)
		}
		_ = device.Close()
	})
	l := &LWIP{tb: tb, in: in, out: bufio.NewScanner(out)}
	l.line() // it listens
	return l
}

// line returns what the peer says next.
func (l *LWIP) line() string {
	l.tb.Helper()
	if !l.out.Scan() {
		l.tb.Fatalf("lab: lwIP ended: %v", l.out.Err())
	}
	return l.out.Text()
}

// Sockets lists the peer's connections, by lwIP's words for their states with
// hyphens, as ss has them (TIME-WAIT), and none that listens.
func (l *LWIP) Sockets() []Socket {
	l.tb.Helper()
	if _, err := io.WriteString(l.in, "\n"); err != nil {
		l.tb.Fatalf("lab: lwIP: %v", err)
	}
	var all []Socket
	for {
		line := l.line()
		if line == "" {
			return all
		}
		f := strings.Fields(line)
		if len(f) != 5 {
			l.tb.Fatalf("lab: lwIP says %q", line)
		}
		all = append(all, Socket{State: strings.ReplaceAll(f[0], "_", "-"), Local: net.JoinHostPort(f[1], f[2]), Remote: net.JoinHostPort(f[3], f[4])})
	}
}
