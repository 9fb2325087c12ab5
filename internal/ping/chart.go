package ping

import (
	"strconv"
	"strings"

	"github.com/probed/probed/internal/show"
)

// fewest is how many durations a chart takes: fewer are read off the lines.
const fewest = 5

// narrowest is how many columns a bar has at least, whatever the terminal's width.
const narrowest = 10

// Chart draws how the durations of a figure are spread, as bars of at most width
// columns with what stands beside them; nothing if there are too few to say.
func (s *Series) Chart(name string, width int, p Paint) string {
	if s.n < fewest {
		return ""
	}
	bins := s.Bins()
	var most uint64
	for _, b := range bins {
		most = max(most, b.Count)
	}
	from, to := make([]string, len(bins)), make([]string, len(bins))
	var wideFrom, wideTo int
	for i, b := range bins {
		from[i], to[i] = show.FormatDuration(b.From), "to "+show.FormatDuration(b.To)
		if b.To == 0 {
			to[i] = "and more"
		}
		wideFrom, wideTo = max(wideFrom, show.Width(from[i])), max(wideTo, show.Width(to[i]))
	}
	room := max(width-wideFrom-wideTo-len(strconv.FormatUint(most, 10))-7, narrowest)
	var b strings.Builder
	b.WriteString(name + "\n")
	for i, bin := range bins {
		b.WriteString("  " + show.PadLeft(from[i], wideFrom) + " " + show.Pad(to[i], wideTo) + "  ")
		if bin.Count > 0 {
			b.WriteString(p.with(green, bar(bin.Count, most, room)) + " ")
		}
		b.WriteString(strconv.FormatUint(bin.Count, 10) + "\n")
	}
	return b.String()
}

// bar is a bar of n where most takes room columns: in eighths of a column, and at
// least one of these.
func bar(n, most uint64, room int) string {
	eighths := max(int(float64(n)/float64(most)*float64(room*8)+0.5), 1)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}
