package metrics

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"time"
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
	ns    []int64   // the longest duration of each bucket
	from  [64]uint8 // the first bucket that a duration of so many bits can be in
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
		b.ns = append(b.ns, longest(v))
	}
	for n := range b.from {
		least, _ := slices.BinarySearch(b.ns, int64(1)<<n>>1)
		b.from[n] = uint8(min(least, math.MaxUint8))
	}
	return b, nil
}

// longest returns the longest duration that is at most so many seconds.
func longest(upper float64) int64 {
	if upper >= float64(math.MaxInt64)/1e9 {
		return math.MaxInt64
	}
	d := time.Duration(upper * 1e9)
	for d.Seconds() > upper {
		d--
	}
	for d < math.MaxInt64 && (d+1).Seconds() <= upper {
		d++
	}
	return int64(d)
}

// find returns the index of the bucket for a duration of 0 or more, len(b.ns) for +Inf.
func (b *bounds) find(d time.Duration) int {
	i := int(b.from[bits.Len64(uint64(d))])
	for i < len(b.ns) && int64(d) > b.ns[i] {
		i++
	}
	return i
}
