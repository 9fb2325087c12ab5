package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// total adds up all ledgers.
func (w *world) total() (t ledger) {
	for _, l := range w.ledgers {
		for i, n := range l.verdicts {
			t.verdicts[i] += n
		}
		for i, n := range l.discards {
			t.discards[i] += n
		}
		for i, n := range l.rejects {
			t.rejects[i] += n
		}
		t.rtts = append(t.rtts, l.rtts...)
		t.late, t.dups, t.reactions = t.late+l.late, t.dups+l.dups, t.reactions+l.reactions
	}
	return t
}

// The wall clock steps to and fro while answers are under way and while frames
// lie in the ring: no figure is ever off by more than the two ends of a
// duration can be, and every probe without a figure is discarded.
func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 19 * time.Millisecond, time.Second, time.Hour} {
		for _, rtt := range []time.Duration{100 * time.Microsecond, 20 * time.Millisecond} {
			t.Run(fmt.Sprint(step, " ", rtt), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				w.peer = listening(rtt)
				w.add(w.targets(200, func(t *Target) { t.Interval = 100 * time.Millisecond })...)
				steps := 0
				var next func()
				next = func() {
					if w.rng.IntN(2) == 0 {
						w.offset += int64(step)
					} else {
						w.offset -= int64(step)
					}
					steps++
					if w.rng.IntN(4) == 0 {
						w.stallFor(time.Duration(w.rng.IntN(40)) * time.Millisecond)
					}
					w.after(150*time.Millisecond+time.Duration(w.rng.IntN(100_000_000)), next)
				}
				w.after(500*time.Millisecond, next)
				w.run(15 * time.Second)
				all := w.total()
				for _, got := range all.rtts {
					if off := got - rtt; off < -20*time.Microsecond || off > 100*time.Microsecond {
						t.Fatalf("observed %v for %v", got, rtt)
					}
				}
				if got := len(w.steps); got != steps {
					t.Errorf("%d steps noticed of %d", got, steps)
				}
				if n := all.discards[probe.DiscardClockStep]; n < steps/10 || n != sum(all.discards[:]) {
					t.Errorf("%d steps, discarded %v", steps, all.discards)
				}
				if n := all.verdicts[probe.OK]; n != len(all.rtts) || n != sum(all.verdicts[:]) || n < w.queued/3 {
					t.Errorf("%d probes, verdicts %v", w.queued, all.verdicts)
				}
			})
		}
	}
}

// A step and its undoing between two looks at the clocks would not be noticed;
// slewing and readings that are not quite of one moment must not be.
func TestClockTolerance(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(20 * time.Millisecond)
	w.add(w.targets(100, nil)...)
	base := w.offset
	var wobble func()
	wobble = func() {
		w.offset = base + int64(w.rng.IntN(8000)) - 4000
		w.after(time.Millisecond, wobble)
	}
	wobble()
	w.run(20 * time.Second)
	all := w.total()
	if n := len(w.steps); n != 0 || sum(all.discards[:]) != 0 {
		t.Errorf("%d steps, discarded %v", n, all.discards)
	}
	for _, got := range all.rtts {
		if off := got - 20*time.Millisecond; off.Abs() > 50*time.Microsecond {
			t.Fatalf("observed %v", got)
		}
	}
}

// Answers that came in time but are read late are no timeouts: the loop stalls
// across the deadline of every probe.
func TestAnswersInTheRing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.peer = listening(850 * time.Millisecond)
	w.add(w.targets(2000, nil)...)
	for i := range 10 {
		w.after(time.Duration(i)*3*time.Second+400*time.Millisecond, func() { w.stallFor(990 * time.Millisecond) })
	}
	w.run(30 * time.Second)
	all := w.total()
	if n := all.verdicts[probe.OK]; n != w.queued {
		t.Errorf("%d answered of %d; %v", n, w.queued, all.verdicts)
	}
}

// Answers that came too late are timeouts, however they are read.
func TestAnswersTooLate(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(905 * time.Millisecond)
	w.add(w.targets(500, nil)...)
	for i := range 5 {
		w.after(time.Duration(i)*3*time.Second+400*time.Millisecond, func() { w.stallFor(990 * time.Millisecond) })
	}
	w.run(20 * time.Second)
	all := w.total()
	if n := all.verdicts[probe.Timeout]; n != w.queued || all.late < w.queued-30 { // the last may come after the end
		t.Errorf("%d timeouts and %d late answers of %d", n, all.late, w.queued)
	}
}

// flood keeps the ring fuller than one turn empties for d.
func (w *world) flood(d time.Duration) {
	end := w.now.Add(d)
	tuple := probe.FourTuple{Local: netip.MustParseAddrPort("203.0.113.1:443"), Remote: netip.AddrPortFrom(local4, 61001)}
	b := wire.AppendPacket(nil, &tuple, &probe.Segment{Flags: probe.ACK, TTL: 60}, nil)
	var pour func()
	pour = func() {
		if w.now >= end {
			return
		}
		for range 2 * batch * maxBatches {
			w.ring = append(w.ring, inRing{append(w.buffer(), b...), int64(w.now) + w.offset, false, 1})
		}
		w.after(5*time.Millisecond, pour)
	}
	pour()
}

// A flood that fills every turn delays verdicts and changes none.
func TestFlood(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(850 * time.Millisecond)
	w.add(w.targets(100, nil)...)
	backlog := 0
	w.frameCost = time.Microsecond // so that answers lie in the ring beyond their deadline
	w.after(3*time.Second, func() { w.flood(200 * time.Millisecond) })
	w.after(3200*time.Millisecond, func() { backlog = len(w.ring) - w.head })
	w.run(8 * time.Second)
	all := w.total()
	if n := all.verdicts[probe.OK]; n != w.queued {
		t.Errorf("%d answered of %d; %v, discarded %v", n, w.queued, all.verdicts, all.discards)
	}
	if backlog < batch*maxBatches {
		t.Errorf("a backlog of %d frames is no flood", backlog)
	}
	if n := sum(w.skips[:]); n != 0 {
		t.Errorf("skipped %v", w.skips)
	}
}

// When the tap drops a frame, every conversation without a verdict is
// discarded, and no other: those that have one keep it.
func TestTapDrops(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(500 * time.Millisecond)
	w.add(w.targets(1000, nil)...)
	unsure, settled, losing := 0, 0, false
	w.tapLoses = func(*wire.Packet, bool) bool {
		lose := losing
		losing = false
		return lose
	}
	drops := 0
	for i := range 10 {
		w.after(time.Duration(i)*2*time.Second+1300*time.Millisecond, func() {
			losing = true
			drops++
			unsure += w.shard.table.unsure
			settled += w.shard.table.open - w.shard.table.unsure
		})
	}
	w.run(25 * time.Second)
	all := w.total()
	n := all.discards[probe.DiscardTapDrop]
	if n != sum(all.discards[:]) || n < unsure*98/100 || n > unsure*102/100 || unsure < 4000 {
		t.Errorf("discarded %v, %d conversations had no verdict", all.discards, unsure)
	}
	if all.verdicts[probe.OK] != w.queued-n {
		t.Errorf("%d probes, verdicts %v", w.queued, all.verdicts)
	}
	if got := w.shard.Stats.TapDrops.Load(); got != uint64(drops) {
		t.Errorf("%d drops", got)
	}
}

// A ring that loses every third frame: nothing is ever called lost.
func TestTapDropsAreNotLoss(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(30 * time.Millisecond)
	w.tapLoses = func(*wire.Packet, bool) bool { return w.rng.IntN(3) == 0 }
	w.add(w.targets(300, nil)...)
	w.run(30 * time.Second)
	all := w.total()
	if n := sum(all.verdicts[:]); n != all.verdicts[probe.OK] {
		t.Errorf("verdicts %v", all.verdicts)
	}
	if all.discards[probe.DiscardTapDrop] < w.queued/2 {
		t.Errorf("%d probes, discarded %v", w.queued, all.discards)
	}
}

// What our host refuses to send is ours.
func TestSendErrors(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(30 * time.Millisecond)
	w.refuse = func(p *Packet) bool { return p.Dst.As4()[3] == 1 }
	a, la := w.target(1, "198.19.0.1:443", nil)
	b, lb := w.target(2, "198.19.0.2:443", nil)
	w.add(a, b)
	w.run(30 * time.Second)
	if la.discards[probe.DiscardSendError] != 30 || sum(la.verdicts[:]) != 0 {
		t.Errorf("verdicts %v, discarded %v", la.verdicts, la.discards)
	}
	if lb.verdicts[probe.OK] != 30 {
		t.Errorf("its neighbour: verdicts %v, discarded %v", lb.verdicts, lb.discards)
	}
	if !slices.Equal(w.troubles, []string{errRefused.Error()}) {
		t.Errorf("reported %q", w.troubles)
	}
}

// No source address: the probe is ours to answer for, and asked for again each
// time.
func TestSourceErrors(t *testing.T) {
	for _, source := range []netip.Addr{{}, netip.MustParseAddr("198.18.0.7")} {
		w := newWorld(t, nil)
		w.peer = listening(30 * time.Millisecond)
		broken := true
		w.source = func(netip.Addr, string) (netip.Addr, error) {
			if broken {
				return netip.Addr{}, errors.New("simulated: no route")
			}
			return local4, nil
		}
		target, l := w.target(1, "198.19.0.1:443", func(t *Target) { t.Source = source })
		w.add(target)
		w.after(10*time.Second, func() { broken = false })
		w.run(20 * time.Second)
		if l.discards[probe.DiscardSendError] != 10 || l.verdicts[probe.OK] != 10 {
			t.Errorf("source %v: verdicts %v, discarded %v", source, l.verdicts, l.discards)
		}
		if !slices.Equal(w.troubles, []string{"simulated: no route"}) {
			t.Errorf("reported %q", w.troubles)
		}
	}
}

// A source address of the other family can't be sent from.
func TestSourceOfTheOtherFamily(t *testing.T) {
	w := newWorld(t, nil)
	target, l := w.target(1, "[2001:db8:1::1]:443", func(t *Target) { t.Source = local4 })
	w.add(target)
	w.churn = true
	w.shard.read()
	for end := w.now.Add(10 * time.Second); w.now < end; {
		w.Wait(w.shard.turn(true), false)
	}
	if l.discards[probe.DiscardSendError] != 10 || w.queued != 0 {
		t.Errorf("discarded %v, %d SYNs", l.discards, w.queued)
	}
}

// The host is asked for a source address once per target, and once more when
// its routes have changed; the new one is used from then on.
func TestRouteChange(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(30 * time.Millisecond)
	src := local4
	w.source = func(dst netip.Addr, _ string) (netip.Addr, error) {
		if dst.Is6() {
			return local6, nil
		}
		return src, nil
	}
	from := make(map[netip.Addr]int)
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			from[p.Src]++
		}
	}
	w.add(w.targets(100, nil)...)
	w.after(10*time.Second, func() {
		if w.asked != 100 {
			t.Errorf("asked %d times for 100 targets", w.asked)
		}
		w.gen++
		src = netip.MustParseAddr("198.18.0.2")
	})
	w.run(20 * time.Second)
	if w.asked != 200 {
		t.Errorf("asked %d times for 100 targets and a change", w.asked)
	}
	if from[local4] != 900 || from[src] != 900 || from[local6] != 200 {
		t.Errorf("sent from %v", from)
	}
	if all := w.total(); all.verdicts[probe.OK] != 2000 {
		t.Errorf("verdicts %v, discarded %v", all.verdicts, all.discards)
	}
}

// A SYN announces what the way to its target has room for, whenever that changes, unless it is to announce
// what it does; and what was under way is excused.
func TestMSSFitsTheRoute(t *testing.T) {
	w := newWorld(t, nil)
	w.mtu = 1400
	w.peer = listening(time.Millisecond)
	announced := make(map[netip.Addr][]uint16)
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			if all, mss := announced[p.Dst], p.Segment.Options.MSS; len(all) == 0 || all[len(all)-1] != mss {
				announced[p.Dst] = append(all, mss)
			}
		}
	}
	fits := func(x *Target) { passiveClose(x); x.FitMSS, x.Params.Timeout = true, 900*time.Millisecond }
	v4, l4 := w.target(1, "198.19.0.1:443", fits)
	v6, _ := w.target(2, "[2001:db8:1::1]:443", func(x *Target) { fits(x); x.Params.IPv6 = true })
	fixed, lf := w.target(3, "198.19.0.2:443", func(x *Target) { fits(x); x.FitMSS = false })
	w.add(v4, v6, fixed)
	to := func(at time.Duration, mtu int) { w.after(at, func() { w.mtu, w.gen = mtu, w.gen+1 }) }
	to(5500*time.Millisecond, 9000)
	to(10500*time.Millisecond, 100)
	to(15500*time.Millisecond, 0)
	w.run(20 * time.Second)
	for to, want := range map[string][]uint16{"198.19.0.1": {1360, 1460, 256, 1460}, "2001:db8:1::1": {1340, 1460, 256, 1460}, "198.19.0.2": {1460}} {
		if got := announced[netip.MustParseAddr(to)]; !slices.Equal(got, want) {
			t.Errorf("%s: announced %v, want %v", to, got, want)
		}
	}
	// Those that were open as the way became narrow, and those for whose least segment it is too narrow.
	if n := l4.discards[probe.DiscardSendError]; n < 5 || n > 6 || sum(l4.verdicts[:]) < 13 || sum(lf.discards[:]) > 0 {
		t.Errorf("verdicts %v, discarded %v; with a fixed one %v", l4.verdicts, l4.discards, lf.discards)
	}
}
