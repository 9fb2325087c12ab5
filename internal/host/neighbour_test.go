package host_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestDeadNeighbour probes fifty ports of an address on the link that nobody
// has, near the limit for one address, and then somebody has it. Few SYNs may lie
// in this host at a time, so that no burst leaves when they can; those are
// answered by our own kernel's ICMP errors, and no other probe has a verdict.
func TestDeadNeighbour(t *testing.T) {
	t.Parallel()
	const (
		targets  = 50
		interval = 500 * time.Millisecond
		limit    = 220             // packets a second; 200 are asked for
		waiting  = 3               // SYNs, for the neighbour
		dead     = 7 * time.Second // two rounds of solicitations and more (net/core/neighbour.c)
	)
	for _, tt := range []struct{ family, addr, prefix string }{
		{"IPv4", "198.18.0.77", "198.18.0.77/24"},
		{"IPv6", "2001:db8::77", "2001:db8::77/64"},
	} {
		t.Run(tt.family, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			addr := netip.MustParseAddr(tt.addr)
			books, o := newLedger(), newSelf()
			var all []*engine.Target
			for i := range targets {
				port := uint16(1000 + i)
				b.Listen("tcp", fmt.Sprintf("[::]:%d", port))
				all = append(all, target(uint64(i), netip.AddrPortFrom(addr, port), interval, 400*time.Millisecond, books))
			}
			capture := a.Capture(t, a.Iface(), "tcp and host "+tt.addr, lab.Immediate)
			r := newRig(t, a, o, engine.Limits{Global: 1e6, PerAddress: limit})
			r.shard.Update(all, nil)

			most := int64(0)
			for end := time.Now().Add(dead); time.Now().Before(end); time.Sleep(time.Millisecond) {
				most = max(most, r.shard.Stats.Conversations.Load())
			}
			open := r.shard.Stats.Conversations.Load()
			settled, skipped := books.settled(), o.skips()
			t.Logf("nobody there: at most %d SYNs unsent, verdicts %v, skipped %v", most, books.count(), skipped)
			if most > waiting+20 { // more go before the first is missed, 100 ms later
				t.Errorf("%d SYNs lay in this host at a time, allowed about %d", most, waiting+20)
			}
			if n := books.count()[probe.Unreachable]; n < 2*waiting || n != settled {
				t.Errorf("verdicts %v, discards %v: want %d or more, all unreachable", books.count(), books.discards, 2*waiting)
			}
			for reason := range skipped {
				if reason != engine.SkipUnsent {
					t.Errorf("skipped: %v", skipped)
				}
			}
			// All that was due was sent or skipped.
			due := targets * int(dead/interval)
			if n := settled + int(open) + skipped[engine.SkipUnsent]; n < due-2*targets || n > due+targets {
				t.Errorf("%d probes sent or skipped, due were about %d", n, due)
			}

			b.End(0).Address(tt.prefix)
			await(t, 10*time.Second, "answers", func() bool { return books.count()[probe.OK] > 0 })
			unsent := o.skips()
			time.Sleep(3 * time.Second)
			r.end()
			// Those that had waited take the room of as many that were due.
			if now := o.skips(); now[engine.SkipUnsent] != unsent[engine.SkipUnsent] || now[engine.SkipRateLimit] > waiting+20 || len(now) > 2 {
				t.Errorf("skipped %v when the first answer was there, and %v in the end", unsent, now)
			}
			for reason, n := range books.verdicts {
				switch {
				case reason == probe.OK && n < 2*targets*2, reason != probe.OK && reason != probe.Unreachable:
					t.Errorf("verdicts %v", books.verdicts)
				}
			}
			var stamps []int64
			for _, p := range capture.Packets() {
				if p.Outgoing {
					stamps = append(stamps, p.Wall)
				}
			}
			n := busiest(stamps)
			t.Logf("at most %d packets left in one second; %d in all", n, len(stamps))
			if n > limit {
				t.Errorf("%d packets in one second, the limit is %d", n, limit)
			}
		})
	}
}

// busiest is the most stamps of any one second. They ascend.
func busiest(stamps []int64) int {
	most, from := 0, 0
	for to, at := range stamps {
		for at-stamps[from] >= int64(time.Second) {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}
