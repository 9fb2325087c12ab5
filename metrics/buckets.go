package metrics

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// selfBuckets spans our own delays, in steps of 2 to 2.5.
var selfBuckets = [...]float64{
	1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6,
	1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1,
}

// bounds are the upper bounds of classic buckets, in seconds, and their label
// values. One value serves every histogram with the same buckets.
type bounds struct {
	upper []float64
	le    []string
}

// newBounds copies and checks upper. A final +Inf is dropped: that bucket is
// always there.
func newBounds(upper []float64) (*bounds, error) {
	if n := len(upper); n > 0 && math.IsInf(upper[n-1], +1) {
		upper = upper[:n-1]
	}
	b := &bounds{upper: slices.Clone(upper), le: make([]string, len(upper))}
	for i, v := range upper {
		if math.IsNaN(v) || math.IsInf(v, 0) || v <= 0 {
			return nil, fmt.Errorf("bucket %v: a bound must be a positive number of seconds", v)
		}
		if i > 0 && v <= upper[i-1] {
			return nil, fmt.Errorf("bucket %v after %v: bounds must rise", v, upper[i-1])
		}
		b.le[i] = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return b, nil
}

// find returns the index of the bucket for v seconds, len(b.upper) for +Inf.
// The lists are short, and most latencies are in the first half.
func (b *bounds) find(v float64) int {
	for i, upper := range b.upper {
		if v <= upper {
			return i
		}
	}
	return len(b.upper)
}
