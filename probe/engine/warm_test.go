package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
)

// A forward ledger also names its memory ahead, and remembers for which steps.
type forward struct {
	*ledger
	steps []int
}

func (f *forward) Ahead(step int, to []uintptr) []uintptr {
	f.steps = append(f.steps, step)
	return append(to, uintptr(unsafe.Pointer(f)), 0, ^uintptr(0)) // nobody's are no harm
}

func (f *forward) ObserveAll(o []probe.Observation) {
	for i := range o {
		f.Observe(&o[i])
	}
}

// Before a batch of answers is booked, each of their targets is asked for its memory, a
// step after the other, and what is booked is what would be without.
func TestMemoryIsAskedForAhead(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(10 * time.Millisecond)
	var all []*forward
	for i := range 8 {
		target, l := w.target(1, fmt.Sprintf("198.19.0.%d:443", i+1), nil) // one ID: one phase
		f := &forward{ledger: l}
		target.ID, target.Sink = 1, f
		w.add(target)
		all = append(all, f)
	}
	w.run(10500 * time.Millisecond)
	for i, f := range all {
		if f.verdicts[probe.OK] < 10 || sum(f.rejects[:]) != 0 {
			t.Errorf("target %d: verdicts %v, rejected %v", i, f.verdicts, f.rejects)
		}
		if len(f.steps) < 5*AheadSteps { // not of a frame that comes alone
			t.Errorf("target %d was asked %d times", i, len(f.steps))
		}
		for steps := range slices.Chunk(f.steps, AheadSteps) {
			if !slices.IsSorted(steps) || steps[len(steps)-1] != AheadSteps-1 {
				t.Errorf("target %d: steps %v", i, f.steps)
				break
			}
		}
	}
}

// While nobody waits for an answer of ours the ring is not read between the bursts of those that
// are due together; and it is where somebody does.
func TestAnswersWaitForEachOther(t *testing.T) {
	for _, c := range []struct {
		kind  func(*Target)
		waits bool
	}{{func(*Target) {}, true}, {activeClose, false}} {
		w := newWorld(t, nil)
		w.peer = listening(10 * time.Millisecond)
		for i := range 32 {
			x, _ := w.target(1, fmt.Sprintf("198.19.0.%d:443", i+1), c.kind) // one ID: one phase
			w.add(x)
		}
		var looks []probe.Instant
		w.after(time.Second, func() { w.onLook = func() { looks = append(looks, w.now) } })
		w.run(5 * time.Second)
		soon := 0
		for i := 1; i < len(looks); i++ {
			if d := looks[i].Sub(looks[i-1]); burstGap/2 < d && d < tick { // not another batch of one look
				soon++
			}
		}
		if c.waits != (soon == 0) {
			t.Errorf("of %d looks %d came within a tick of the one before", len(looks), soon)
		}
	}
}
