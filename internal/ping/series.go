package ping

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// MaxExact is how many durations of a figure are kept one by one, in 8 octets
// each: twelve days of a probe a second. Of more than these there are counts only,
// by which a quantile is off by 0.05 % at most; what that takes is bounded too, to
// half a MiB a figure.
const MaxExact = 1 << 20

// A Series is the durations of one figure, in the order in which they were
// measured. The zero value is empty.
type Series struct {
	n        uint64
	min, max time.Duration
	last     time.Duration
	changes  float64 // sum of the absolute differences of neighbours, ns
	values   []time.Duration
	sorted   bool
	counts   []uint64 // by cell, once there are more than limit
	limit    int      // MaxExact if 0
}

// Add takes a duration; one below 0 is none.
func (s *Series) Add(d time.Duration) {
	if d < 0 {
		return
	}
	d = min(d, longest)
	if s.n == 0 {
		s.min, s.max = d, d
	} else {
		s.changes += math.Abs(float64(d - s.last))
		s.min, s.max = min(s.min, d), max(s.max, d)
	}
	s.last = d
	s.n++
	if s.counts != nil {
		s.counts[cellOf(d)]++
		return
	}
	s.values, s.sorted = append(s.values, d), false
	if limit := s.limit; len(s.values) > limit && (limit > 0 || len(s.values) > MaxExact) {
		s.fold()
	}
}

// fold replaces the durations by how many there are of about each.
func (s *Series) fold() {
	s.counts = make([]uint64, cellOf(math.MaxInt64)+1)
	for _, d := range s.values {
		s.counts[cellOf(d)]++
	}
	s.values = nil
}

// Count is how many durations there are.
func (s *Series) Count() uint64 { return s.n }

// Min is the shortest, 0 if there is none.
func (s *Series) Min() time.Duration { return s.min }

// Max is the longest, 0 if there is none.
func (s *Series) Max() time.Duration { return s.max }

// Exact reports whether Quantile is one of the durations, and not near one.
func (s *Series) Exact() bool { return s.counts == nil }

// Jitter is the mean of the absolute differences of consecutive durations: the D
// of RFC 3550 §6.4.1, averaged over all of them and not smoothed. It is 0 for
// fewer than two.
func (s *Series) Jitter() time.Duration {
	if s.n < 2 {
		return 0
	}
	return time.Duration(math.Round(s.changes / float64(s.n-1)))
}

// Quantile is the shortest duration that a share of q of all are not longer than
// (nearest rank), 0 if there is none.
func (s *Series) Quantile(q float64) time.Duration {
	if s.n == 0 {
		return 0
	}
	// q·n is computed a little off, which must not go to the next rank.
	rank := uint64(min(max(math.Ceil(q*float64(s.n)-1e-9), 1), float64(s.n)))
	var below uint64
	at := s.max
	s.each(func(d time.Duration, n uint64) bool {
		if below += n; below >= rank {
			at = d
			return false
		}
		return true
	})
	return min(max(at, s.min), s.max)
}

// each calls f with every duration and how often it is there, the shortest first,
// until f says that it has enough.
func (s *Series) each(f func(d time.Duration, n uint64) bool) {
	if !s.sorted {
		slices.Sort(s.values)
		s.sorted = true
	}
	for _, d := range s.values {
		if !f(d, 1) {
			return
		}
	}
	for cell, n := range s.counts {
		if n > 0 && !f(middleOf(cell), n) {
			return
		}
	}
}

// fine is how many cells there are between one power of two and the next.
const fine = 1 << 10

// cellOf returns the cell of a duration. Below 2·fine ns each has its own; above,
// a cell's width is 1/fine of where it lies, at most.
func cellOf(d time.Duration) int {
	v := uint64(d)
	shift := max(bits.Len64(v)-bits.Len(fine), 0)
	return shift*fine + int(v>>shift)
}

// middleOf returns the middle of a cell.
func middleOf(cell int) time.Duration {
	if cell < 2*fine {
		return time.Duration(cell)
	}
	shift := cell/fine - 1
	return time.Duration(cell-shift*fine)<<shift + 1<<shift>>1
}
