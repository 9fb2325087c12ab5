package lab

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

func TestRealPeersAnswerAsTheirKindDoes(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	b.AllICMP()
	b.Listen("tcp", "[::]:80")
	b.Serve("tcp", "[::]:81", Discard)
	peers := []struct {
		name   string
		port   uint16
		how    Refusal
		v4, v6 string
	}{
		{"listening", 80, "", "connected", "connected"},
		{"accepting", 81, "", "connected", "connected"},
		{"closed", 82, "", "refused", "refused"},
		{"drop", 90, Drop, "timeout", "timeout"},
		{"reset", 91, TCPReset, "refused", "refused"},
		{"port unreachable", 92, PortUnreachable, "refused", "refused"},
		{"host unreachable", 93, HostUnreachable, "host unreachable", "host unreachable"},
		{"no route", 94, NoRoute, "network unreachable", "network unreachable"},
		{"admin prohibited", 95, AdminProhibited, "host unreachable", "prohibited"},
		{"host prohibited", 96, HostProhibited, "host unreachable", "prohibited"},
		{"net prohibited", 97, NetProhibited, "network unreachable", "prohibited"},
	}
	var wg sync.WaitGroup
	for _, p := range peers {
		if p.how != "" {
			b.Refuse(p.port, p.how)
		}
		for addr, want := range map[netip.Addr]string{b.Addr4(): p.v4, b.Addr6(): p.v6} {
			wg.Go(func() {
				// Long enough for one retransmission: see Refuse.
				if got := dial(t, a, hostPort(addr, p.port), 1500*time.Millisecond); got != want {
					t.Errorf("%s, %s: %s, want %s", p.name, addr, got, want)
				}
			})
		}
	}
	wg.Wait()
}

func TestAFullAcceptQueueIsSilent(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	for i, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		q := b.Backlog(netip.AddrPortFrom(addr, 80), i)
		q.Fill(1)
		if got := dial(t, a, q.Addr.String(), time.Second); got != "connected" {
			t.Errorf("%s with room for one: %s", addr, got)
		}
		if got := dial(t, a, q.Addr.String(), 200*time.Millisecond); got != "timeout" {
			t.Errorf("%s when full: %s", addr, got)
		}
	}
	for _, s := range SS(b, "LISTEN") {
		if s.RecvQ != s.SendQ+1 {
			t.Errorf("%+v: not full", s)
		}
	}
	if n := b.Counters()["TcpExtListenOverflows"]; n < 2 {
		t.Errorf("TcpExtListenOverflows %d, want one for every SYN ignored", n)
	}
}

func TestSYNCookiesOnAndOff(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	b.Listen("tcp", "[::]:80")
	for setting, want := range map[string]int64{"2": 2, "0": 0} {
		b.Sysctl("net.ipv4.tcp_syncookies", setting)
		before := b.Counters()["TcpExtSyncookiesSent"]
		for _, to := range []netip.Addr{b.Addr4(), b.Addr6()} {
			if got := dial(t, a, hostPort(to, 80), time.Second); got != "connected" {
				t.Errorf("tcp_syncookies=%s, %s: %s", setting, to, got)
			}
		}
		if sent := b.Counters()["TcpExtSyncookiesSent"] - before; sent != want {
			t.Errorf("tcp_syncookies=%s: %d cookies sent, want %d", setting, sent, want)
		}
	}
}
