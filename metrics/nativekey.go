package metrics

import "math"

// nativeBounds are the upper bounds within one octave at schema 3, 2^(i/8-1),
// as fractions of math.Frexp.
var nativeBounds = [1 << maxSchema]float64{
	0.5, 0.5452538663326288, 0.5946035575013605, 0.6484197773255048,
	0.7071067811865475, 0.7711054127039704, 0.8408964152537144, 0.9170040432046711,
}

// nativeKey returns the key of v's bucket at schema 3, v > 0: the least k with
// v ≤ 2^(k/8).
func nativeKey(v float64) int {
	frac, exp := math.Frexp(v)
	i := 0
	for i < len(nativeBounds) && frac > nativeBounds[i] {
		i++
	}
	return i + (exp-1)*len(nativeBounds)
}

// spans is a native histogram's buckets in the exposition's form: spans of
// consecutive buckets, and each bucket's count as the difference from the
// bucket before. Its memory is reused.
type spans struct {
	offsets []int32  // from the end of the span before, the first from key 0
	lengths []uint32 // buckets
	deltas  []int64
}

// set writes n's buckets. Gaps of up to two buckets are filled with empty ones
// rather than ending the span, as client_golang does.
func (s *spans) set(n *native) {
	s.offsets, s.lengths, s.deltas = s.offsets[:0], s.lengths[:0], s.deltas[:0]
	var next int32 // the key after the last bucket written
	var before int64
	for i, k := range n.keys {
		gap := int32(k) - next
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
		s.deltas = append(s.deltas, int64(n.counts[i])-before)
		s.lengths[len(s.lengths)-1]++
		before = int64(n.counts[i])
		next = int32(k) + 1
	}
}
