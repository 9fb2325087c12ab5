package metrics

import (
	"slices"
	"time"
)

// A histogram counts durations in classic and native buckets at once. It is
// not safe for concurrent use: its owner locks. It exists because it takes half
// a kilobyte with thirty native buckets, where client_golang's, made for many
// writers, takes nine (BenchmarkClientGolangMemory) and builds a tree of
// messages at every scrape.
type histogram struct {
	bounds  *bounds
	classic []uint64 // by bound, not cumulative; nil before the first observation
	count   uint64
	sum     float64 // seconds
	native  native
}

// observe counts d. A negative duration, which no two stamps of one clock
// give, counts as 0.
func (h *histogram) observe(d time.Duration) {
	v := max(d, 0).Seconds()
	if h.classic == nil && len(h.bounds.upper) > 0 {
		h.classic = make([]uint64, len(h.bounds.upper))
	}
	if i := h.bounds.find(v); i < len(h.classic) {
		h.classic[i]++
	}
	h.count++
	h.sum += v
	h.native.observe(v)
}

// copyTo makes dst equal to h and reuses dst's memory.
func (h *histogram) copyTo(dst *histogram) {
	dst.bounds, dst.count, dst.sum = h.bounds, h.count, h.sum
	dst.classic = append(dst.classic[:0], h.classic...)
	dst.native.schema, dst.native.zero = h.native.schema, h.native.zero
	dst.native.keys = append(dst.native.keys[:0], h.native.keys...)
	dst.native.counts = append(dst.native.counts[:0], h.native.counts...)
}

// at returns the count of the i-th classic bucket alone.
func (h *histogram) at(i int) uint64 {
	if i < len(h.classic) {
		return h.classic[i]
	}
	return 0
}

func newHistogram(b *bounds) histogram {
	return histogram{bounds: b, native: native{schema: maxSchema}}
}

// native holds the sparse buckets of a Prometheus native histogram: the bucket
// with key k counts values in (2^((k-1)/2^schema), 2^(k/2^schema)].
type native struct {
	schema int8
	zero   uint64   // values up to zeroThreshold
	keys   []int16  // rising; only buckets that have counted
	counts []uint64 // by key
}

const (
	// maxSchema starts at a growth factor of 2^(1/8) = 1.09 from bucket to
	// bucket, an error of at most 4.4 %.
	maxSchema = 3
	// maxNative bounds a target's memory: twelve octaves fully populated, or a
	// kilobyte. Beyond it the resolution halves, as client_golang's does.
	maxNative = 100
	// zeroThreshold is client_golang's DefNativeHistogramZeroThreshold, so that
	// histograms of both can be added up. In seconds.
	zeroThreshold = 0x1p-128
)

// observe counts v seconds, v ≥ 0.
func (n *native) observe(v float64) {
	if v <= zeroThreshold {
		n.zero++
		return
	}
	key := int16(nativeKey(v))
	for s := n.schema; s < maxSchema; s++ {
		key = halved(key)
	}
	i, found := slices.BinarySearch(n.keys, key)
	if found {
		n.counts[i]++
		return
	}
	n.keys = slices.Insert(n.keys, i, key)
	n.counts = slices.Insert(n.counts, i, 1)
	// A duration spans 63 octaves at most, so schema 0 always fits.
	for len(n.keys) > maxNative {
		n.halve()
	}
}

// halve doubles the width of every bucket.
func (n *native) halve() {
	n.schema--
	last := -1
	for i, key := range n.keys {
		key = halved(key)
		if last >= 0 && n.keys[last] == key {
			n.counts[last] += n.counts[i]
			continue
		}
		last++
		n.keys[last], n.counts[last] = key, n.counts[i]
	}
	n.keys, n.counts = n.keys[:last+1], n.counts[:last+1]
}

// halved is the key of the bucket of double width that holds key's: half of
// it, rounded up.
func halved(key int16) int16 { return (key + 1) >> 1 }
