package metrics

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/probed/probed/probe"
)

const (
	// flowMemory is how many of a flow's verdicts are remembered: the bits of its
	// history.
	flowMemory = 64
	// flowLeast is how many failures a flow must have before anything is said.
	flowLeast = 4
	// flowChance is how probable it may be at most that flows which are all alike
	// make a verdict by which one of them stands out. At 10 probes a second that is
	// once in three years.
	flowChance = 1e-9
)

// A Flow is what the last verdicts of one source port say, 64 at most.
type Flow struct {
	Port     uint16 // our end's
	Verdicts int
	Failed   int
	Failing  bool // its loss stands out from its siblings'
}

// A history is a flow's last verdicts.
type history struct {
	failed uint64 // a bit each, the last one lowest
	n      uint8  // how many there are
}

// book remembers a verdict, in place of the oldest one.
func (h *history) book(failed bool) {
	h.failed <<= 1
	if failed {
		h.failed |= 1
	}
	h.n = min(h.n+1, flowMemory)
}

// bookFlow books a verdict with its source port's flow. t.mu is held.
func (t *Target) bookFlow(o *probe.Observation) {
	if t.flows == nil {
		t.flows = make(map[uint16]history, min(t.usual.flows, 16))
	}
	h := t.flows[o.Port]
	h.book(o.Reason != probe.OK)
	t.flows[o.Port] = h
}

// Flows returns the target's flows by port; none where all ports serve one.
func (t *Target) Flows() []Flow {
	t.mu.Lock()
	flows := make([]Flow, 0, len(t.flows))
	for port, h := range t.flows {
		flows = append(flows, Flow{Port: port, Verdicts: int(h.n), Failed: bits.OnesCount64(h.failed)})
	}
	t.mu.Unlock()
	slices.SortFunc(flows, func(a, b Flow) int { return cmp.Compare(a.Port, b.Port) })
	judge(flows)
	return flows
}

// flowsFailing counts the flows whose loss stands out.
func (t *Target) flowsFailing() (n int) {
	for _, f := range t.Flows() {
		if f.Failing {
			n++
		}
	}
	return n
}

// judge says which flows fail. Two questions are asked of each, by Fisher's exact
// test, which holds however much all lose together: are so many of the target's
// failures on it by chance? And, because most of the flows may fail, would it and the
// best of them differ so by chance?
func judge(flows []Flow) {
	var all Flow
	var best *Flow
	for i := range flows {
		f := &flows[i]
		all.Verdicts += f.Verdicts
		all.Failed += f.Failed
		if best == nil || f.Failed*best.Verdicts < best.Failed*f.Verdicts {
			best = f
		}
	}
	for i := range flows {
		f := &flows[i]
		if f.Failed < flowLeast || f.Failed*all.Verdicts <= all.Failed*f.Verdicts && f.Failed*best.Verdicts <= best.Failed*f.Verdicts {
			continue
		}
		f.Failing = atLeast(f.Failed, f.Verdicts, all.Failed, all.Verdicts) < flowChance/2 ||
			atLeast(f.Failed, f.Verdicts, f.Failed+best.Failed, f.Verdicts+best.Verdicts) < flowChance/2/float64(len(flows))
	}
}

// atLeast returns the probability that at least k of n verdicts failed if the n were
// drawn from all, of which so many failed: a tail of the hypergeometric distribution.
func atLeast(k, n, failed, all int) float64 {
	total := choose(all, n)
	p := 0.0
	for ; k <= min(n, failed); k++ {
		if n-k <= all-failed {
			p += math.Exp(choose(failed, k) + choose(all-failed, n-k) - total)
		}
	}
	return p
}

// choose returns the logarithm of the binomial coefficient.
func choose(n, k int) float64 { return lnFactorial(n) - lnFactorial(k) - lnFactorial(n-k) }

func lnFactorial(n int) float64 {
	l, _ := math.Lgamma(float64(n) + 1)
	return l
}
