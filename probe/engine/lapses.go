package engine

import "github.com/probed/probed/probe"

// Lapses are the timers that nobody waits for: of a conversation that lingers, after
// which its four-tuple is free. They come a tick of 2^lapseBits ns late at most, in no
// order, so that one costs no more than to be written and to be read.
type lapses struct {
	heads [lapseTicks]int32 // lists of blocks, by tick
	next  uint64            // the first tick that was not given out
	n     int
	blocks
}

const (
	lapseBits  = 27 // 134 ms
	lapseTicks = 64 // 8.6 s: what is further away is given out too early, to be put back
)

// push adds a number.
func (l *lapses) push(now, at probe.Instant, v int32) {
	if l.n == 0 {
		l.next = uint64(now) >> lapseBits
	}
	tick := uint64(at) >> lapseBits
	tick = min(max(tick, l.next), l.next+lapseTicks-1)
	l.n++
	l.add(&l.heads[tick%lapseTicks], timed[int32]{at, v})
}

// group returns those that come next, if their tick is over, in the order in which pop
// removes them from the end.
func (l *lapses) group(now probe.Instant) []timed[int32] {
	for ; l.n > 0 && (l.next+1)<<lapseBits <= uint64(now); l.next++ {
		if head := l.heads[l.next%lapseTicks]; head != 0 {
			b := l.at(head)
			return b.items[:b.n]
		}
	}
	return nil
}

// pop removes the last of a group.
func (l *lapses) pop() timed[int32] {
	l.n--
	return l.remove(&l.heads[l.next%lapseTicks])
}
