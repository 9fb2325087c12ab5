package status

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
)

// history makes samples: round trips about a median, over so many flows, every so
// many of which failed.
func history(n int, median time.Duration, flows, failing int) []recorder.Sample {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	all := make([]recorder.Sample, n)
	for i := range all {
		all[i] = recorder.Sample{
			At: int64(i) * int64(time.Second), RTT: float32(median.Seconds() * math.Exp(r.NormFloat64()/4)), Port: uint16(61000 + i%flows),
		}
		if failing > 0 && i%failing == 0 {
			all[i].RTT, all[i].Reason = 0, probe.Reason(1+i/failing%(probe.NumReasons-1))
		}
	}
	return all
}

func histogramOf(samples []recorder.Sample) []metrics.Bucket {
	counted := make(map[int]uint64)
	low, high := math.MaxInt, math.MinInt
	for i := range samples {
		if samples[i].RTT > 0 {
			k := int(math.Ceil(8 * math.Log2(float64(samples[i].RTT))))
			counted[k]++
			low, high = min(low, k), max(high, k)
		}
	}
	var all []metrics.Bucket
	at := func(k int) time.Duration { return time.Duration(math.Exp2(float64(k)/8) * 1e9) }
	for k := low; k <= high && len(counted) > 0; k++ {
		if counted[k] > 0 {
			all = append(all, metrics.Bucket{Lower: at(k - 1), Upper: at(k), Count: counted[k]})
		}
	}
	return all
}

// flowsIn are the flows of a target that had these probes.
func flowsIn(t *testing.T, samples []recorder.Sample, flows int) []flow {
	t.Helper()
	target, err := metrics.New(metrics.Options{}).AddTarget(metrics.Labels{Target: "a:1"}, metrics.TargetOptions{Flows: flows})
	if err != nil {
		t.Fatal(err)
	}
	for i := range samples {
		o := probe.Observation{Kind: probe.Verdict, Reason: samples[i].Reason, Port: samples[i].Port}
		if samples[i].Discard != 0 {
			o = probe.Observation{Kind: probe.Discarded, Discard: samples[i].Discard}
		}
		target.Observe(&o)
	}
	return flowsOf(target.Flows(), samples)
}

// Nothing that is written on a chart covers something else, however many probes, of
// whatever latency, ended in whatever way.
func TestChartLabelsApart(t *testing.T) {
	for _, n := range []int{1, 2, 7, 256} {
		for _, median := range []time.Duration{3 * time.Microsecond, 80 * time.Microsecond, 21 * time.Millisecond, 3 * time.Second} {
			for _, failing := range []int{0, 1, 3, 20} {
				samples := history(n, median, 8, failing)
				if n == 256 {
					samples[100].Discard, samples[200].RTT = probe.DiscardTapDrop, 9
				}
				flows := flowsIn(t, samples, 8)
				for _, f := range []frame{wideFrame(), narrowFrame(), {"w", 740}} {
					for _, c := range []*chart{drawHistogram(histogramOf(samples), f), drawHeatmap(samples, f), drawFlows(flows, f)} {
						if c == nil {
							continue
						}
						for _, bad := range overlaps(&c.canvas, c.wide, c.high) {
							t.Errorf("%s of %d about %v, every %dth failed, %s %.0f: %s", c.name, n, median, failing, f.id, f.wide, bad)
						}
					}
				}
			}
		}
	}
}

// The histogram's quantiles are those of the values, within a bucket.
func TestQuantiles(t *testing.T) {
	samples := history(256, 21*time.Millisecond, 1, 0)
	buckets := histogramOf(samples)
	for _, q := range []float64{0.5, 0.9, 0.99} {
		got := quantileOf(buckets, q).Seconds()
		below := 0
		for i := range samples {
			if float64(samples[i].RTT) <= got*1.1 {
				below++
			}
		}
		if float64(below) < q*256-1 {
			t.Errorf("p%g is %v: only %d of 256 are below", q*100, got, below)
		}
	}
}

// A flow stands out by its own loss or latency, not by chance.
func TestFlowsStandOut(t *testing.T) {
	samples := history(256, 2*time.Millisecond, 8, 0)
	for i := range samples {
		switch samples[i].Port {
		case 61003:
			samples[i].RTT *= 3
		case 61005:
			if i%16 < 8 {
				samples[i].RTT, samples[i].Reason = 0, probe.Timeout
			}
		case 61006:
			if i < 8 { // one
				samples[i].RTT, samples[i].Reason = 0, probe.Timeout
			}
		}
	}
	flows := flowsIn(t, samples, 8)
	if len(flows) != 8 {
		t.Fatalf("%d flows", len(flows))
	}
	for i, f := range flows {
		if f.Port != uint16(61000+i) {
			t.Errorf("flow %d has port %d", i, f.Port)
		}
		if want := f.Port == 61005; f.Failing != want {
			t.Errorf("flow %d: stands out by loss %v", f.Port, f.Failing)
		}
		if want := f.Port == 61003; f.slow != want {
			t.Errorf("flow %d: stands out by latency %v", f.Port, f.slow)
		}
	}
}

// The small picture says in words what it shows, and shows what was discarded apart.
func TestSparkline(t *testing.T) {
	samples := history(100, 2*time.Millisecond, 1, 10)
	samples[55].Discard = probe.DiscardTapDrop
	svg := string(sparkline(samples))
	for _, want := range []string{"last 100 probes: 10 failed, 1 discarded, median ", "spark-failed", "spark-ours", "spark-line"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q", want)
		}
	}
	if svg := string(sparkline(nil)); !strings.Contains(svg, "no probes yet") {
		t.Errorf("of nothing: %s", svg)
	}
	if n := len(sparkline(history(256, time.Millisecond, 1, 3))); n > 6000 {
		t.Errorf("%d octets for a small picture", n)
	}
}
