package engine

import (
	"math/bits"

	"github.com/probed/probed/probe"
)

// A wheel orders numbers by a moment, earliest first, at a cost that does not grow
// with how many there are: a hierarchical timing wheel (Varghese and Lauck, 1987)
// whose next bucket is sorted when its turn comes, so that the order is to the
// nanosecond all the same.
//
// Moments are counted in ticks of 2^tickBits ns. Level 0 has the ticks that differ
// from the next one to come in their last wheelBits only, level 1 those that differ
// in the wheelBits before, and so on up: so a number is moved down a level at a time,
// and lies in memory beside those that come next to it.
type wheel struct {
	near   heap[int32] // what lies before the tick next
	next   uint64      // the first tick that is not in near
	levels [wheelLevels]level
	n      int // numbers in all
	blocks
}

const (
	tickBits    = 17 // 131 µs
	wheelBits   = 8
	wheelSize   = 1 << wheelBits
	wheelLevels = (63 - tickBits + wheelBits - 1) / wheelBits
)

// A level is the buckets of one step of the clock: lists of blocks, and which of them
// are not empty.
type level struct {
	heads [wheelSize]int32
	full  [wheelSize / 64]uint64
}

// push adds a number.
func (w *wheel) push(at probe.Instant, v int32) {
	w.n++
	w.put(timed[int32]{at, v})
}

func (w *wheel) put(x timed[int32]) {
	tick := uint64(x.at) >> tickBits
	if tick < w.next {
		w.near.push(x.at, x.value)
		return
	}
	l := max(bits.Len64(tick^w.next)-1, 0) / wheelBits
	lv, i := &w.levels[l], tick>>(l*wheelBits)%wheelSize
	lv.full[i/64] |= 1 << (i % 64)
	w.add(&lv.heads[i], x)
}

// first returns the first bucket from i on that is not empty.
func (l *level) first(i int) (int, bool) {
	word := l.full[i/64] &^ (1<<(i%64) - 1)
	for i /= 64; ; word = l.full[i] {
		if word != 0 {
			return i*64 + bits.TrailingZeros64(word), true
		}
		if i++; i == len(l.full) {
			return 0, false
		}
	}
}

// take empties bucket i of level l, and puts what was in it where it belongs now.
func (w *wheel) take(l, i int) {
	lv := &w.levels[l]
	list := lv.heads[i]
	lv.heads[i] = 0
	lv.full[i/64] &^= 1 << (i % 64)
	for list != 0 {
		b := w.at(list)
		w.fetch(b.next)
		for k := range b.n {
			w.put(b.items[k])
		}
		list, b.next, w.free = b.next, w.free, list
	}
}

// load brings the next bucket into near, if there is one and it begins by end.
func (w *wheel) load(end probe.Instant) bool {
	for l := 0; l < wheelLevels; {
		shift := l * wheelBits
		i, ok := w.levels[l].first(int(w.next >> shift % wheelSize))
		if !ok {
			l++
			continue
		}
		tick := w.next>>shift&^(wheelSize-1)<<shift | uint64(i)<<shift
		if tick > uint64(max(end, 0))>>tickBits {
			return false
		}
		if l > 0 {
			w.next = tick
			w.take(l, i)
			l = 0
			continue
		}
		w.next = tick + 1
		w.fetch(w.levels[0].heads[(i+1)%wheelSize])
		w.take(0, i)
		// Where the tick's last digits have turned to 0, what is next of the levels
		// above comes down before anything is put beside it.
		for l, t := 1, w.next; l < wheelLevels && t%wheelSize == 0; l++ {
			t >>= wheelBits
			if i := int(t % wheelSize); w.levels[l].heads[i] != 0 {
				w.take(l, i)
			}
		}
		return true
	}
	return false
}

// first returns the earliest number, if its moment is not after end.
func (w *wheel) first(end probe.Instant) (timed[int32], bool) {
	for len(w.near) == 0 {
		if !w.load(end) {
			return timed[int32]{}, false
		}
	}
	return w.near[0], w.near[0].at <= end
}

// gather sees to it that n numbers of those that are not after end, or all, are in near.
func (w *wheel) gather(end probe.Instant, n int) {
	for len(w.near) < n && w.load(end) {
	}
}

// pop removes the number that first returned.
func (w *wheel) pop() {
	w.n--
	w.near.pop()
}

// each calls fn for every number, in no order.
func (w *wheel) each(fn func(at probe.Instant, v int32)) {
	for _, x := range w.near {
		fn(x.at, x.value)
	}
	for l := range w.levels {
		for _, b := range w.levels[l].heads {
			for ; b != 0; b = w.at(b).next {
				for _, x := range w.at(b).items[:w.at(b).n] {
					fn(x.at, x.value)
				}
			}
		}
	}
}

// filter keeps the numbers that keep says.
func (w *wheel) filter(keep func(v int32) bool) {
	kept := wheel{next: w.next}
	w.each(func(at probe.Instant, v int32) {
		if keep(v) {
			kept.push(at, v)
		}
	})
	*w = kept
}
