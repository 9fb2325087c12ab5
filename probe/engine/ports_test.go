package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// uses notes when each four-tuple was used and reports the shortest time
// between two uses of one, and whether one was used while its last SYN could
// still be answered.
type uses struct {
	last     map[probe.FourTuple]probe.Instant
	shortest time.Duration
	ports    map[uint16]int
}

func (w *world) uses() *uses {
	u := &uses{make(map[probe.FourTuple]probe.Instant), 1 << 62, make(map[uint16]int)}
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
		if before, ok := u.last[tuple]; ok {
			u.shortest = min(u.shortest, at.Sub(before))
		}
		u.last[tuple] = at
		u.ports[p.SrcPort]++
	}
	return u
}

// A four-tuple comes back when all 128 ports had their turn, so after 128 s.
func TestTupleReuse(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	u := w.uses()
	w.add(w.targets(10, nil)...)
	w.run(500 * time.Second)
	if u.shortest < 120*time.Second || u.shortest > 129*time.Second {
		t.Errorf("a four-tuple is used again after %v", u.shortest)
	}
	if len(u.ports) != 128 {
		t.Errorf("%d source ports in use", len(u.ports))
	}
	for port := range u.ports {
		if port < 61000 || port > 61127 {
			t.Errorf("source port %d", port)
		}
	}
}

// Two targets with one remote address and port take turns in one round.
func TestSharedRemote(t *testing.T) {
	w := newWorld(t, nil)
	u := w.uses()
	a, la := w.target(1, "198.19.0.1:443", nil)
	b, lb := w.target(2, "198.19.0.1:443", nil)
	w.add(a, b)
	w.run(300 * time.Second)
	if u.shortest < 63*time.Second {
		t.Errorf("a four-tuple is used again after %v", u.shortest)
	}
	if la.verdicts[probe.Timeout] != 300 || lb.verdicts[probe.Timeout] != 300 {
		t.Errorf("%v and %v", la.verdicts, lb.verdicts)
	}
}

// With 4 ports, 10 probes a second and a timeout of a second, 4 probes are open
// and the others have no port.
func TestNoPort(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Reserved.Last = c.Reserved.First + 3 })
	target, l := w.target(1, "198.19.0.1:443", func(t *Target) {
		t.Interval = 100 * time.Millisecond
		t.Params.Timeout = time.Second
		t.Params.Linger = time.Hour // lingering conversations are in nobody's way
	})
	u := w.uses()
	w.add(target)
	w.run(60 * time.Second)
	if n := l.verdicts[probe.Timeout]; n < 200 || n > 240 {
		t.Errorf("%d timeouts", n)
	}
	if w.skips[SkipNoPort]+w.queued != 600 || sum(w.skips[:]) != w.skips[SkipNoPort] {
		t.Errorf("%d sent, skipped %v", w.queued, w.skips)
	}
	if u.shortest < time.Second {
		t.Errorf("a four-tuple is used again after %v", u.shortest)
	}
}

// Every flow keeps a port of its own.
func TestFlows(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	var order []uint16
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			order = append(order, p.SrcPort)
		}
	}
	target, _ := w.target(127, "198.19.0.1:443", func(t *Target) { t.Flows = 5 })
	w.add(target)
	w.churn = true
	w.after(52*time.Second, func() { // a reload keeps the flows and whose turn it is
		again := *target
		w.shard.Update([]*Target{&again}, []*Target{target})
	})
	w.run(100 * time.Second)
	seen := make(map[uint16]bool)
	for i, port := range order {
		seen[port] = true
		if port != order[i%5] {
			t.Fatalf("flow %d goes from port %d, then %d", i%5, order[i%5], port)
		}
	}
	if len(seen) != 5 || len(order) != 100 {
		t.Errorf("%d ports, %d probes", len(seen), len(order))
	}
}

// The ISS of a four-tuple rises from use to use, and whoever has seen one does not know
// the next: its clock goes fast or slow by chance.
func TestISS(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Reserved.Last = c.Reserved.First })
	w.peer = closed(time.Millisecond)
	var last probe.Seq
	var at0 probe.Instant
	var least, most int32
	const span = int32(500 * time.Millisecond / issTick) // half of the time between two uses
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		if at0 != 0 {
			rise, want := p.Segment.Seq.Sub(last), int32(at.Sub(at0)/issTick)
			if rise <= 0 || rise < want-span || rise > want+span {
				t.Fatalf("the ISS rises by %d in %v, not by about %d", rise, at.Sub(at0), want)
			}
			least, most = min(least, rise-want), max(most, rise-want)
		}
		last, at0 = p.Segment.Seq, at
	}
	target, l := w.target(1, "198.19.0.1:443", nil)
	w.add(target)
	w.run(60 * time.Second)
	if l.verdicts[probe.Refused] != 60 {
		t.Errorf("%v", l.verdicts)
	}
	if least > -span/2 || most < span/2 {
		t.Errorf("the ISS is off its clock by %d to %d only", least, most)
	}
	a, b := newSecret(nil), newSecret(nil)
	tuple := probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.19.0.1:443")}
	if a.iss(&tuple, 0) == b.iss(&tuple, 0) {
		t.Error("two secrets, one ISS")
	}
}

// Our SYNs carry what the target says, and TSvals of a millisecond clock.
func TestSYN(t *testing.T) {
	w := newWorld(t, nil)
	var vals []uint32
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		s := p.Segment
		if s.Flags != probe.SYN|probe.ECE|probe.CWR || s.Window != 1000 || s.Options.MSS != 1400 || s.TOS != 0x48 {
			t.Fatalf("%+v", s)
		}
		vals = append(vals, s.Options.TSVal)
	}
	target, _ := w.target(1, "[2001:db8:1::1]:443", func(t *Target) {
		t.SYN = unique.Make(probe.Segment{Flags: probe.SYN | probe.ECE | probe.CWR, Window: 1000,
			Options: probe.Options{Set: probe.OptMSS | probe.OptTimestamps, MSS: 1400}})
		t.TOS = 0x48
	})
	w.add(target)
	w.run(10 * time.Second)
	for i := 1; i < len(vals); i++ {
		if d := vals[i] - vals[i-1]; d < 999 || d > 1001 {
			t.Errorf("TSval rises by %d in a second", d)
		}
	}
}

// A reload in which every target is replaced does not start the round of ports
// anew, even if they are away for a minute.
func TestReuseAcrossReloads(t *testing.T) {
	for _, away := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint(away), func(t *testing.T) {
			w := newWorld(t, nil)
			w.churn = true
			w.peer = listening(time.Millisecond)
			u := w.uses()
			now, _ := w.target(1, "198.19.0.1:443", nil)
			w.add(now)
			for i := range 20 {
				w.after(time.Duration(i+1)*(5*time.Second+away), func() {
					next := *now
					gone := now
					now = &next
					w.shard.Update(nil, []*Target{gone})
					w.after(away+time.Millisecond, func() { w.shard.Update([]*Target{now}, nil) })
				})
			}
			w.run(20 * (5*time.Second + away))
			if u.shortest < 120*time.Second {
				t.Errorf("a four-tuple is used again after %v", u.shortest)
			}
		})
	}
}

// Peers that nobody probes any more are forgotten in the end.
func TestPeersAreForgotten(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	ts := w.targets(100, nil)
	w.add(ts...)
	w.after(10*time.Second, func() { w.shard.Update(nil, ts) })
	w.run(200 * time.Second)
	if a, b := len(w.shard.peers.byRemote), len(w.shard.peers.byAddress); a+b != 0 {
		t.Errorf("%d peers, %d addresses left", a, b)
	}
}
