package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/probed/probed/probe"
)

// TestHistogramAgainstClientGolang gives the same durations to a target and to
// client_golang's own histogram: what is exported is the same message, spans,
// deltas and classic buckets included.
func TestHistogramAgainstClientGolang(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	around := func(median time.Duration, octaves float64) func() time.Duration {
		return func() time.Duration {
			return time.Duration(float64(median) * math.Exp2(rng.NormFloat64()*octaves))
		}
	}
	for name, latency := range map[string]func() time.Duration{
		"steady": around(20*time.Millisecond, 0.1),
		"two paths": func() time.Duration {
			return []time.Duration{11 * time.Millisecond, 90 * time.Millisecond}[rng.IntN(2)]
		},
		"wide":           around(time.Millisecond, 1.5),
		"every octave":   func() time.Duration { return time.Duration(rng.Uint64() >> (1 + rng.UintN(63))) },
		"around seconds": around(time.Second, 1),
		"powers of two":  func() time.Duration { return time.Second << rng.IntN(5) },
		"zero":           func() time.Duration { return time.Duration(rng.IntN(2)) * time.Microsecond },
	} {
		for _, buckets := range [][]float64{usualBuckets, {}, {0.001, 0.01, math.Inf(1)}} {
			for _, n := range []int{0, 1, 2, 10, 100, 10_000} {
				t.Run(fmt.Sprintf("%s/%d buckets/%d", name, len(buckets), n), func(t *testing.T) {
					reference := prometheus.NewHistogram(prometheus.HistogramOpts{
						Name:                           "probed_handshake_rtt_seconds",
						Buckets:                        buckets,
						NativeHistogramBucketFactor:    1.1,
						NativeHistogramMaxBucketNumber: maxNative,
					})
					m := New(Options{})
					target := mustAdd(t, m, Labels{}, TargetOptions{Buckets: buckets})
					for range n {
						d := latency()
						reference.Observe(d.Seconds())
						target.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: d})
					}
					var want dto.Metric
					if err := reference.Write(&want); err != nil {
						t.Fatal(err)
					}
					want.Histogram.CreatedTimestamp = nil // not exported
					got := gathered(t, m, "probed_handshake_rtt_seconds").Metric[0]
					if !proto.Equal(got.Histogram, want.Histogram) {
						t.Errorf("got  %v\nwant %v", got.Histogram, want.Histogram)
					}
				})
			}
		}
	}
}

// TestNativeBucketsBounded feeds latencies of every magnitude.
func TestNativeBucketsBounded(t *testing.T) {
	h := newHistogram(mustBounds(nil))
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		h.observe(time.Duration(rng.Uint64() >> (1 + rng.UintN(63))))
		if len(h.native()) > maxNative || cap(h.cells) > 2*maxNative {
			t.Fatalf("%d buckets (capacity %d), want at most %d", len(h.native()), cap(h.cells), maxNative)
		}
	}
}

// What several loops have observed adds up to what one would have, whatever the
// resolution of each.
func TestSharedHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for range 200 {
		b := mustBounds(usualBuckets)
		var shared sharedHistogram
		shared.init(b)
		all := newHistogram(b)
		for i := range shared.parts {
			octaves := 1 + rng.UintN(63)
			for range rng.IntN(400) {
				d := time.Duration(rng.Uint64() >> 1 >> rng.UintN(octaves))
				shared.parts[i].h.observe(d)
				all.observe(d)
			}
		}
		var sum histogram
		shared.copyTo(&sum)
		for all.schema > sum.schema { // which part came first decides when it halves
			all.halve()
		}
		for sum.schema > all.schema {
			sum.halve()
		}
		if math.Abs(sum.sum-all.sum) > 1e-9*all.sum {
			t.Fatalf("sum %v, want %v", sum.sum, all.sum)
		}
		if sum.count != all.count || sum.zero != all.zero || !slices.Equal(sum.cells, all.cells) {
			t.Fatalf("%+v\nwant %+v", sum, all)
		}
	}
}

func TestBucketErrors(t *testing.T) {
	m := New(Options{})
	for _, buckets := range [][]float64{{0.1, 0.1}, {0.2, 0.1}, {math.NaN()}, {0}, {-1}, {math.Inf(1), 1}} {
		if _, err := m.AddTarget(Labels{Target: "a:1"}, TargetOptions{Buckets: buckets}); err == nil {
			t.Errorf("buckets %v are accepted", buckets)
		}
	}
	if n := len(m.snapshot().all); n != 0 {
		t.Errorf("%d targets, want none", n)
	}
}

// TestReconfigure keeps the counters, and the histogram as long as its classic
// buckets are the same.
func TestReconfigure(t *testing.T) {
	m := New(Options{})
	target := mustAdd(t, m, Labels{}, TargetOptions{Buckets: []float64{1}})
	o := answered(time.Millisecond)
	for i := range o {
		target.Observe(&o[i])
	}
	for _, step := range []struct {
		buckets []float64
		want    uint64
	}{{[]float64{1}, 1}, {[]float64{1, 2}, 0}, {nil, 0}} {
		if err := m.Reconfigure(target, TargetOptions{Flows: 4, Buckets: step.buckets}); err != nil {
			t.Fatal(err)
		}
		h := gathered(t, m, "probed_handshake_rtt_seconds").Metric[0].Histogram
		if h.GetSampleCount() != step.want || len(h.Bucket) != len(step.buckets) {
			t.Errorf("buckets %v: %v, want %d observations", step.buckets, h, step.want)
		}
	}
	if v := gathered(t, m, "probed_probes_total").Metric[0].Counter.GetValue(); v != 1 {
		t.Errorf("probed_probes_total %v, want 1", v)
	}
	if v := gathered(t, m, "probed_flows").Metric[0].Gauge.GetValue(); v != 4 {
		t.Errorf("probed_flows %v, want 4", v)
	}
	if err := m.Reconfigure(target, TargetOptions{Buckets: []float64{2, 1}}); err == nil {
		t.Error("falling buckets are accepted")
	}
}

func gathered(t testing.TB, m *Metrics, name string) *dto.MetricFamily {
	t.Helper()
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	t.Fatalf("%s is not exported", name)
	return nil
}
