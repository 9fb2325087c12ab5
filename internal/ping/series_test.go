package ping

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// drawn are durations of some shapes.
func drawn(n int) map[string][]time.Duration {
	r := rand.New(rand.NewPCG(1, 2))
	all := make(map[string][]time.Duration)
	for name, f := range map[string]func() float64{
		"a path":           func() float64 { return 100e3 + 20e3*r.ExpFloat64() },
		"outliers":         func() float64 { return 100e3 + 3e3*r.NormFloat64() + 20e6*float64(r.IntN(1000)/999) },
		"two paths":        func() float64 { return 1e6 + 1e6*float64(r.IntN(2)) + 1e3*r.Float64() },
		"every decade":     func() float64 { return math.Pow(10, 12*r.Float64()) },
		"one value":        func() float64 { return 5 },
		"zero":             func() float64 { return 0 },
		"a few ns":         func() float64 { return 3 * r.Float64() },
		"hours":            func() float64 { return 3e13 * r.Float64() },
		"beyond reason":    func() float64 { return 9e18 * r.Float64() },
		"zero to a second": func() float64 { return 1e9 * r.Float64() * float64(r.IntN(2)) },
	} {
		for range n {
			all[name] = append(all[name], time.Duration(f()))
		}
	}
	return all
}

// rank is the definition of a quantile by nearest rank.
func rank(sorted []time.Duration, q float64) time.Duration {
	for i, d := range sorted {
		if float64(i+1) >= q*float64(len(sorted))-1e-9 {
			return d
		}
	}
	return sorted[len(sorted)-1]
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 10, 99, 100, 101, 3000} {
		for name, ds := range drawn(n) {
			exact, coarse := Series{}, Series{limit: 50}
			sum := 0.0
			for i := range ds {
				ds[i] = min(ds[i], longest)
				exact.Add(ds[i])
				coarse.Add(ds[i])
				if i > 0 {
					sum += math.Abs(float64(ds[i] - ds[i-1]))
				}
			}
			if want := sum / float64(max(n-1, 1)); math.Abs(float64(exact.Jitter())-want) > 0.6 || exact.Jitter() != coarse.Jitter() {
				t.Errorf("%s, %d: jitter %v, want %v", name, n, exact.Jitter(), want)
			}
			if exact.Exact() != true || coarse.Exact() != (n <= 50) {
				t.Errorf("%s, %d: exact %v, %v", name, n, exact.Exact(), coarse.Exact())
			}
			slices.Sort(ds)
			for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
				want := rank(ds, q)
				if got := exact.Quantile(q); got != want {
					t.Errorf("%s: quantile %v of %d is %v, want %v", name, q, n, got, want)
				}
				if got := coarse.Quantile(q); math.Abs(float64(got-want)) > float64(want)/2000 {
					t.Errorf("%s: quantile %v of %d is %v, want %v to 0.05 %%", name, q, n, got, want)
				}
			}
			for _, s := range []*Series{&exact, &coarse} {
				if s.Count() != uint64(n) || s.Min() != ds[0] || s.Max() != ds[n-1] {
					t.Errorf("%s: %d from %v to %v, want %d from %v to %v", name, s.Count(), s.Min(), s.Max(), n, ds[0], ds[n-1])
				}
			}
		}
	}
}

func TestEmptySeries(t *testing.T) {
	t.Parallel()
	var s Series
	s.Add(-1)
	if s.Count() != 0 || s.Quantile(0.5) != 0 || s.Jitter() != 0 || s.Bins() != nil || s.Chart("x", 80, false) != "" {
		t.Errorf("%+v", s)
	}
}

// TestAddAfterQuantile: to ask between does not spoil what comes.
func TestAddAfterQuantile(t *testing.T) {
	t.Parallel()
	var s Series
	for i := range 100 {
		s.Add(time.Duration(100 - i))
		if got, want := s.Quantile(0), time.Duration(100-i); got != want {
			t.Fatalf("after %d the least is %v, want %v", i+1, got, want)
		}
	}
	if s.Jitter() != 1 {
		t.Errorf("jitter %v", s.Jitter())
	}
}

// TestSeriesIsBounded: what a week of a hundred probes a second takes.
func TestSeriesIsBounded(t *testing.T) {
	var s Series
	for i := range MaxExact + 1 {
		s.Add(time.Duration(i))
	}
	if s.Exact() || s.values != nil {
		t.Fatalf("%d durations are kept one by one", len(s.values))
	}
	if octets := 8 * cap(s.counts); octets > 512<<10 {
		t.Errorf("counts take %d octets", octets)
	}
	if allocs := testing.AllocsPerRun(1000, func() { s.Add(123456) }); allocs != 0 {
		t.Errorf("%v allocations for a duration more", allocs)
	}
}

// TestCells: they lie one after the other without a gap, and none is wider than it
// may be.
func TestCells(t *testing.T) {
	t.Parallel()
	for d := range time.Duration(10 * fine) {
		cell, next := cellOf(d), cellOf(d+1)
		if next != cell && next != cell+1 {
			t.Fatalf("%d is in cell %d, the next in %d", d, cell, next)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		d := time.Duration(r.Uint64() >> (1 + r.IntN(62)))
		if m := middleOf(cellOf(d)); math.Abs(float64(m-d)) > float64(d)/2048+1e-9 || cellOf(m) != cellOf(d) {
			t.Fatalf("%d is counted as %d", d, m)
		}
	}
}

// TestBins: every duration is in one bin, the bins follow each other, and they fit
// a screen.
func TestBins(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 5, 100, 3000} {
		for name, ds := range drawn(n) {
			for _, s := range []*Series{{}, {limit: 50}} {
				for _, d := range ds {
					s.Add(d)
				}
				bins := s.Bins()
				if len(bins) == 0 || len(bins) > maxBins+4 {
					t.Errorf("%s, %d: %d bins", name, n, len(bins))
				}
				var all uint64
				for i, b := range bins {
					all += b.Count
					open := i == len(bins)-1 && b.To == 0
					if i > 0 && b.From != bins[i-1].To || !open && b.To <= b.From {
						t.Errorf("%s, %d: bin %d is %v to %v", name, n, i, b.From, b.To)
					}
					var want uint64
					for _, d := range ds {
						if d = min(d, longest); d >= b.From && (d < b.To || b.To == 0) {
							want++
						}
					}
					if s.Exact() && b.Count != want {
						t.Errorf("%s, %d: %d in %v to %v, want %d", name, n, b.Count, b.From, b.To, want)
					}
				}
				if all != uint64(n) {
					t.Errorf("%s: %d of %d are in a bin: %v", name, all, n, bins)
				}
				if bins[0].Count == 0 || bins[len(bins)-1].Count == 0 {
					t.Errorf("%s, %d: empty bins at an end: %v", name, n, bins)
				}
			}
		}
	}
}
