package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// forbidden are rules against some addresses.
type forbidden map[addr]bool

func (f *forbidden) Forbids(a addr) bool { return (*f)[a] }

// This host lets no RST out when rules come: those that would go again minutes later, to an
// address that is forbidden by then, don't.
func TestRulesWhereRSTsAreKept(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(10 * time.Millisecond) // and closes nothing
	bad := netip.MustParseAddr("198.19.0.1")
	open, of := w.target(1, "198.19.0.1:443", activeClose)
	half, at := w.target(2, "198.19.0.1:443", nil)
	other, _ := w.target(3, "198.19.0.2:443", activeClose)
	w.add(open, half, other)
	w.after(3*time.Second, func() { w.keepsRSTs(true) })
	var since probe.Instant
	noSYN := func(o *probe.Observation) { // what is discarded from then on never left
		if since != 0 && o.Kind == probe.Discarded {
			w.sourceless++
		}
	}
	of.onEach, at.onEach = noSYN, noSYN
	w.after(10*time.Second, func() {
		w.shard.SetLimits(Limits{Global: unlimited.Global, PerAddress: unlimited.PerAddress, Rules: &forbidden{bad: true}})
		w.Wake()
	})
	w.after(10001*time.Millisecond, func() { since = w.now })
	w.after(20*time.Second, func() { w.keepsRSTs(false) })
	to := make(map[addr]int)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if since != 0 && at.Sub(since) > ruleGrace+idlePause {
			to[p.Dst]++
		}
	}
	w.run(200 * time.Second)
	if of.discards[probe.DiscardReload] == 0 || to[bad] > 0 || to[other.Remote.Addr()] == 0 {
		t.Errorf("%d packets to what is forbidden, %d to another; discards %v", to[bad], to[other.Remote.Addr()], of.discards)
	}
}

// Rules that come while everything is open with an address: that is reset at once, no
// probe goes there any more, whoever asks for it, and soon no answer to anything.
func TestRules(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(10 * time.Millisecond) // and closes nothing: connections stay open
	var ledgers []*ledger
	bad := netip.MustParseAddr("198.19.0.1")
	var since probe.Instant
	noSYN := func(o *probe.Observation) { // what is discarded from then on never left
		if since != 0 && o.Kind == probe.Discarded {
			w.sourceless++
		}
	}
	ends := []string{"198.19.0.1:443", "198.19.0.2:443"} // the first one is to be forbidden
	for i, to := range ends {
		open, of := w.target(uint64(10+i), to, activeClose)
		half, at := w.target(uint64(20+i), to, nil)
		w.add(open, half)
		if i == 0 {
			of.onEach, at.onEach = noSYN, noSYN
		}
		ledgers = append(ledgers, of, at)
	}
	asked, answer := w.target(30, ends[0], func(x *Target) { x.Count = 1 })
	asked.Recorder, answer.onEach = answer, noSYN
	synced, resets, later := 0, 0, 0
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		switch {
		case since == 0 || p.Dst != bad:
		case p.Segment.Flags.Has(probe.SYN):
			synced++
		case at.Sub(since) >= ruleGrace:
			later++
		case p.Segment.Flags.Has(probe.RST):
			resets++
		default:
			t.Errorf("%v after %v", p.Segment.Flags, at.Sub(since))
		}
	}
	l := Limits{Global: unlimited.Global, PerAddress: unlimited.PerAddress, Rules: &forbidden{bad: true}}
	fin := probe.Segment{Flags: probe.FIN | probe.ACK, Seq: 77, Ack: 4242, Window: 1000}
	from := probe.FourTuple{Local: netip.MustParseAddrPort(ends[0]), Remote: netip.AddrPortFrom(local4, 61200)}
	stray := func() { w.arrives(wire.AppendPacket(w.buffer(), &from, &fin, nil)) }
	w.after(10500*time.Millisecond, func() {
		w.shard.SetLimits(l)
		w.Wake()
	})
	w.after(10501*time.Millisecond, func() {
		since = w.now
		if n := ledgers[0].discards[probe.DiscardReload]; n < 3 {
			t.Errorf("%d connections of a forbidden target are reset", n)
		}
	})
	w.after(12*time.Second, stray)
	w.after(17*time.Second, func() { w.add(asked) })
	for i := range 100 {
		w.after(20*time.Second+time.Duration(i)*time.Millisecond, stray)
	}
	w.after(30*time.Second, func() {
		since = 0
		w.shard.SetLimits(unlimited)
	})
	before := 0
	w.after(31*time.Second, func() { before = ledgers[1].verdicts[probe.OK] })
	w.run(40 * time.Second)
	if synced+later > 0 || resets < 3 {
		t.Errorf("%d SYNs, and %d segments %v after; %d RSTs before", synced, later, ruleGrace, resets)
	}
	if answer.discards[probe.DiscardReload] != 1 || answer.handed != 1 {
		t.Errorf("who asked was told %v, %d transcripts", answer.discards, answer.handed)
	}
	if n := ledgers[1].verdicts[probe.OK] - before; n < 8 {
		t.Errorf("%d probes in 9 s without rules", n)
	}
	if n := ledgers[3].verdicts[probe.OK]; n < 39 || sum(ledgers[3].discards[:]) > 0 {
		t.Errorf("the other address: %d probes in 40 s, discarded %v", n, ledgers[3].discards)
	}
}
