package ping

import "time"

// A Bin is how many durations lie from From on and below To.
type Bin struct {
	From, To time.Duration // To is 0 in the last one if that has no end
	Count    uint64
}

// maxBins is how many bins a chart has at most, the last one apart that is for
// what lies far out.
const maxBins = 12

// Bins sorts the durations into bins of one width, a round one, from the shortest
// to the longest. Where the longest hundredth lies far out it shares a last bin, so
// that the others still show a shape; and what spans more than a decade all the same
// goes into bins whose bounds grow by a factor, of which empty neighbours are one.
func (s *Series) Bins() []Bin {
	if s.n == 0 {
		return nil
	}
	end, far := s.max, false
	if p99 := s.Quantile(0.99); s.max > 2*p99 {
		end, far = p99, true
	}
	if end <= 10*max(s.min, 1) {
		return s.fill(even(s.min, end), far)
	}
	var bins []Bin
	for _, decade := range decades {
		bins = withoutGaps(s.fill(growing(decade, s.min, end), far))
		if len(bins) <= maxBins+1 {
			break
		}
	}
	return bins
}

// fill counts the durations of each bin. With far there is one more, without an
// end.
func (s *Series) fill(bins []Bin, far bool) []Bin {
	if far {
		bins = append(bins, Bin{From: bins[len(bins)-1].To})
	}
	i := 0
	s.each(func(d time.Duration, n uint64) bool {
		for i < len(bins)-1 && d >= bins[i].To {
			i++
		}
		bins[i].Count += n
		return true
	})
	if far && bins[len(bins)-1].Count == 0 {
		bins = bins[:len(bins)-1] // the others grew past the longest
	}
	return bins
}

// withoutGaps makes one of empty bins that are neighbours.
func withoutGaps(bins []Bin) []Bin {
	kept := bins[:1]
	for _, b := range bins[1:] {
		if last := &kept[len(kept)-1]; b.Count == 0 && last.Count == 0 {
			last.To = b.To
			continue
		}
		kept = append(kept, b)
	}
	return kept
}

// longest is beyond what any probe can take, and leaves room to reckon with.
const longest = 1000 * time.Hour

// even makes bins of one width: 1, 2 or 5 times a power of ten.
func even(first, last time.Duration) []Bin {
	width := time.Duration(1)
	for power := width; last/width-first/width >= maxBins && power < longest; power *= 10 {
		for _, n := range [...]time.Duration{1, 2, 5} {
			if width = n * power; last/width-first/width < maxBins {
				break
			}
		}
	}
	var bins []Bin
	for from := first / width * width; from <= last; from += width {
		bins = append(bins, Bin{From: from, To: from + width})
	}
	return bins
}

// decades are the bounds within a decade, from many to few.
var decades = [...][]time.Duration{{10, 12, 16, 20, 25, 32, 40, 50, 63, 80}, {10, 16, 25, 40, 63}, {10, 20, 50}, {10}}

// growing makes bins whose bounds are a decade's, again and again.
func growing(decade []time.Duration, first, last time.Duration) (bins []Bin) {
	from := time.Duration(0)
	for power := time.Duration(1); from <= last && power < longest; power *= 10 {
		for _, n := range decade {
			if to := n * power; to > first && from <= last {
				bins = append(bins, Bin{From: from, To: to})
			}
			from = n * power
		}
	}
	return bins
}
