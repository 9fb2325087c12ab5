package host_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestSYNCookies tells a Linux peer that always answers with SYN cookies from
// one that never does, and asks neither when it is not to.
func TestSYNCookies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sysctl string
		detect       bool
		want         probe.Tristate
		packets      int // of ours, a probe
	}{
		{"on", "2", true, probe.Yes, 4},
		{"off", "0", true, probe.No, 4},
		{"not asked", "2", false, probe.NotKnown, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			b.Sysctl("net.ipv4.tcp_syncookies", tt.sysctl)
			b.Listen("tcp4", "0.0.0.0:80")
			b.Listen("tcp6", "[::]:80")
			capture := a.Capture(t, a.Iface(), "tcp", lab.Immediate)
			books := []*ledger{newLedger(), newLedger()}
			var targets []*engine.Target
			for i, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
				tg := target(uint64(i), netip.AddrPortFrom(addr, 80), 50*time.Millisecond, time.Second, books[i])
				tg.Params.DetectCookies = tt.detect
				targets = append(targets, tg)
			}
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			r.shard.Update(targets, nil)
			await(t, 20*time.Second, "20 fingerprints a family", func() bool {
				books[0].mu.Lock()
				defer books[0].mu.Unlock()
				books[1].mu.Lock()
				defer books[1].mu.Unlock()
				return len(books[0].peers) >= 20 && len(books[1].peers) >= 20
			})
			r.end()
			ours := 0
			for _, p := range capture.Packets() {
				if p.Outgoing {
					ours++
				}
			}
			probes := 0
			for family, l := range books {
				probes += len(l.peers)
				wrong := 0
				for _, p := range l.peers {
					if p.SYNCookies != tt.want {
						wrong++
					}
				}
				// The cookie's minute may change between the two SYNs of one probe.
				if wrong > 1 {
					t.Errorf("family %d: %d of %d fingerprints are not %v", family, wrong, len(l.peers), tt.want)
				}
			}
			if ours != tt.packets*probes {
				t.Errorf("%d packets in %d probes, want %d each", ours, probes, tt.packets)
			}
		})
	}
}
