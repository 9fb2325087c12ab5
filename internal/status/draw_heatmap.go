package status

import (
	"fmt"
	"html/template"
	"math"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

const (
	heatColumns = 72
	heatRows    = 18
	heatHigh    = 150.0 // of the plot
	heatTop     = 8.0
	heatStrip   = 15.0 // a line of failures below it
	heatLeft    = 62.0 // at least; the names of what failed may need more
)

// A heat is what there is to draw of the remembered probes: how many round trips
// were in each cell of time and latency, and how many probes failed in each column.
type heat struct {
	from, to time.Time
	axis     logAxis
	cells    [heatColumns][heatRows]int
	most     int
	failed   map[probe.Reason]*[heatColumns]int
	ours     map[probe.DiscardReason]*[heatColumns]int
	left     float64 // where the plot begins
}

// heatmapSVG draws latency over time. Below it a line for every reason for which
// probes failed, and, hatched, one for every reason for which they have no verdict:
// those were ours.
func heatmapSVG(samples []recorder.Sample) template.HTML {
	return bothWidths(drawHeatmap(samples, frame{"w", 740}).picture(), drawHeatmap(samples, narrowFrame()).picture())
}

// drawHeatmap returns nil if there is nothing to draw.
func drawHeatmap(samples []recorder.Sample, f frame) *chart {
	if len(samples) == 0 {
		return nil
	}
	h := newHeat(samples)
	c := chart{frame: f, name: "heatmap", title: "Latency over time", text: heatText(samples, h)}
	c.put(`<defs><pattern id="heat-hatch-`, c.id, `" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="5" class="heat-hatch"/></pattern></defs>`)
	step := (c.wide - chartRight - h.left) / heatColumns
	bottom := heatTop + heatHigh
	c.rect(h.left, heatTop, c.wide-chartRight-h.left, heatHigh, "heat-ground")
	for _, t := range h.axis.ticks(18) {
		c.line(h.left-4, t.at, h.left, t.at, "chart-axis")
		c.line(h.left, t.at, c.wide-chartRight, t.at, "chart-grid")
		c.write(label{x: h.left - 8, y: t.at + 4, anchor: fromRight, size: chartText, class: "chart-tick", text: t.text})
	}
	high := heatHigh / heatRows
	for x := range h.cells {
		for y, n := range h.cells[x] {
			if n == 0 {
				continue
			}
			c.put(`<g><title>`)
			c.escape(fmt.Sprintf("%s: %d about %s", h.when(x), n, show.FormatDuration(h.latency(y))))
			c.put("</title>")
			c.rect(h.left+float64(x)*step+0.4, bottom-float64(y+1)*high+0.4, step-0.8, high-0.8, "heat-cell "+heatLevel(n, h.most))
			c.put("</g>")
		}
	}
	y := bottom + 6
	for r := range probe.Reason(probe.NumReasons) {
		if n := h.failed[r]; n != nil {
			y = c.heatStrip(h, r.String(), "heat-failed", n, y, step)
		}
	}
	for d := range probe.DiscardReason(probe.NumDiscardReasons) {
		if n := h.ours[d]; n != nil {
			y = c.heatStrip(h, oursName(d), "heat-ours", n, y, step)
		}
	}
	c.timeAxis(h, y+3)
	c.high = y + 26
	return &c
}

func newHeat(samples []recorder.Sample) *heat {
	h := &heat{failed: make(map[probe.Reason]*[heatColumns]int), ours: make(map[probe.DiscardReason]*[heatColumns]int)}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	low, high := float32(math.Inf(1)), float32(0)
	for i := range samples {
		s := &samples[i]
		first, last = min(first, s.At), max(last, s.At)
		if s.RTT > 0 {
			low, high = min(low, s.RTT), max(high, s.RTT)
		}
	}
	if high == 0 {
		low, high = 1e-3, 1
	}
	h.from, h.to = time.Unix(0, first).UTC(), time.Unix(0, last).UTC()
	h.axis = newLogAxis(durationOf(float64(low)*0.9), durationOf(float64(high)*1.1), heatTop+heatHigh, heatTop)
	for i := range samples {
		s := &samples[i]
		x := int(float64(s.At-first) / float64(max(last-first, 1)) * heatColumns)
		h.take(s, min(x, heatColumns-1))
	}
	h.left = heatLeft
	for r := range h.failed {
		h.left = max(h.left, textWidth(r.String(), chartText)+12)
	}
	for d := range h.ours {
		h.left = max(h.left, textWidth(oursName(d), chartText)+12)
	}
	return h
}

// take books a sample in a column. One with a round trip and a failure is in both
// places.
func (h *heat) take(s *recorder.Sample, x int) {
	if s.RTT > 0 {
		share := (heatTop + heatHigh - h.axis.at(durationOf(float64(s.RTT)))) / heatHigh
		y := min(max(int(share*heatRows), 0), heatRows-1)
		h.cells[x][y]++
		h.most = max(h.most, h.cells[x][y])
	}
	switch {
	case s.Discard != 0:
		if h.ours[s.Discard] == nil {
			h.ours[s.Discard] = new([heatColumns]int)
		}
		h.ours[s.Discard][x]++
	case s.Failed():
		if h.failed[s.Reason] == nil {
			h.failed[s.Reason] = new([heatColumns]int)
		}
		h.failed[s.Reason][x]++
	}
}

// oursName is what a line of discarded probes is called.
func oursName(d probe.DiscardReason) string { return "ours: " + d.String() }

// when is a column's beginning.
func (h *heat) when(x int) string {
	return h.from.Add(h.to.Sub(h.from) * time.Duration(x) / heatColumns).Format("15:04:05")
}

// latency is a row's middle.
func (h *heat) latency(y int) time.Duration {
	ratio := float64(h.axis.high) / float64(h.axis.low)
	return time.Duration(float64(h.axis.low) * math.Pow(ratio, (float64(y)+0.5)/heatRows))
}

// heatLevel is one of five shades.
func heatLevel(n, most int) string {
	level := 5
	if most > 1 {
		level = 1 + int(4*math.Log(float64(n))/math.Log(float64(most))+0.5)
	}
	return fmt.Sprintf("heat-%d", min(max(level, 1), 5))
}

// heatStrip draws the columns in which probes ended for a reason.
func (c *chart) heatStrip(h *heat, name, class string, n *[heatColumns]int, y, step float64) float64 {
	c.write(label{x: h.left - 8, y: y + 10, anchor: fromRight, size: chartText, class: "heat-name " + class, text: name})
	c.rect(h.left, y, c.wide-chartRight-h.left, heatStrip-3, "heat-ground")
	for x, count := range n {
		if count == 0 {
			continue
		}
		c.put(`<g><title>`)
		c.escape(fmt.Sprintf("%s: %d %s", h.when(x), count, name))
		c.put("</title>")
		c.put(`<rect x="`, h.left+float64(x)*step+0.4, `" y="`, y, `" width="`, step-0.8, `" height="`, heatStrip-3, `" class="`, class, `"`)
		if class == "heat-ours" {
			c.put(` fill="url(#heat-hatch-`, c.id, `)"`)
		}
		c.put("/>")
		c.put("</g>")
	}
	return y + heatStrip
}

// timeAxis writes when the picture begins and ends, and its middle.
func (c *chart) timeAxis(h *heat, y float64) {
	wide := c.wide - chartRight - h.left
	for _, t := range [...]struct {
		share float64
		a     anchor
	}{{0, fromLeft}, {0.5, centred}, {1, fromRight}} {
		if h.to.Sub(h.from) < 3*time.Second && t.share > 0 {
			break // they would all be the same
		}
		at := h.from.Add(time.Duration(float64(h.to.Sub(h.from)) * t.share))
		text := at.Format("15:04:05")
		if h.to.Sub(h.from) > 20*time.Hour {
			text = at.Format("2006-01-02 15:04")
		}
		c.line(h.left+t.share*wide, y-1, h.left+t.share*wide, y+3, "chart-axis")
		c.write(label{x: h.left + t.share*wide, y: y + 15, anchor: t.a, size: chartText, class: "chart-tick", text: text})
	}
}

// heatText is the picture in words.
func heatText(samples []recorder.Sample, h *heat) string {
	return fmt.Sprintf("%s, from %s to %s UTC.", sparkTitle(samples), h.from.Format(time.DateTime), h.to.Format(time.DateTime))
}
