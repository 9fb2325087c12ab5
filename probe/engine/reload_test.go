package engine

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Ten thousand targets are replaced a hundred times, whole, while they are
// probed: not a slot is lost or used twice, every conversation ends, and
// nothing grows.
func TestReload(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(30 * time.Millisecond)
	const n = 10000
	now := w.targets(n, nil)
	for _, l := range w.ledgers {
		l.rtts = nil // the test's own memory is not to be measured
	}
	w.delays = make([]time.Duration, 0, 12*n)
	w.add(now...)
	count := make(map[netip.AddrPort]int, n)
	last := make(map[netip.AddrPort]probe.Instant, n)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		to := netip.AddrPortFrom(p.Dst, p.DstPort)
		if before, ok := last[to]; ok && (at.Sub(before)-time.Second).Abs() > 50*time.Millisecond {
			t.Fatalf("%v after %v", to, at.Sub(before))
		}
		count[to]++
		last[to] = at
	}
	schedule, heapBytes := 0, make([]uint64, 0, 2)
	for i := range 100 {
		w.after(time.Duration(i+1)*70*time.Millisecond, func() {
			next := make([]*Target, n)
			for k, old := range now {
				c := *old
				next[k] = &c
			}
			w.shard.Update(next, now)
			now = next
			schedule = max(schedule, w.shard.schedule.n)
			if i == 60 || i == 99 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				heapBytes = append(heapBytes, m.HeapAlloc)
			}
		})
	}
	w.run(10 * time.Second)
	if s := sum(w.skips[:]); s != 0 {
		t.Errorf("skipped %v", w.skips)
	}
	for _, x := range now {
		if c := count[x.Remote]; c < 9 || c > 11 { // one more goes early
			t.Fatalf("%v was probed %d times in 10 s", x.Remote, c)
		}
	}
	all := w.total()
	if all.verdicts[probe.OK] != w.queued {
		t.Errorf("%d probes, verdicts %v, discarded %v", w.queued, all.verdicts, all.discards)
	}
	if schedule > 3*n {
		t.Errorf("the schedule grew to %d entries", schedule)
	}
	if grown := int64(heapBytes[1]) - int64(heapBytes[0]); grown > 8<<20 {
		t.Errorf("the heap grew by %d octets in 40 reloads", grown)
	}
	if got := w.shard.Stats.Targets.Load(); got != n {
		t.Errorf("%d targets", got)
	}
}

// What is under way to a target that is removed comes to its end, and nothing
// more is sent to it.
func TestRemoval(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(600 * time.Millisecond)
	ts := w.targets(1000, nil)
	w.add(ts...)
	var sent int
	w.after(3*time.Second, func() { w.shard.Update(nil, ts) })
	w.after(3100*time.Millisecond, func() { sent = w.queued })
	w.run(10 * time.Second)
	all := w.total()
	if w.queued != sent || all.verdicts[probe.OK] != sent || sent < 2900 {
		t.Errorf("%d sent by the removal, %d at the end, verdicts %v", sent, w.queued, all.verdicts)
	}
	if w.shard.schedule.n != 0 || w.shard.Stats.Targets.Load() != 0 {
		t.Errorf("%d left in the schedule", w.shard.schedule.n)
	}
	w.shard.Update(nil, ts) // those that are not there, and twice the same
	again := ts[0]
	w.shard.Update([]*Target{again, again}, nil)
	w.obey()
	if len(w.shard.targets) != 1 || w.shard.schedule.n != 1 {
		t.Errorf("%d targets, %d entries", len(w.shard.targets), w.shard.schedule.n)
	}
}

// A target whose interval changes gets its new place; one that waits for a limit
// keeps its reason.
func TestReloadWithChanges(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerAddress = 2 })
	w.churn = true
	w.peer = listening(time.Millisecond)
	var ts []*Target
	for i := range 10 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 80+i), nil)
		ts = append(ts, x)
	}
	w.add(ts...)
	for i := range 200 {
		w.after(time.Duration(i)*100*time.Millisecond+50*time.Millisecond, func() {
			next := make([]*Target, len(ts))
			for k, old := range ts {
				c := *old
				if i%50 == 49 {
					c.Interval = 3*time.Second - c.Interval
				}
				next[k] = &c
			}
			w.shard.Update(next, ts)
			ts = next
		})
	}
	w.run(22 * time.Second)
	if w.skips[SkipLate] != 0 || w.skips[SkipRateLimit] < 80 {
		t.Errorf("skipped %v", w.skips)
	}
	waiting := 0
	for _, e := range w.shard.targets {
		if e.throttled {
			waiting++
		}
	}
	if got := w.shard.peers.byAddress[ts[0].Remote.Addr()].waiting; int(got) != waiting {
		t.Errorf("%d targets wait, %d by the address's count", waiting, got)
	}
}

// Run ends when every conversation has, and within Drain at the latest; what it
// leaves is discarded.
func TestDrain(t *testing.T) {
	for _, c := range []struct {
		drain, rtt, atLeast, atMost time.Duration
		cut                         bool
	}{
		{3 * time.Second, 100 * time.Millisecond, 50 * time.Millisecond, 110 * time.Millisecond, false},
		{3 * time.Second, time.Hour, 850 * time.Millisecond, 930 * time.Millisecond, false}, // all time out
		{300 * time.Millisecond, time.Hour, 299 * time.Millisecond, 305 * time.Millisecond, true},
		{0, 100 * time.Millisecond, 0, 5 * time.Millisecond, true},
	} {
		t.Run(fmt.Sprint(c.drain, c.rtt), func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.Drain = c.drain })
			w.peer = listening(c.rtt)
			w.add(w.targets(1000, nil)...)
			w.run(5 * time.Second)
			took := w.now.Sub(probe.Instant(12350 * time.Second))
			if took < c.atLeast || took > c.atMost {
				t.Errorf("took %v", took)
			}
			all := w.total()
			if cut := all.discards[probe.DiscardShutdown]; (cut > 0) != c.cut || cut != sum(all.discards[:]) {
				t.Errorf("discarded %v", all.discards)
			}
		})
	}
}

// Whatever got a SYN-ACK by the end has been reset, where the kernel does not
// do it too.
func TestDrainResets(t *testing.T) {
	for _, drain := range []time.Duration{0, 20 * time.Millisecond, time.Second} {
		w := newWorld(t, func(cfg *Config) { cfg.Drain = drain })
		w.noReset = true
		half := make(map[probe.FourTuple]bool)
		w.peer = listening(10 * time.Millisecond)
		w.onWire = func(_ probe.Instant, p *wire.Packet) {
			tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
			if p.Segment.Flags.Has(probe.RST) {
				delete(half, tuple)
			} else {
				half[tuple] = true
			}
		}
		w.add(w.targets(1000, nil)...)
		w.run(5 * time.Second)
		// Without time to drain, those whose SYN-ACK is still under way are the
		// kernel's.
		if n := len(half); drain == time.Second && n != 0 || n > 40 {
			t.Errorf("drain %v: %d peers left half open", drain, n)
		}
	}
}

// Late answers open conversations again; the count of open ones stays right.
func TestLateAnswersAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(1200 * time.Millisecond)
	w.add(w.targets(100, nil)...)
	var check func()
	check = func() {
		open := 0
		for i := range w.shard.table.len() {
			if sl := w.shard.table.slot(i); sl.target != free && w.shard.table.isOpen(sl) {
				open++
			}
		}
		if w.shard.table.open != open || w.shard.Stats.Conversations.Load() != int64(open) {
			t.Fatalf("open %d, counted %d", open, w.shard.table.open)
		}
		w.after(10*time.Millisecond, check)
	}
	check()
	w.run(10 * time.Second)
}

// While the loop runs, others update, set limits and read the totals.
func TestConcurrentUse(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(time.Millisecond)
	first := w.targets(500, nil)
	w.add(first...)
	ctx, cancel := context.WithCancel(context.Background())
	var others, loop sync.WaitGroup
	loop.Go(func() { w.shard.Run(ctx) })
	for i := range 4 {
		mine := first[i*100 : (i+1)*100]
		others.Go(func() {
			for k := range 200 {
				next := make([]*Target, len(mine))
				for j, old := range mine {
					c := *old
					next[j] = &c
				}
				w.shard.Update(next, mine)
				mine = next
				w.shard.SetLimits(Limits{Global: 100 + k, PerAddress: 1000})
				st := &w.shard.Stats
				if st.Conversations.Load() < 0 || st.Targets.Load() > 500 {
					t.Error("totals that can't be")
				}
				_ = st.SegmentsSent.Load() + st.SegmentsReceived.Load() + st.TapDrops.Load()
				runtime.Gosched()
			}
		})
	}
	others.Wait()
	cancel()
	loop.Wait()
	w.audit()
	if n := w.shard.Stats.Targets.Load(); n != 500 {
		t.Errorf("%d targets", n)
	}
}

// A peer that is left twice in one turn is forgotten once: the address, with its limit,
// is there as long as another peer has it.
func TestLeftTwice(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(10 * time.Millisecond)
	one, _ := w.target(1, "198.18.0.1:443", func(t *Target) { t.Interval = 30 * time.Second })
	two, _ := w.target(2, "198.18.0.1:81", func(t *Target) { t.Interval = 30 * time.Second })
	w.add(one, two)
	w.turns(time.Second)
	again := *one
	again.Interval = 20 * time.Second
	w.shard.Update([]*Target{&again}, []*Target{one})
	w.shard.Update(nil, []*Target{&again})
	w.turns(tupleMemory + 60*time.Second)
	p := w.shard.peers.byRemote[two.Remote]
	if p == nil || p.users != 1 || p.address.users != 1 || w.shard.peers.byAddress[two.Remote.Addr()] != p.address {
		t.Errorf("%+v, of %d addresses", p, len(w.shard.peers.byAddress))
	}
}
