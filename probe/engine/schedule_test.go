package engine

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Probes go when they are due, answered or not: the timeout is five intervals
// long and nobody ever answers.
func TestOpenLoop(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Drain = 8 * time.Second })
	ts := w.targets(50, func(t *Target) { t.Params.Timeout = 5 * time.Second })
	w.add(ts...)
	w.run(20 * time.Second)
	for i, l := range w.ledgers {
		if n := l.verdicts[probe.Timeout]; n != 20 || l.settled() != n {
			t.Errorf("target %d: %d timeouts of %d probes in 20 s", i, n, l.settled())
		}
	}
	w.delaysBelow(time.Millisecond)
}

func (w *world) delaysBelow(d time.Duration) {
	w.tb.Helper()
	for _, got := range w.delays {
		if got >= d {
			w.tb.Fatalf("a probe went %v late", got)
		}
	}
}

// A day at 1 s intervals: the last probe is as punctual as the first.
func TestNoDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	target, l := w.target(42, "198.19.0.1:443", nil)
	phase := probe.Instant(-1)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		if phase < 0 {
			phase = firstSlot(target.ID, target.Interval, at) % 1e9
		}
		if late := at%1e9 - phase; late < 0 || late > probe.Instant(time.Millisecond) {
			t.Fatalf("after %d probes one goes %v late", w.syns, time.Duration(late))
		}
	}
	w.add(target)
	w.run(24 * time.Hour)
	if n := l.verdicts[probe.OK]; n != 86400 {
		t.Errorf("%d probes in a day", n)
	}
}

// The phases of many targets fill an interval evenly: χ² of 100 bins with 99
// degrees of freedom is below 170 but once in 100,000 times.
func TestPhases(t *testing.T) {
	ids := map[string]func(i int) uint64{
		"counted": func(i int) uint64 { return uint64(i) },
		"spaced":  func(i int) uint64 { return uint64(i) << 32 },
		"random":  func(i int) uint64 { return rand.New(rand.NewPCG(uint64(i), 7)).Uint64() },
	}
	for name, id := range ids {
		for _, interval := range []time.Duration{10 * time.Millisecond, time.Second, 7 * time.Minute} {
			const n, bins = 10000, 100
			var count [bins]float64
			now := probe.Instant(987654321987)
			for i := range n {
				slot := firstSlot(id(i), interval, now)
				if slot < now || slot >= now.Add(interval) {
					t.Fatalf("the first slot is %v away at interval %v", slot.Sub(now), interval)
				}
				count[int64(slot.Sub(now))*bins/int64(interval)]++
			}
			chi := 0.0
			for _, c := range count {
				chi += (c - n/bins) * (c - n/bins) / (n / bins)
			}
			if chi > 170 {
				t.Errorf("%s IDs, interval %v: χ² = %.0f", name, interval, chi)
			}
		}
	}
}

// A target that is added again, or by a probed that was started again, keeps
// its phase.
func TestPhaseOutlivesRestart(t *testing.T) {
	a := firstSlot(99, time.Second, 5_123_456_789)
	b := firstSlot(99, time.Second, 9_876_543_210)
	if a%1e9 != b%1e9 {
		t.Errorf("phases %d and %d", a%1e9, b%1e9)
	}
}

func TestJitter(t *testing.T) {
	for _, bound := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, time.Second} {
		w := newWorld(t, nil)
		w.peer = listening(time.Millisecond)
		var offsets []time.Duration
		phase := make(map[netip.AddrPort]probe.Instant)
		ts := w.targets(20, func(t *Target) { t.Jitter = bound })
		for _, x := range ts {
			phase[x.Remote] = firstSlot(x.ID, x.Interval, w.now)
		}
		w.onWire = func(at probe.Instant, p *wire.Packet) {
			if p.Segment.Flags == probe.SYN {
				o := at.Sub(phase[netip.AddrPortFrom(p.Dst, p.DstPort)]) % time.Second
				if bound == 0 && o > time.Second-2*maxStretch-early { // another took it along
					o = 0
				}
				offsets = append(offsets, o)
			}
		}
		w.add(ts...)
		w.run(200 * time.Second)
		w.delaysBelow(time.Millisecond)
		if n := sum(w.skips[:]); n != 0 {
			t.Errorf("jitter %v: %d slots skipped by an idle loop", bound, n)
		}
		var mean time.Duration
		for _, o := range offsets {
			if bound < time.Second && o > bound+time.Millisecond {
				t.Fatalf("jitter %v: a probe goes %v after its slot", bound, o)
			}
			mean += o / time.Duration(len(offsets))
		}
		if off := mean - bound/2; off.Abs() > bound/50+time.Millisecond {
			t.Errorf("jitter %v: on average %v", bound, mean)
		}
	}
}

// Waits end up to 2 ms early: a probe that goes when it is due goes then all the same.
func TestWaitsThatEndEarly(t *testing.T) {
	for _, n := range []int{1, 20} {
		w := newWorld(t, nil)
		w.inexact = true
		w.peer = listening(10 * time.Millisecond)
		w.add(w.targets(n, func(x *Target) { x.Jitter = time.Duration(n-1) * 25 * time.Millisecond })...)
		w.run(60 * time.Second)
		late := 0
		for _, d := range w.delays {
			if d > 200*time.Microsecond {
				late++
			}
		}
		if late > len(w.delays)/20 {
			t.Errorf("%d targets: %d of %d probes go late", n, late, len(w.delays))
		}
	}
}

// A probe that is due takes along those of its stretch of time: few wake-ups, none late, none
// more than a stretch early, and each at the same moment of every second.
func TestCompany(t *testing.T) {
	for n, stretch := range map[int]time.Duration{100: 2 * maxStretch, 1000: maxStretch} {
		w := newWorld(t, nil)
		w.peer = listening(time.Millisecond)
		ts := w.targets(n, nil)
		began := w.now
		slots, last := make(map[netip.AddrPort]probe.Instant), make(map[netip.AddrPort]probe.Instant)
		for _, x := range ts {
			slots[x.Remote] = firstSlot(x.ID, x.Interval, w.now)
		}
		var bursts [][]netip.AddrPort // that no millisecond parts
		var before probe.Instant
		w.onWire = func(at probe.Instant, p *wire.Packet) {
			if p.Segment.Flags != probe.SYN {
				return
			}
			to := netip.AddrPortFrom(p.Dst, p.DstPort)
			if ahead := slots[to].Sub(at); ahead > stretch+early || ahead < -time.Millisecond {
				t.Fatalf("%d targets: %v goes %v before it is due", n, to, ahead)
			}
			// The first stretch had begun already.
			if gap := at.Sub(last[to]); last[to] > began.Add(time.Second) && (gap-time.Second).Abs() > 2*time.Millisecond {
				t.Errorf("%d targets: %v goes %v after its last probe", n, to, gap)
			}
			if at.Sub(before) >= time.Millisecond || len(bursts) == 0 {
				bursts = append(bursts, nil)
			}
			b := &bursts[len(bursts)-1]
			*b = append(*b, to)
			slots[to], last[to], before = slots[to].Add(time.Second), at, at
		}
		w.add(ts...)
		w.run(20 * time.Second)
		w.delaysBelow(time.Millisecond)
		if len(bursts) > 20*21 && n == 100 || len(bursts) > 20*50 {
			t.Errorf("%d targets: %d bursts in 20 s", n, len(bursts))
		}
		if n == 100 && w.waits > 20*35 { // twenty a second more if it also woke to read the answers
			t.Errorf("awake %d times in 20 s, %d bursts", w.waits, len(bursts))
		}
		for _, b := range bursts {
			if len(b) > 4+maxCompany { // some may fall due meanwhile
				t.Errorf("%d targets: %d go together", n, len(b))
			}
		}
	}
}

// After a stall each target goes on with the slot it is in; those before are
// skipped, once each.
func TestStall(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(5 * time.Millisecond)
	w.add(w.targets(1000, nil)...)
	w.after(2*time.Second, func() { w.stallFor(3500 * time.Millisecond) })
	w.run(10 * time.Second)
	// 3.5 slots per target fall into the stall, the last of which is still to be used.
	if late := w.skips[SkipLate]; late < 2400 || late > 2600 || sum(w.skips[:]) != late {
		t.Errorf("skipped %v", w.skips)
	}
	if got := w.queued + sum(w.skips[:]); got < 9990 || got > 10010 {
		t.Errorf("%d slots in 10 s", got)
	}
	var most time.Duration
	for _, d := range w.delays {
		most = max(most, d)
	}
	if most < 900*time.Millisecond || most > 1100*time.Millisecond {
		t.Errorf("the most delayed probe went %v late", most)
	}
}

// A short stall skips nothing and the next round is punctual again.
func TestHiccup(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(5 * time.Millisecond)
	w.add(w.targets(1000, nil)...)
	w.after(2*time.Second, func() { w.stallFor(200 * time.Millisecond) })
	before := 0
	w.after(4*time.Second, func() { before = len(w.delays) })
	w.run(9 * time.Second)
	if n := sum(w.skips[:]); n != 0 {
		t.Errorf("%d skipped", n)
	}
	w.delays = w.delays[before:]
	w.delaysBelow(time.Millisecond)
}

// A burst is small and has a pause after it.
func TestBursts(t *testing.T) {
	w := newWorld(t, nil)
	var last probe.Instant
	run := 0
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		if at.Sub(last) > burstGap {
			run = 0
		}
		if run++; run > burst {
			t.Fatalf("%d SYNs in one burst", run)
		}
		last = at
	}
	w.add(w.targets(1000, nil)...)
	w.after(500*time.Millisecond, func() { w.stallFor(400 * time.Millisecond) })
	w.run(3 * time.Second)
}

// A loop of which more is asked than its bursts can do with their pauses gives them up,
// and misses no slot from then on; when less is asked it goes back to them.
func TestPaceUnderLoad(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Observer = nobody{} })
	w.peer = listening(100 * time.Microsecond)
	w.churn = true
	skips := 0
	w.shard.cfg.Observer = counting{&skips}
	hard := w.targets(3800, func(x *Target) { x.Interval, x.Sink = 20*time.Millisecond, nobody{} })
	easy := w.targets(100, func(x *Target) { x.Sink = nobody{} })
	w.add(append(hard, easy...)...)
	w.turns(500 * time.Millisecond)
	if w.shard.pace.level == 0 {
		t.Errorf("190,000 probes a second are asked, and it takes its time")
	}
	before, sent := skips, w.queued
	w.turns(time.Second)
	if n := w.queued - sent; skips != before || n < 186_000 {
		t.Errorf("%d of 190,000 probes sent, %d skipped", n, skips-before)
	}
	w.shard.Update(nil, hard)
	w.turns(time.Duration(len(paces)+1) * paceKeeps)
	if w.shard.pace.level != 0 {
		t.Errorf("level %d with 100 probes a second", w.shard.pace.level)
	}
}

// A counting observer counts what is skipped.
type counting struct{ skips *int }

func (c counting) ScheduleDelay(time.Duration) {}
func (c counting) Skipped(_ SkipReason, n int) { *c.skips += n }
func (c counting) Trouble(*Target, error)      {}
func (c counting) ClockStep(time.Duration)     {}

func TestNotResolved(t *testing.T) {
	w := newWorld(t, nil)
	target, l := w.target(7, "", nil)
	w.add(target)
	w.run(30 * time.Second)
	if n := l.verdicts[probe.NotResolved]; n != 30 || w.queued != 0 {
		t.Errorf("%d failures in 30 s, %d SYNs", n, w.queued)
	}
}

func TestHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var h heap[int]
	n := 0
	for range 20000 {
		if r.IntN(3) > 0 {
			h.push(probe.Instant(r.IntN(1000)), 0)
			n++
		} else if n > 0 {
			top := h.pop()
			n--
			for _, x := range h {
				if x.at < top.at {
					t.Fatal("not the earliest")
				}
			}
		}
		if len(h) != n {
			t.Fatalf("%d values, want %d", len(h), n)
		}
	}
}
