package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// The wheel against the heap: whatever is pushed and whenever it is looked at, both
// have the same moments come first, each number once.
func TestWheel(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var w wheel
		var h heap[int32]
		now := probe.Instant(rng.Int64N(int64(400 * 24 * time.Hour)))
		due := make(map[int32]probe.Instant)
		number := int32(0)
		push := func() {
			at := now
			switch rng.IntN(6) {
			case 0:
				at = now.Add(time.Duration(rng.Int64N(int64(time.Millisecond)))) - probe.Instant(50*time.Microsecond)
			case 1, 2:
				at = now.Add(time.Duration(rng.Int64N(int64(time.Second))))
			case 3:
				at = now.Add(time.Duration(rng.Int64N(int64(time.Minute))))
			case 4:
				at = now.Add(time.Duration(rng.Int64N(int64(100 * time.Hour))))
			case 5:
				at = (now>>tickBits + probe.Instant(rng.IntN(600))) << tickBits // the first ns of a tick
			}
			at = max(at, 0)
			number++
			due[number] = at
			w.push(at, number)
			h.push(at, number)
		}
		check := func(end probe.Instant) bool {
			got, ok := w.first(end)
			if want := h.due(end); ok != want {
				t.Fatalf("seed %d: first by %d: %v, not %v; earliest %d", seed, end, ok, want, h[0].at)
			}
			if ok && (got.at != h[0].at || due[got.value] != got.at) {
				t.Fatalf("seed %d: first is %d at %d, not %d", seed, got.value, got.at, h[0].at)
			}
			return ok
		}
		for round := range 20000 {
			for range rng.IntN(3) {
				push()
			}
			for rng.IntN(4) > 0 && check(now) {
				got, _ := w.first(now)
				delete(due, got.value)
				w.pop()
				h.pop()
			}
			check(now.Add(time.Duration(rng.Int64N(int64(2 * time.Second)))))
			if w.n != len(h) {
				t.Fatalf("seed %d: %d numbers, not %d", seed, w.n, len(h))
			}
			switch {
			case round%997 == 0:
				now = now.Add(time.Duration(rng.Int64N(int64(10 * time.Minute))))
			case round%5003 == 0 && w.n > 0:
				w.filter(func(v int32) bool { return v%3 != 0 })
				h.filter(func(v int32) bool { return v%3 != 0 })
			default:
				now = now.Add(time.Duration(rng.Int64N(int64(3 * time.Millisecond))))
			}
		}
	}
}

// A wheel that is pushed to as often as it is popped has all the memory that it needs.
func TestWheelAllocatesNothing(t *testing.T) {
	var w wheel
	now := probe.Instant(0)
	for i := range int32(1000) {
		w.push(now.Add(time.Duration(i)*time.Millisecond), i)
	}
	turn := func() {
		for end := now.Add(20 * time.Second); now < end; now = now.Add(time.Millisecond) {
			for {
				x, ok := w.first(now)
				if !ok {
					break
				}
				w.pop()
				w.push(x.at.Add(time.Second), x.value)
			}
		}
	}
	turn()
	if n := testing.AllocsPerRun(3, turn); n > 1 {
		t.Errorf("%v allocations in 20,000 turns", n)
	}
}
