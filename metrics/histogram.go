package metrics

import (
	"slices"
	"time"
	"unsafe"
)

// A histogram counts durations in classic and native buckets at once. It is
// not safe for concurrent use: its owner locks. It exists because it takes half
// a kilobyte with thirty native buckets, where client_golang's, made for many
// writers, takes nine (BenchmarkClientGolangMemory) and builds a tree of
// messages at every scrape.
type histogram struct {
	bounds *bounds
	cells  []cell // the classic buckets by bound, not cumulative, then the native ones; nil before the first observation
	count  uint64
	sum    float64 // seconds
	zero   uint64  // values up to zeroThreshold
	schema int8
	// Where the last one was counted: the next is likely to be near.
	classic, sparse uint16
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
	// spareCells is by how many the room for cells grows.
	spareCells = 4
)

func newHistogram(b *bounds) histogram { return histogram{bounds: b, schema: maxSchema} }

// observe counts d. A negative duration, which no two stamps of one clock
// give, counts as 0.
func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	if h.cells == nil {
		h.cells = make([]cell, len(h.bounds.ns), len(h.bounds.ns)+spareCells)
	}
	if i := h.bounds.find(d); i < len(h.bounds.ns) {
		h.cells[i]++
		h.classic = uint16(i)
	}
	h.count++
	v := d.Seconds()
	h.sum += v
	if v <= zeroThreshold {
		h.zero++
		return
	}
	key := int16(nativeKey(v))
	for s := h.schema; s < maxSchema; s++ {
		key = halved(key)
	}
	h.countNative(key, 1)
}

// ahead adds the addresses of the cells that the next observation is likely to count in.
func (h *histogram) ahead(to []uintptr) []uintptr {
	if int(h.classic) < len(h.cells) && int(h.sparse) < len(h.cells) {
		to = append(to, uintptr(unsafe.Pointer(&h.cells[h.classic])), uintptr(unsafe.Pointer(&h.cells[h.sparse])))
	}
	return to
}

// copyTo makes dst equal to h and reuses dst's memory.
func (h *histogram) copyTo(dst *histogram) {
	cells := dst.cells[:0]
	*dst = *h
	dst.cells = cells
	dst.cells = append(dst.cells, h.cells...)
}

// at returns the count of the i-th classic bucket alone.
func (h *histogram) at(i int) uint64 {
	if len(h.cells) == 0 {
		return 0
	}
	return uint64(h.cells[i])
}

// native are the sparse buckets of a Prometheus native histogram that have counted, by
// key: that with key k counts values in (2^((k-1)/2^schema), 2^(k/2^schema)].
func (h *histogram) native() []cell {
	if len(h.cells) == 0 {
		return nil
	}
	return h.cells[len(h.bounds.ns):]
}

// A cell is the count of a classic bucket, or a native one's key, in the sixteen bits
// above, and its count: 2^48 are enough, as at a million a second they last nine years.
type cell uint64

const countBits = 48

func newCell(key int16, n uint64) cell { return cell(uint16(key)^0x8000)<<countBits | cell(n) }

// key is a native bucket's. Cells are in the order of their keys.
func (c cell) key() int16 { return int16(uint16(c>>countBits) ^ 0x8000) }

// count is a native bucket's.
func (c cell) count() uint64 { return uint64(c & (1<<countBits - 1)) }

// countNative counts so many values of the bucket with a key.
func (h *histogram) countNative(key int16, count uint64) {
	n := h.native()
	i := search(n, key)
	h.sparse = uint16(len(h.bounds.ns) + i)
	if i < len(n) && n[i].key() == key {
		n[i] += cell(count)
		return
	}
	if len(h.cells) == cap(h.cells) {
		h.cells = append(make([]cell, 0, len(h.cells)+spareCells), h.cells...)
	}
	h.cells = slices.Insert(h.cells, len(h.bounds.ns)+i, newCell(key, count))
	// A duration spans 63 octaves at most, so schema 0 always fits.
	for len(h.native()) > maxNative {
		h.halve()
	}
}

// search returns the place of the first bucket whose key is not below. Latencies lie
// together, so that it is nearly always where it would be if no key were missing.
func search(n []cell, key int16) int {
	if len(n) == 0 {
		return 0
	}
	i := min(max(int(key)-int(n[0].key()), 0), len(n)-1)
	for range 4 {
		if i == 0 || n[i-1].key() < key {
			if n[i].key() < key {
				i++
			}
			return i
		}
		i--
	}
	i, _ = slices.BinarySearchFunc(n[:i+1], key, func(c cell, key int16) int { return int(c.key()) - int(key) })
	return i
}

// add adds what o has counted, of the same classic buckets.
func (h *histogram) add(o *histogram) {
	if o.count == 0 {
		return
	}
	if len(h.cells) == 0 {
		h.cells = append(h.cells[:0], make([]cell, len(h.bounds.ns))...)
	}
	for i := range h.bounds.ns {
		h.cells[i] += o.cells[i]
	}
	h.count += o.count
	h.sum += o.sum
	h.zero += o.zero
	for h.schema > o.schema {
		h.halve()
	}
	for _, c := range o.native() {
		key := c.key()
		for s := o.schema; s > h.schema; s-- {
			key = halved(key)
		}
		h.countNative(key, c.count())
	}
}

// halve doubles the width of every bucket.
func (h *histogram) halve() {
	h.schema--
	n := h.native()
	last := -1
	for _, c := range n {
		key := halved(c.key())
		if last >= 0 && n[last].key() == key {
			n[last] += cell(c.count())
			continue
		}
		last++
		n[last] = newCell(key, c.count())
	}
	h.cells = h.cells[:len(h.bounds.ns)+last+1]
}

// halved is the key of the bucket of double width that holds key's: half of
// it, rounded up.
func halved(key int16) int16 { return (key + 1) >> 1 }
