package engine

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/probed/probed/probe"
)

// A long list is carried out in pieces, between which probes go. Whoever is changed
// is always in the schedule, and nobody misses a slot.
func TestPieces(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(10 * time.Millisecond)
	const n = 1500
	ts := w.targets(n, nil)
	w.add(ts...)
	w.turns(3 * time.Second)
	changed := make([]*Target, n)
	for i, old := range ts {
		c := *old
		c.TTL = 9
		changed[i] = &c
	}
	sent := w.queued
	w.shard.Update(changed, ts)
	w.shard.SetLimits(Limits{Global: 1 << 29, PerAddress: 1 << 29})
	rounds := 0
	for before := slices.Clone(ts); rounds == 0 || len(w.shard.orders) > 0; rounds++ {
		w.Wait(w.shard.turn(true), false)
		if w.shard.limits.Global != 1<<29 {
			t.Fatalf("limits wait for %d targets", n)
		}
		if len(w.shard.targets) != n {
			t.Fatalf("%d targets in the schedule", len(w.shard.targets))
		}
		there := 0
		for _, old := range before {
			if w.shard.targets[old] != nil {
				there++
			}
		}
		if gone := n - there; gone > (rounds+1)*apiece {
			t.Fatalf("%d targets changed in %d turns", gone, rounds+1)
		}
	}
	if rounds < n/apiece {
		t.Errorf("all at once: %d turns", rounds)
	}
	w.turns(5 * time.Second)
	if all := w.total(); w.skips != [NumSkipReasons]int{} || sum(all.discards[:]) > 0 {
		t.Errorf("skipped %v, discarded %v", w.skips, all.discards)
	}
	if probes := (w.queued - sent) / n; probes != 5 {
		t.Errorf("%d probes a target in 5 s", probes)
	}
	for _, target := range w.ledgers {
		if target.rejects != [probe.NumRejectReasons]int{} {
			t.Errorf("rejected %v", target.rejects)
		}
	}
}

// Of a target that is removed nothing is kept once its conversations are over,
// however far ahead it was in the schedule, but what strays of its peer need; and
// after two minutes not that either.
func TestNothingIsKept(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(10 * time.Millisecond)
	stay := w.targets(50, nil)
	w.add(stay...)
	w.turns(time.Second)
	type big struct {
		nobody
		_ [10000]byte
	}
	var kept []weak.Pointer[big]
	const rounds, come = 6, 300
	for round := range rounds {
		ts := make([]*Target, come)
		for i := range ts {
			b := new(big)
			kept = append(kept, weak.Make(b))
			ts[i], _ = w.target(uint64(10_000+round*come+i), fmt.Sprintf("198.19.%d.%d:80", 2*round+i>>8, i&0xff), nil)
			ts[i].Interval = time.Hour
			ts[i].Sink, ts[i].Recorder = b, b
			if i%2 == 0 {
				ts[i].Interval = time.Second
			}
		}
		w.ledgers = w.ledgers[:len(stay)]
		w.shard.Update(ts, nil)
		w.turns(2 * time.Second)
		w.shard.Update(nil, ts)
		w.turns(2 * time.Second)
	}
	w.turns(5 * time.Second)
	runtime.GC()
	left := 0
	for _, p := range kept {
		if p.Value() != nil {
			left++
		}
	}
	// The last ones may lie in the schedule until they are many.
	if left > come {
		t.Errorf("%d of %d targets that are gone are kept", left, len(kept))
	}
	if n := len(w.shard.peers.byRemote); n < len(stay)+come {
		t.Errorf("%d peers are remembered", n)
	}
	w.turns(tupleMemory + 5*time.Second)
	if r, a := len(w.shard.peers.byRemote), len(w.shard.peers.byAddress); r != len(stay) || a != len(stay) {
		t.Errorf("%d peers and %d addresses are remembered of %d", r, a, len(stay))
	}
	w.shard.Update(nil, stay)
	w.turns(tupleMemory + 60*time.Second)
	if r, a := len(w.shard.peers.byRemote), len(w.shard.peers.byAddress); r+a > 0 || w.shard.peers.departed != nil || w.shard.peers.vacant != nil || w.shard.orders != nil {
		t.Errorf("%d peers and %d addresses of nobody", r, a)
	}
}

// BenchmarkUpdate is the loop's time for each target of a long list: that all are
// others, and that all have another interval.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		for name, first := range map[string]int{"others": n, "changed": 0} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				w := newWorld(b, func(c *Config) { c.Observer = nobody{} })
				w.peer = silent
				lists := [2][]*Target{w.some(0, n), w.some(first, n)}
				w.add(lists[0]...)
				w.obey()
				b.ResetTimer()
				done := 0
				for i := 0; done < b.N; i++ {
					b.StopTimer()
					w.shard.Update(lists[(i+1)%2], lists[i%2])
					b.StartTimer()
					w.obey()
					done += n
				}
			})
		}
	}
}

// some makes n targets, from the first of a list on.
func (w *world) some(first, n int) []*Target {
	ts := make([]*Target, n)
	for i := range ts {
		k := first + i
		ts[i], _ = w.target(uint64(k), fmt.Sprintf("198.%d.%d.%d:80", 18+k>>16, k>>8&0xff, k&0xff), nil)
		ts[i].Sink = nobody{}
	}
	return ts
}
