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

// TestStackedDevices probes a Linux listener from addresses of a bridge and of a
// macvlan, where the tap sees every segment once a layer. Each counts once, none
// is a duplicate, and the round-trip time is the one at the lowest layer: from
// the last stamp of the SYN that a capture shows to the first of the SYN-ACK.
func TestStackedDevices(t *testing.T) {
	const (
		probes = 200
		bias   = 2 * time.Microsecond // each tap reads the clock for itself
	)
	for _, tt := range []struct {
		name   string
		build  func(*lab.End)
		layers int
	}{
		{"bridge", (*lab.End).Bridge, 2},
		{"macvlan", (*lab.End).Macvlan, 2},
		{"macvlan on a bridge", func(e *lab.End) { e.Bridge(); e.Macvlan() }, 3},
	} {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s, IPv%d", tt.name, family), func(t *testing.T) {
				a, b := lab.Pair(t)
				tt.build(a.End(0))
				b.Listen("tcp", "[::]:80")
				addr := b.Addr4()
				if family == 6 {
					addr = b.Addr6()
				}
				capture := a.Capture(t, "any", "tcp port 80")
				books, o := newLedger(), newSelf()
				r := newRig(t, a, o, engine.Limits{Global: 1e6, PerAddress: 1e6})
				stats := &r.shard.Stats
				r.shard.Update([]*engine.Target{
					target(1, netip.AddrPortFrom(addr, 80), 10*time.Millisecond, time.Second, books),
				}, nil)
				await(t, 20*time.Second, "all probes", func() bool { return books.settled() >= probes })
				r.end()

				n := books.settled()
				if books.verdicts[probe.OK] != n || books.duplicates+books.late+len(books.rejects) > 0 {
					t.Errorf("%d probes: verdicts %v, discards %v, rejects %v, %d duplicates, %d late",
						n, books.verdicts, books.discards, books.rejects, books.duplicates, books.late)
				}
				if sent, received := stats.SegmentsSent.Load(), stats.SegmentsReceived.Load(); sent != uint64(2*n) || received != uint64(n) {
					t.Errorf("%d probes: %d segments sent and %d received, want %d and %d", n, sent, received, 2*n, n)
				}
				for reason, n := range o.skips() {
					if reason != engine.SkipLate { // a machine that is busy otherwise
						t.Errorf("%d skipped: %v", n, reason)
					}
				}
				packets := capture.Packets()
				if want := 3 * n * tt.layers; len(packets) != want {
					t.Errorf("the capture has %d packets, want %d: three a probe and layer", len(packets), want)
				}
				acc := compare(t, measured(books.transcripts), captured(t, packets))
				t.Log(acc)
				if acc.n != n {
					t.Errorf("%d round-trip times, want %d", acc.n, n)
				}
				if acc.median.Abs() > bias {
					t.Errorf("allowed: median bias %v", bias)
				}
			})
		}
	}
}
