package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// What leaves for a peer, by its flags.
func (w *world) leaving(f probe.Flags) func() int {
	n := 0
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == f {
			n++
		}
	}
	return func() int { return n }
}

// A target that is removed for good leaves its peer with nothing open: two RSTs a
// connection. One that is replaced, or was probed once more, keeps its connections.
func TestRemovalResetsConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world, x *Target)
		resets int
		want   probe.DiscardReason // of what was open
	}{
		"removed": {func(w *world, x *Target) { w.shard.Update(nil, []*Target{x}) }, 2, probe.DiscardReload},
		"replaced": {func(w *world, x *Target) {
			y := *x
			y.Interval = 2 * x.Interval
			w.shard.Update([]*Target{&y}, []*Target{x})
		}, 0, 0},
		"another with its ID is over": {func(w *world, x *Target) {
			once := *x
			once.Count = 1
			w.shard.Update([]*Target{&once}, nil)
			w.after(100*time.Millisecond, func() { w.shard.Update(nil, []*Target{&once}) })
		}, 2, probe.DiscardReload}, // the one probe more
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.churn = true
			w.peer = stays(10 * time.Millisecond)
			x, l := w.target(1, "198.19.0.1:443", passiveClose)
			x.Params.Timeout, x.Interval = time.Hour, time.Hour
			x.Recorder = l
			w.add(x)
			resets := w.leaving(probe.RST)
			w.shard.read()
			w.obey()
			x.Params.Timeout = time.Hour
			begun := w.shard.targets[x].slot.Sub(w.now)
			sent := 0
			w.after(begun+time.Second, func() { tt.change(w, x) })
			w.after(begun+10*time.Second, func() { sent = resets() })
			w.run(begun + 11*time.Second)
			if sent != tt.resets {
				t.Errorf("%d RSTs, want %d", sent, tt.resets)
			}
			if tt.want != 0 && l.discards[tt.want] != 1 {
				t.Errorf("discards %v", l.discards)
			}
		})
	}
}

// At the end the RST of an aborted connection goes twice: the first may be lost.
func TestEndResetsTwice(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Drain = 100 * time.Millisecond })
	w.peer = stays(10 * time.Millisecond)
	for i := range 10 {
		x, l := w.target(uint64(i), remote(i).String(), passiveClose)
		x.Recorder = l
		w.add(x)
	}
	resets := w.leaving(probe.RST)
	w.run(1500 * time.Millisecond)
	all := w.total()
	if n := all.discards[probe.DiscardShutdown]; n < 10 || resets() != 2*n {
		t.Errorf("%d connections, %d RSTs", n, resets())
	}
}

// Our own end is the last moment for it: what there is open is reset, whatever the limits.
func TestEndResetsAll(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Drain = 100 * time.Millisecond })
	w.peer = stays(10 * time.Millisecond)
	for i := range 20 {
		x, _ := w.target(uint64(i), remote(i).String(), passiveClose)
		x.Interval, x.Params.Timeout = time.Second, time.Hour
		w.add(x)
	}
	resets := w.leaving(probe.RST)
	w.after(14*time.Second, func() { w.shard.SetLimits(Limits{Global: 7, PerAddress: 7}) })
	w.run(15 * time.Second)
	if n := w.total().discards[probe.DiscardShutdown]; n < 20 || resets() != 2*n {
		t.Errorf("%d connections, %d RSTs", n, resets())
	}
}

// A stray of a removed target's connection is still refused.
func TestStrayAfterRemoval(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = closes(10 * time.Millisecond)
	x, _ := w.target(1, "198.19.0.1:443", activeClose)
	w.add(x)
	resets := w.leaving(probe.RST)
	w.after(2*time.Second, func() { w.shard.Update(nil, []*Target{x}) })
	w.after(10*time.Second, func() {
		p := &wire.Packet{Kind: wire.KindTCP, Src: local4, Dst: x.Remote.Addr(), SrcPort: 61200, DstPort: 443}
		w.reply(p, time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 5, Ack: 7, Window: 1000})
	})
	w.run(12 * time.Second)
	if resets() != 1 {
		t.Errorf("%d RSTs", resets())
	}
}

// Each segment that leaves from our ports is counted as sent, as a peer's own counter
// would: also the RST of a conversation that ends with its target, one in answer to what
// belongs to no conversation, and our kernel's. What this host forwards is not ours.
func TestSegmentsOfNoConversationAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = stays(10 * time.Millisecond)
	x, _ := w.target(1, "198.19.0.1:443", passiveClose)
	x.Params.Timeout, x.Interval = time.Hour, time.Hour
	half, _ := w.target(2, "198.19.0.2:443", nil)
	w.add(x)
	w.add(half)
	left, resets := uint64(0), 0
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if left++; p.Segment.Flags.Has(probe.RST) {
			resets++
		}
	}
	w.shard.read()
	w.obey()
	gone := w.shard.targets[x].slot.Sub(w.now) + time.Second
	w.after(gone, func() { w.shard.Update(nil, []*Target{x, half}) })
	before := 0
	for i, port := range []uint16{61010, 61200} { // our kernel answers the first, and we the second
		w.after(gone+time.Duration(20+i)*time.Second, func() {
			if i == 0 {
				before = resets
			}
			p := &wire.Packet{Kind: wire.KindTCP, Src: local4, Dst: x.Remote.Addr(), SrcPort: port, DstPort: 443}
			w.reply(p, time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 5, Ack: 7, Window: 1000})
		})
	}
	w.after(gone+25*time.Second, func() {
		tuple := probe.FourTuple{Local: netip.MustParseAddrPort("203.0.113.1:61010"), Remote: x.Remote}
		b := wire.AppendPacket(w.buffer(), &tuple, &probe.Segment{Flags: probe.RST, Seq: 9, TTL: 64}, nil)
		var p wire.Packet
		if err := wire.Parse(b, &p); err != nil {
			t.Error(err)
		}
		w.tap(b, &p, true)
	})
	w.run(gone + 30*time.Second)
	if n := w.shard.Stats.SegmentsSent.Load(); n != left {
		t.Errorf("%d segments counted, %d have left", n, left)
	}
	if resets-before != 2 || before < 3 {
		t.Errorf("%d RSTs in answer to strays, %d before: nothing is shown", resets-before, before)
	}
}

// keepsTimeWait is closesFirst, and answers a SYN on a four-tuple that it has in
// TIME-WAIT by its last ACK.
func keepsTimeWait(rtt time.Duration) peerFunc {
	last := make(map[uint16]probe.Segment)
	return func(s *sim, p *wire.Packet) {
		ack, known := last[p.SrcPort]
		switch f := p.Segment.Flags; {
		case f == probe.SYN && known:
			s.reply(p, rtt, &ack)
			return
		case f.Has(probe.FIN):
			last[p.SrcPort] = probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535}
		}
		closesFirst(rtt)(s, p)
	}
}

// While a peer's TIME-WAIT is measured a new target of the same ID waits.
func TestOneMeasureAtATime(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = keepsTimeWait(10 * time.Millisecond)
	x, l := w.target(1, "198.19.0.1:443", passiveClose)
	x.Params.Kind, x.Params.Measure, x.Params.Limit = probe.TimeWaitProbe, probe.MeasureDuration, 30*time.Second
	x.Interval = 40 * time.Second
	w.add(x)
	w.shard.read()
	w.obey()
	begun := w.shard.targets[x].slot.Sub(w.now)
	y := *x
	y.Interval, y.Params.Limit, y.Params.Timeout = 7*time.Second, 5*time.Second, time.Second // comes up while the first goes on
	w.after(begun+10*time.Second, func() { w.shard.Update([]*Target{&y}, []*Target{x}) })
	most := 0
	for range 900 {
		w.turns(100 * time.Millisecond)
		most = max(most, w.shard.table.open)
	}
	if l.verdicts[probe.OK] < 2 {
		t.Errorf("verdicts %v", l.verdicts)
	}
	if most != 1 {
		t.Errorf("%d conversations at once", most)
	}
}
