package metrics

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

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

// A Flow is what the last verdicts of one source port say, 64 at most, and its round
// trip as TCP itself would smooth it: RFC 6298's SRTT, 0 before the first answer, and
// RTTVAR.
type Flow struct {
	Port         uint16 // our end's
	Verdicts     int
	Failed       int
	Failing      bool // its loss stands out from its siblings'
	SRTT, RTTVar time.Duration
}

// A history is a flow's last verdicts and round trips.
type history struct {
	failed       uint64  // a bit each, the last one lowest
	srtt, rttvar float32 // seconds
	n            uint8   // how many verdicts there are
}

// RFC 6298 §2.3: "alpha=1/8 and beta=1/4 (as suggested in [JK88])".
const alpha, beta = 1.0 / 8, 1.0 / 4

// smooth takes in a round trip. RFC 6298 §2.2: "When the first RTT measurement R is made,
// the host MUST set SRTT <- R, RTTVAR <- R/2"; §2.3: "When a subsequent RTT measurement
// R' is made, a host MUST set RTTVAR <- (1 - beta) * RTTVAR + beta * |SRTT - R'|,
// SRTT <- (1 - alpha) * SRTT + alpha * R'".
func (h *history) smooth(rtt time.Duration) {
	r := float32(rtt.Seconds())
	if h.srtt == 0 {
		h.srtt, h.rttvar = r, r/2
		return
	}
	h.rttvar = (1-beta)*h.rttvar + beta*max(h.srtt-r, r-h.srtt)
	h.srtt = (1-alpha)*h.srtt + alpha*r
}

// book remembers a verdict, in place of the oldest one.
func (h *history) book(failed bool) {
	h.failed <<= 1
	if failed {
		h.failed |= 1
	}
	h.n = min(h.n+1, flowMemory)
}

// bookFlow books a verdict or a round trip with its source port's flow, if the target has
// several. t.mu is held.
func (t *Target) bookFlow(o *probe.Observation) {
	if t.usual.flows < 2 || o.Port == 0 {
		return
	}
	if t.flows == nil {
		t.flows = make(map[uint16]history, min(t.usual.flows, 16))
	}
	h := t.flows[o.Port]
	if o.Kind == probe.HandshakeRTT {
		h.smooth(o.Duration)
	} else {
		h.book(o.Reason != probe.OK)
	}
	t.flows[o.Port] = h
}

// Flows returns the target's flows by port; none where all ports serve one.
func (t *Target) Flows() []Flow {
	t.mu.Lock()
	flows := make([]Flow, 0, len(t.flows))
	for port, h := range t.flows {
		flows = append(flows, Flow{
			Port: port, Verdicts: int(h.n), Failed: bits.OnesCount64(h.failed),
			SRTT: seconds(h.srtt), RTTVar: seconds(h.rttvar),
		})
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

func seconds(s float32) time.Duration { return time.Duration(float64(s) * 1e9) }

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
