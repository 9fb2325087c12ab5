package metrics

import "math"

// nativeBounds are the upper bounds within one octave at schema 3, 2^(i/8), as the
// mantissas of their floating-point numbers.
var nativeBounds = [1 << maxSchema]uint64{
	0, 0x172b83c7d517b, 0x306fe0a31b715, 0x4bfdad5362a27,
	0x6a09e667f3bcc, 0x8ace5422aa0db, 0xae89f995ad3ac, 0xd5818dcfba486,
}

// nativeKey returns the key of v's bucket at schema 3, v > 0: the least k with
// v ≤ 2^(k/8). It is for durations, which are no denormal numbers.
func nativeKey(v float64) int {
	const mantissa, bias = 52, 1023
	b := math.Float64bits(v)
	frac, i := b&(1<<mantissa-1), 0
	for i < len(nativeBounds) && frac > nativeBounds[i] {
		i++
	}
	return i + (int(b>>mantissa)-bias)*len(nativeBounds)
}

// spans is a native histogram's buckets in the exposition's form: spans of
// consecutive buckets, and each bucket's count as the difference from the
// bucket before. Its memory is reused.
type spans struct {
	offsets []int32  // from the end of the span before, the first from key 0
	lengths []uint32 // buckets
	deltas  []int64
}

// set writes native buckets. Gaps of up to two buckets are filled with empty ones
// rather than ending the span, as client_golang does.
func (s *spans) set(native []cell) {
	s.offsets, s.lengths, s.deltas = s.offsets[:0], s.lengths[:0], s.deltas[:0]
	var next int32 // the key after the last bucket written
	var before int64
	for i, c := range native {
		gap := int32(c.key()) - next
		if i == 0 || gap > 2 {
			s.offsets = append(s.offsets, gap)
			s.lengths = append(s.lengths, 0)
		} else {
			for range gap {
				s.deltas = append(s.deltas, -before)
				s.lengths[len(s.lengths)-1]++
				before = 0
			}
		}
		s.deltas = append(s.deltas, int64(c.count())-before)
		s.lengths[len(s.lengths)-1]++
		before = int64(c.count())
		next = int32(c.key()) + 1
	}
}
