package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects and tells how it went in a word.
func dial(t *testing.T, h *Host, addr string, timeout time.Duration) string {
	t.Helper()
	c, err := h.Dial("tcp", addr, timeout)
	switch {
	case err == nil:
		_ = c.Close()
		return "connected"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, unix.ENETUNREACH):
		return "network unreachable"
	case errors.Is(err, unix.EACCES):
		return "prohibited"
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "timeout"
	}
	return err.Error()
}

func hostPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func TestJoinedHostsConnect(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	b.Serve("tcp", "[::]:80", nil)
	for _, to := range []netip.Addr{b.Addr4(), b.Addr6()} {
		if got := dial(t, a, hostPort(to, 80), 5*time.Second); got != "connected" { // a busy machine may lose a SYN
			t.Errorf("%s: %s", to, got)
		}
	}
}

func TestAHostReachesNothingElse(t *testing.T) {
	t.Parallel()
	a, _ := Pair(t)
	for _, to := range []string{"192.0.2.1:80", "[2001:db8:ffff::1]:80", "198.18.64.1:80"} {
		if got := dial(t, a, to, time.Second); got != "network unreachable" {
			t.Errorf("%s: %s", to, got)
		}
	}
}

func TestHostsInARowForward(t *testing.T) {
	t.Parallel()
	l := New(t)
	a, r, b := l.Host("a"), l.Host("router"), l.Host("b")
	ar, rb := l.Join(a, r), l.Join(r, b)
	r.Forward()
	a.Route("198.18.1.0/24", ar.B.Addr4)
	a.Route("2001:db8:0:1::/64", ar.B.Addr6)
	b.Route("198.18.0.0/24", rb.A.Addr4)
	b.Route("2001:db8::/64", rb.A.Addr6)
	b.Listen("tcp", "[::]:80")
	for _, to := range []netip.Addr{rb.B.Addr4, rb.B.Addr6} {
		if got := dial(t, a, hostPort(to, 80), time.Second); got != "connected" {
			t.Errorf("%s: %s", to, got)
		}
	}
}

func TestAnyIPAnswersOnEveryAddress(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	b.AnyIP("198.18.64.0/18", "2001:db8:1::/48")
	b.Serve("tcp", "[::]:80", nil)
	b.Sysctl("net.core.somaxconn", "4096")
	first4, first6 := netip.MustParseAddr("198.18.64.0"), netip.MustParseAddr("2001:db8:1::")
	const each = 5000
	answered := 0
	a.Do(func() {
		d := net.Dialer{Timeout: 5 * time.Second}
		for _, addr := range []netip.Addr{first4, first6} {
			for range each {
				c, err := d.Dial("tcp", hostPort(addr, 80))
				if err != nil {
					t.Errorf("%s: %v", addr, err)
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
				answered++
				addr = addr.Next()
			}
		}
	})
	if answered != 2*each {
		t.Errorf("%d of %d addresses answered", answered, 2*each)
	}
}

func TestCommandRunsInside(t *testing.T) {
	t.Parallel()
	h := NewHost(t, "h")
	out, err := h.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if want := fmt.Sprintf("net:[%d]\n", h.Inode()); err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := NewHost(t, "h")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := h.Command(ctx, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("Wait: %v", err)
	}
}

func TestDoCarriesPanicsAndNests(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	defer func() {
		if v := fmt.Sprint(recover()); !strings.Contains(v, "the inner one") || !strings.Contains(v, "host_test.go") {
			t.Errorf("panic %s", v)
		}
	}()
	a.Do(func() { b.Do(func() { panic("the inner one") }) })
}

func TestSysctlIsTheHostsOwn(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	a.Sysctl("net.ipv4.tcp_syncookies", "2")
	b.Sysctl("net.ipv4.tcp_syncookies", "0")
	for h, want := range map[*Host]string{a: "2", b: "0"} {
		out, err := h.Command(t.Context(), "cat", "/proc/sys/net/ipv4/tcp_syncookies").Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("host %s: %q, %v", h.Name, out, err)
		}
	}
}
