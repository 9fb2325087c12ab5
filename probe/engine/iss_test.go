package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// An ISS lies above all that the four-tuple's last conversation sent, whoever had that:
// targets of one peer share its four-tuples, and each may have flows or an interval of
// its own.
func TestISSRisesAcrossTargets(t *testing.T) {
	flows := func(t *Target) { passiveClose(t); t.Flows = 16 }
	every := func(d time.Duration) func(*Target) {
		return func(t *Target) { passiveClose(t); t.Interval = d }
	}
	for _, tt := range []struct {
		name  string
		ports uint16
		ids   []uint64 // two that are alike modulo the ports have flows on the same ones
		each  []func(*Target)
	}{
		{"flows that share ports", 128, []uint64{5, 133}, []func(*Target){flows, flows}},
		{"and in another phase", 128, []uint64{5, 645}, []func(*Target){flows, flows}},
		{"a slow one and a fast one", 8, []uint64{5, 9}, []func(*Target){every(10 * time.Second), every(50 * time.Millisecond)}},
		{"flows and none", 8, []uint64{5, 9}, []func(*Target){flows, every(50 * time.Millisecond)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Guarded.Last = c.Guarded.First + tt.ports - 1 })
			w.peer = closesFirst(time.Millisecond)
			last := map[uint16]probe.Seq{}
			falls, reuses := 0, 0
			w.onWire = func(_ probe.Instant, p *wire.Packet) {
				if p.Segment.Flags != probe.SYN {
					return
				}
				if was, ok := last[p.SrcPort]; ok {
					reuses++
					if p.Segment.Seq.LessEq(was.Add(25)) { // what one sends, and more
						falls++
					}
				}
				last[p.SrcPort] = p.Segment.Seq
			}
			for i, change := range tt.each {
				x, _ := w.target(tt.ids[i], "198.19.0.1:443", func(t *Target) {
					change(t)
					t.Flows = min(t.Flows, int32(tt.ports))
				})
				w.add(x)
			}
			w.run(200 * time.Second)
			if falls > 0 || reuses < 100 {
				t.Errorf("of %d uses of a four-tuple again %d have an ISS that is not above", reuses, falls)
			}
		})
	}
}

// Whatever a process had used, also the one before it with the same secret, the clock
// rises by half of the time that goes by, at the least, and by one and a half, at the most.
func TestISSClock(t *testing.T) {
	k := newSecret(make([]byte, 20))
	tuple := probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.19.0.1:443")}
	f := k.fixed(&tuple)
	for _, step := range []time.Duration{10 * time.Microsecond, 10 * time.Millisecond, 700 * time.Millisecond, 128 * time.Second, 5 * time.Minute} {
		now := probe.Instant(17 * time.Hour)
		for range 20_000 {
			next := now.Add(step)
			rise, want := int64(k.clock(f, next)-k.clock(f, now)), int64(step/issTick)
			if rise < want-min(want/2, maxAhead)-1 || rise > want+min(want/2, maxAhead)+2 {
				t.Fatalf("in %v the clock rises by %d, of %d", step, rise, want)
			}
			now = next
		}
	}
}
