package status

import (
	"html/template"
	"math"
	"time"

	"github.com/probed/probed/internal/show"
)

// durationOf is a number of seconds.
func durationOf(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }

// A frame is what a chart is drawn for: its width in user units, and what tells the
// names in it from those of the same chart in another width.
type frame struct {
	id   string
	wide float64
}

// Every chart is drawn for a window and for a page of a hand's width; the style sheet
// shows one of the two. Scaling one to both would leave a text that nobody can read.
func wideFrame() frame   { return frame{"w", 500} }
func narrowFrame() frame { return frame{"n", 356} }

// A chart is one being drawn.
type chart struct {
	canvas
	frame
	high              float64
	name, title, text string // the last two for screen readers
}

// picture is the whole of it; of nil it is nothing.
func (c *chart) picture() template.HTML {
	if c == nil {
		return ""
	}
	return c.svg(c.name+"-"+c.id, "chart", c.wide, c.high, c.title, c.text)
}

// bothWidths joins the two.
func bothWidths(wide, narrow template.HTML) template.HTML {
	if wide == "" {
		return ""
	}
	return `<div class="wide">` + wide + `</div><div class="narrow">` + narrow + `</div>`
}

// A logAxis maps durations to places, equal ratios to equal lengths.
type logAxis struct {
	low, high time.Duration
	from, to  float64 // where they are
}

// at is where a duration is.
func (a *logAxis) at(d time.Duration) float64 {
	share := math.Log(float64(max(d, 1))/float64(a.low)) / math.Log(float64(a.high)/float64(a.low))
	return a.from + min(max(share, 0), 1)*(a.to-a.from)
}

// newLogAxis covers two durations, widened to at least an octave and to round
// numbers' neighbourhood.
func newLogAxis(low, high time.Duration, from, to float64) logAxis {
	low, high = max(low, 1), max(high, 2)
	for float64(high) < 4*float64(low) {
		low, high = max(1, time.Duration(float64(low)/1.25)), time.Duration(math.Ceil(float64(high)*1.25))
	}
	return logAxis{low, high, from, to}
}

// A tick is a round duration on an axis.
type tick struct {
	d    time.Duration
	at   float64
	text string
}

// ticks returns round durations of the axis, at least apart from each other: 1, 2 and
// 5 of every power of ten, or powers of ten only if those would be too many.
func (a *logAxis) ticks(apart float64) []tick {
	var best []tick
	for _, digits := range [][]time.Duration{{1, 2, 5}, {1, 3}, {1}} {
		best = best[:0]
		for unit := time.Duration(1); unit <= a.high && unit < time.Duration(math.MaxInt64)/100; unit *= 10 {
			for _, m := range digits {
				if d := unit * m; d >= a.low && d <= a.high {
					best = append(best, tick{d, a.at(d), show.FormatDuration(d)})
				}
			}
		}
		crowded := false
		for i := 1; i < len(best); i++ {
			crowded = crowded || math.Abs(best[i].at-best[i-1].at) < apart
		}
		if !crowded {
			break
		}
	}
	return best
}
