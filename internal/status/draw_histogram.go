package status

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/metrics"
)

// What is around a chart's plot, in user units.
const (
	chartLeft   = 46.0
	chartRight  = 16.0
	chartText   = 11.5
	histoHigh   = 190.0
	histoTop    = 42.0 // for the quantiles' names
	histoBottom = 26.0
)

// histogramSVG draws a native histogram: latency on a logarithmic axis, a bar a
// bucket, and the quantiles that it holds.
func histogramSVG(buckets []metrics.Bucket) template.HTML {
	return bothWidths(drawHistogram(buckets, wideFrame()).picture(), drawHistogram(buckets, narrowFrame()).picture())
}

// drawHistogram returns nil if there is nothing to draw.
func drawHistogram(buckets []metrics.Bucket, f frame) *chart {
	c := chart{frame: f, high: histoHigh, name: "histogram", title: "Handshake round trips since the start"}
	total, most := uint64(0), uint64(0)
	for _, b := range buckets {
		total += b.Count
		most = max(most, b.Count)
	}
	if total == 0 {
		return nil
	}
	low, high := buckets[0].Lower, buckets[len(buckets)-1].Upper
	if low == 0 {
		low = buckets[0].Upper / 2
	}
	axis := newLogAxis(low, high, chartLeft, c.wide-chartRight)
	base := histoHigh - histoBottom
	up := func(n float64) float64 { return base - n/float64(most)*(base-histoTop) }
	for _, n := range counts(most) {
		y := up(float64(n))
		c.line(chartLeft, y, c.wide-chartRight, y, "chart-grid")
		c.write(label{x: chartLeft - 6, y: y + 4, anchor: fromRight, size: chartText, class: "chart-tick", text: countText(n)})
	}
	c.xAxis(&axis, base)
	for _, b := range buckets {
		x0, x1 := axis.at(max(b.Lower, axis.low)), axis.at(b.Upper)
		y := min(up(float64(b.Count)), base-1)
		c.put(`<g class="chart-bar"><title>`)
		c.escape(fmt.Sprintf("%s to %s: %d", show.FormatDuration(b.Lower), show.FormatDuration(b.Upper), b.Count))
		c.put("</title>")
		c.rect(x0+0.3, y, max(x1-x0-0.6, 0.8), base-y, "chart-fill")
		c.put("</g>")
	}
	c.quantileLines(&axis, buckets, base)
	c.text = fmt.Sprintf("%d handshakes.", total)
	for _, q := range [...]float64{0.5, 0.9, 0.99} {
		c.text += fmt.Sprintf(" p%g %s.", q*100, about(quantileOf(buckets, q)))
	}
	return &c
}

// xAxis draws a logarithmic axis of durations below a plot.
func (c *chart) xAxis(a *logAxis, y float64) {
	c.line(a.from, y, a.to, y, "chart-axis")
	for _, t := range a.ticks(58) {
		c.line(t.at, y, t.at, y+4, "chart-axis")
		l := label{x: t.at, y: y + 17, anchor: centred, size: chartText, class: "chart-tick", text: t.text}
		l.x = min(l.x, c.wide-textWidth(l.text, l.size)/2-1)
		c.write(l)
	}
}

// quantileLines marks the median and the high quantiles, their names above each other
// where they are close.
func (c *chart) quantileLines(a *logAxis, buckets []metrics.Bucket, base float64) {
	var placed []label
	for _, q := range [...]float64{0.99, 0.9, 0.5} {
		d := quantileOf(buckets, q)
		x := a.at(d)
		text := fmt.Sprintf("p%g %s", q*100, about(d))
		l := label{x: x + 4, y: histoTop - 4, size: chartText, class: "chart-quantile", text: text}
		if l.x+textWidth(text, l.size) > c.wide-2 {
			l.x, l.anchor = x-4, fromRight
		}
		for slices.ContainsFunc(placed, func(o label) bool { return o.over(&l) }) {
			l.y -= chartText + 1.5
		}
		placed = append(placed, l)
		c.line(x, l.y-8, x, base, "chart-mark")
	}
	for _, l := range placed {
		c.write(l)
	}
}

// quantileOf is a quantile of a native histogram: where in its bucket it is, is
// interpolated as Prometheus does, by the logarithm.
func quantileOf(buckets []metrics.Bucket, q float64) time.Duration {
	total := uint64(0)
	for _, b := range buckets {
		total += b.Count
	}
	rank, seen := q*float64(total), 0.0
	for _, b := range buckets {
		n := float64(b.Count)
		if seen+n >= rank {
			if b.Lower <= 0 {
				return b.Upper
			}
			share := (rank - seen) / n
			return time.Duration(float64(b.Lower) * math.Pow(float64(b.Upper)/float64(b.Lower), share))
		}
		seen += n
	}
	return 0
}

// about writes a duration that a bucket of 9 % says: to two digits.
func about(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 100 {
		unit *= 10
	}
	return "≈ " + show.FormatDuration((d+unit/2)/unit*unit)
}

// counts are round numbers up to most: three at most.
func counts(most uint64) []uint64 {
	step := uint64(1)
	for most/step > 3 {
		switch {
		case most/(step*2) <= 3:
			step *= 2
		case most/(step*5) <= 3:
			step *= 5
		default:
			step *= 10
		}
	}
	var all []uint64
	for n := step; n <= most; n += step {
		all = append(all, n)
	}
	return all
}

// countText writes a round number shortly: 20, 5k, 1M.
func countText(n uint64) string {
	for _, u := range [...]struct {
		size uint64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}
