package metrics

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// usualBuckets are those that the configuration has by default.
var usualBuckets = []float64{
	10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6,
	1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
	1, 2.5, 5,
}

// A duration's bucket is the first whose bound, in seconds, is not below it in seconds.
func TestFind(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var many []float64
	for i := range 400 {
		many = append(many, float64(i+1)*1e-4)
	}
	for _, upper := range [][]float64{usualBuckets, selfBuckets[:], {}, {1e-12, 1e-10, 3e-9, 0.1, 0.3, 1e9, 1e10, 1e300}, many} {
		b := mustBounds(upper)
		check := func(d time.Duration) {
			want := 0
			for want < len(upper) && d.Seconds() > upper[want] {
				want++
			}
			if got := b.find(d); got != want {
				t.Fatalf("%v in %v: bucket %d, want %d", d, upper, got, want)
			}
		}
		for _, d := range []time.Duration{0, 1, 2, 3, 4, math.MaxInt64 - 1, math.MaxInt64} {
			check(d)
		}
		for range 10000 {
			check(time.Duration(rng.Uint64() >> (1 + rng.UintN(63))))
		}
		for _, u := range upper {
			for d := time.Duration(min(u, 9e9)*1e9) - 3; d < time.Duration(min(u, 9e9)*1e9)+4; d++ {
				check(max(d, 0))
			}
		}
	}
}
