package metrics

import (
	"flag"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// paths is a target whose probes take turns over flows, each with its own loss.
type paths struct {
	*Target
	loss []float64
	rng  *rand.Rand
	turn int
}

func newPaths(t testing.TB, flows int, loss float64, seed uint64) *paths {
	t.Helper()
	target, err := New(Options{}).AddTarget(Labels{Target: "a:1"}, TargetOptions{Flows: flows})
	if err != nil {
		t.Fatal(err)
	}
	p := &paths{Target: target, loss: make([]float64, flows), rng: rand.New(rand.NewPCG(seed, 0))}
	for i := range p.loss {
		p.loss[i] = loss
	}
	return p
}

// probe makes one probe, and reports whether it was lost.
func (p *paths) probe() bool {
	flow := p.turn % len(p.loss)
	p.turn++
	o := probe.Observation{Kind: probe.Verdict, Port: uint16(61000 + flow)}
	if p.rng.Float64() < p.loss[flow] {
		o.Reason = probe.Timeout
	}
	p.Observe(&o)
	return o.Reason != probe.OK
}

// rate is what the times below are at: probes a second to the target.
const rate = 10

// hours is how long the simulations go on: `go test ./metrics -run Flows -v -hours 100`
// is what docs/design.md tells of.
var hours = flag.Int("hours", 1, "simulated hours without a bad path")

// Without a bad path there is no alarm: hours of loss that all flows share, whether
// it is even or comes in bursts. Only a failure can make one.
func TestFlowsWithoutABadPath(t *testing.T) {
	for _, tt := range []struct {
		what        string
		flows       int
		loss, burst float64 // burst: what part of the time nothing comes through
	}{
		{"no loss", 16, 0, 0}, {"1 %", 16, 0.01, 0}, {"10 %", 16, 0.1, 0}, {"half", 16, 0.5, 0},
		{"two flows", 2, 0.01, 0}, {"64 flows", 64, 0.01, 0},
		{"bursts", 16, 0.01, 0.05}, {"nothing comes", 16, 1, 0},
	} {
		p := newPaths(t, tt.flows, tt.loss, 7)
		alarms, verdicts, bad := 0, 0, 0
		for range *hours * 3600 * rate / 20 {
			for i := range p.loss {
				p.loss[i] = tt.loss
			}
			if p.rng.Float64() < tt.burst { // two seconds
				for i := range p.loss {
					p.loss[i] = 1
				}
			}
			for range 20 {
				verdicts++
				if p.probe() {
					bad++
					if bad%max(1, int(50*tt.loss)) == 0 && p.flowsFailing() > 0 {
						alarms++
					}
				}
			}
		}
		t.Logf("%s: %d alarms in %d hours, %d verdicts of %d flows, %d failed", tt.what, alarms, *hours, verdicts, tt.flows, bad)
		if alarms > 0 {
			t.Errorf("%s: %d alarms", tt.what, alarms)
		}
	}
}

// What comes once a second, a rate limiter's say, is no path's at 10 probes a second
// over 16 flows: it meets eight of them, in turn. Over 10 it always meets the same one,
// which docs/alerts.md warns of.
func TestFlowsPeriodicLoss(t *testing.T) {
	for _, tt := range []struct{ flows, lost, want int }{{16, 1, 0}, {16, 5, 0}, {10, 1, 1}} { // lost of each ten probes
		p, alarms := newPaths(t, tt.flows, 0, 3), 0
		for i := range 3600 * rate {
			for k := range p.loss {
				p.loss[k] = 0.01
				if i%rate < tt.lost {
					p.loss[k] = 1
				}
			}
			if p.probe() && i%7 == 0 && p.flowsFailing() > 0 {
				alarms++
			}
		}
		if failing := p.flowsFailing(); failing != tt.want || tt.want == 0 && alarms > 0 {
			t.Errorf("%d of each ten probes are lost: %d of %d flows fail, %d alarms", tt.lost, failing, tt.flows, alarms)
		}
	}
}

// The test's p-values are probabilities: flows that are all alike cross a bound no
// more often than it says, for bounds that can be counted.
func TestFlowsChance(t *testing.T) {
	const n, flows, loss = 64, 16, 0.05
	rounds := 10_000 * *hours
	bounds := []float64{1e-2, 1e-3, 1e-4}
	below := make([]int, len(bounds))
	rng := rand.New(rand.NewPCG(11, 0))
	for range rounds {
		failed, all := 0, 0
		for flow := range flows {
			k := 0
			for range n {
				if rng.Float64() < loss {
					k++
				}
			}
			if all += k; flow == 0 {
				failed = k
			}
		}
		p := atLeast(failed, n, all, n*flows)
		for i, bound := range bounds {
			if p < bound {
				below[i]++
			}
		}
	}
	for i, bound := range bounds {
		got := float64(below[i]) / float64(rounds)
		t.Logf("p < %g: %g of the time", bound, got)
		if got > bound+4*math.Sqrt(bound/float64(rounds)) {
			t.Errorf("p < %g happens %g of the time", bound, got)
		}
	}
}

// The bad path of 16 is found within 30 s at 10 probes a second, under loss that all
// share, and no other is; once it is well again, that is seen before its memory has
// gone round.
func TestFlowsFindABadPath(t *testing.T) {
	for _, tt := range []struct {
		what              string
		background, there float64
		bad               int
		within            time.Duration // 0: only shown
	}{
		{"one dead, no loss else", 0, 1, 1, 30 * time.Second},
		{"one dead, 1 % loss", 0.01, 1, 1, 30 * time.Second},
		{"one dead, 5 % loss", 0.05, 1, 1, 0},
		{"one of half loss, 1 % loss", 0.01, 0.5, 1, 0},
		{"one of a fifth, 1 % loss", 0.01, 0.2, 1, 0},
		{"half of them dead, 1 % loss", 0.01, 1, 8, 60 * time.Second},
		{"all but one dead, 1 % loss", 0.01, 1, 15, 90 * time.Second},
	} {
		var longest, healing time.Duration
		for seed := range uint64(max(3, *hours/2)) {
			p := newPaths(t, 16, tt.background, seed)
			for range 120 * rate {
				p.probe()
			}
			for i := range tt.bad {
				p.loss[i] = tt.there
			}
			n := 0
			for ; p.flowsFailing() < tt.bad && n < 3600*rate; n++ {
				p.probe()
			}
			longest = max(longest, time.Duration(n)*time.Second/rate)
			for i, f := range p.Flows() {
				if f.Failing != (i < tt.bad) {
					t.Errorf("%s: flow %d failing is %v, with %d of %d", tt.what, i, f.Failing, f.Failed, f.Verdicts)
				}
			}
			for i := range tt.bad {
				p.loss[i] = tt.background
			}
			for n = 0; p.flowsFailing() > 0 && n < 3600*rate; n++ {
				p.probe()
			}
			healing = max(healing, time.Duration(n)*time.Second/rate)
		}
		t.Logf("%s: found within %v, and forgotten within %v, of %d times", tt.what, longest, healing, max(3, *hours/2))
		if tt.within > 0 && longest > tt.within {
			t.Errorf("%s: found after %v, want %v", tt.what, longest, tt.within)
		}
		if round := time.Duration(flowMemory*16) * time.Second / rate; healing > round {
			t.Errorf("%s: forgotten after %v, later than %v", tt.what, healing, round)
		}
	}
}

// Each flow has a round trip of its own, as RFC 6298 smooths it.
func TestFlowsRTT(t *testing.T) {
	p := newPaths(t, 2, 0, 1)
	srtt, rttvar := [2]float64{}, [2]float64{}
	for i := range 200 {
		flow := i % 2
		rtt := time.Duration(1+9*flow)*time.Millisecond + time.Duration(p.rng.IntN(int(time.Millisecond)))
		p.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Port: uint16(61000 + flow), Duration: rtt})
		if i < 2 {
			if f := p.Flows()[flow]; f.SRTT.Round(time.Microsecond) != rtt.Round(time.Microsecond) || (f.RTTVar-rtt/2).Abs() > time.Microsecond {
				t.Errorf("after %v: %+v", rtt, f)
			}
			srtt[flow], rttvar[flow] = rtt.Seconds(), rtt.Seconds()/2
			continue
		}
		rttvar[flow] = 0.75*rttvar[flow] + 0.25*math.Abs(srtt[flow]-rtt.Seconds())
		srtt[flow] = 0.875*srtt[flow] + 0.125*rtt.Seconds()
	}
	p.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: time.Second}) // nobody knows which
	flows := p.Flows()
	if len(flows) != 2 {
		t.Fatalf("%+v", flows)
	}
	for i, f := range flows {
		if math.Abs(f.SRTT.Seconds()-srtt[i]) > 1e-6 || math.Abs(f.RTTVar.Seconds()-rttvar[i]) > 1e-6 || f.Verdicts != 0 {
			t.Errorf("flow %d: %+v, want %v and %v", i, f, srtt[i], rttvar[i])
		}
	}
}

// What was not sent, or is not a verdict, is no flow's; another number of flows begins
// anew.
func TestFlowsBooked(t *testing.T) {
	p := newPaths(t, 4, 0, 1)
	p.Observe(&probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
	p.Observe(&probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardTapDrop, Port: 61000})
	if f := p.Flows(); len(f) != 0 {
		t.Errorf("%+v", f)
	}
	for range 4*flowMemory + 2 {
		p.probe()
	}
	if f := p.Flows(); len(f) != 4 || f[0] != (Flow{Port: 61000, Verdicts: flowMemory}) {
		t.Errorf("%+v", f)
	}
	p.configure(TargetOptions{Flows: 4, Buckets: []float64{1}}, mustBounds([]float64{1}))
	if f := p.Flows(); len(f) != 4 {
		t.Errorf("after other buckets: %+v", f)
	}
	for _, o := range []TargetOptions{{Flows: 4, Kind: probe.ActiveClose}, {Flows: 5, Kind: probe.ActiveClose}} {
		p.configure(o, mustBounds(nil))
		if f := p.Flows(); len(f) != 0 {
			t.Errorf("with %+v: %+v", o, f)
		}
		p.probe()
	}
}
