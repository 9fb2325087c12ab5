package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A loop that was stopped for ten minutes has missed six hundred slots of each target. It
// says so target by target, and reads and sends in between: no turn takes them all.
func TestStoppedForLong(t *testing.T) {
	const targets, stop = 8_000, 10 * time.Minute
	calls, most := 0, 0
	o := &skipping{}
	w := newWorld(t, func(c *Config) {
		c.Heartbeat = func() { // after each turn
			calls, most = calls+o.calls, max(most, o.calls)
			o.calls = 0
		}
	})
	w.peer = listening(20 * time.Millisecond)
	w.add(w.targets(targets, nil)...)
	o.world, w.shard.cfg.Observer = w, o
	w.after(5*time.Second, func() { w.stallFor(stop) })
	w.run(stop + 10*time.Second)
	if n := w.skips[SkipLate]; n < targets*598 || n > targets*602 {
		t.Errorf("%d slots missed of %d", n, targets*600)
	}
	if calls > 2*targets || most > maxFired {
		t.Errorf("the observer was called %d times, %d in one turn", calls, most)
	}
	all := w.total()
	if n := sum(all.verdicts[:]); n != all.verdicts[probe.OK] || all.late+all.dups != 0 {
		t.Errorf("verdicts %v, %d late, %d again", all.verdicts, all.late, all.dups)
	}
}

// A skipping counts the calls of Skipped.
type skipping struct {
	*world
	calls int
}

func (s *skipping) Skipped(r SkipReason, n int) {
	s.calls++
	s.world.Skipped(r, n)
}

// Before its target has come up for the first time a peer is answered that holds a
// connection of a life before this one; and only it.
func TestStrayBeforeTheFirstProbe(t *testing.T) {
	w := newWorld(t, nil)
	x, _ := w.target(1, "198.19.0.1:443", func(x *Target) {
		x.Interval, x.Params = time.Hour, probe.Params{Kind: probe.ActiveClose, Timeout: time.Second, Linger: time.Second}
	})
	w.add(x)
	w.churn = true
	var resets []wire.Packet
	w.onWire = func(_ probe.Instant, p *wire.Packet) { resets = append(resets, *p) }
	for i, from := range []string{"198.19.0.1:443", "198.19.0.2:443", "198.19.0.1:444"} {
		w.after(time.Second+time.Duration(i)*time.Millisecond, func() {
			tuple := probe.FourTuple{Local: netip.MustParseAddrPort(from), Remote: netip.AddrPortFrom(local4, 61200)}
			w.arrives(wire.AppendPacket(w.buffer(), &tuple, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 7, Ack: 77, TTL: 60}, nil))
		})
	}
	w.run(3 * time.Second)
	if len(resets) != 1 || resets[0].Segment.Flags != probe.RST || resets[0].Segment.Seq != 77 || resets[0].DstPort != 443 || resets[0].Dst != netip.MustParseAddr("198.19.0.1") {
		t.Errorf("answered by %+v", resets)
	}
}

// One that starts again goes on in the round of its source ports where it was, as if it
// had gone on all the time.
func TestPortsGoOn(t *testing.T) {
	ports := func(start time.Duration) map[int64]uint16 {
		w := newWorld(t, nil)
		w.now = probe.Instant(start)
		w.peer = listening(time.Millisecond)
		x, _ := w.target(1, "198.19.0.1:443", nil)
		w.add(x)
		got := make(map[int64]uint16)
		w.onWire = func(at probe.Instant, p *wire.Packet) {
			if p.Segment.Flags == probe.SYN {
				got[int64(at)/int64(time.Second)] = p.SrcPort
			}
		}
		w.run(20 * time.Second)
		return got
	}
	first, second := ports(1000*time.Second), ports(1010*time.Second)
	both := 0
	for at, port := range second {
		if before, ok := first[at]; ok {
			if both++; before != port {
				t.Errorf("from port %d at %d s, and %d for one that was started before", port, at, before)
			}
		}
	}
	if both < 8 {
		t.Errorf("%d probes to compare", both)
	}
}
