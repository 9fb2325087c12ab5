package status

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
)

// A sparkline's size in user units, and of how many columns it consists: of many
// samples several share one.
const (
	sparkWide    = 128.0
	sparkHigh    = 26.0
	sparkColumns = 64
)

// sparkline draws the remembered round trips, the newest on the right, with a tick
// below for every column in which a probe failed and an open one for those that we
// discarded. Its height is the logarithm of the latency, over at least one decade, so
// that noise does not look like news.
func sparkline(samples []recorder.Sample) template.HTML {
	var c canvas
	n := len(samples)
	each := max(1, (n+sparkColumns-1)/sparkColumns)
	low, high := logRange(samples)
	step := (sparkWide - 2) / sparkColumns
	var points []point
	flush := func() {
		if len(points) == 1 {
			points = append(points, point{points[0].x + step/2, points[0].y})
		}
		if len(points) > 0 {
			c.path("spark-line", points...)
		}
		points = points[:0]
	}
	columns := (n + each - 1) / each
	for i := range columns {
		// The last column is full, so that the newest does not flicker.
		to := n - (columns-1-i)*each
		part := samples[max(0, to-each):to]
		x := sparkWide - 1 - float64(columns-i)*step + step/2
		failed, discarded := 0, 0
		for j := range part {
			switch {
			case part[j].Discard != 0:
				discarded++
			case part[j].Failed():
				failed++
			}
		}
		switch {
		case failed > 0:
			c.rect(x-step/2, sparkHigh-6, step, 6, "spark-failed")
		case discarded > 0:
			c.rect(x-step/2+0.4, sparkHigh-5, step-0.8, 4.6, "spark-ours")
		}
		rtt := medianRTT(part)
		if rtt == 0 {
			flush()
			continue
		}
		share := (math.Log(rtt) - low) / (high - low)
		points = append(points, point{x, 2 + (1-share)*(sparkHigh-10)})
	}
	flush()
	return c.inline("spark", sparkWide, sparkHigh, sparkTitle(samples))
}

// inline returns a picture that is a part of a line of text.
func (c *canvas) inline(class string, w, h float64, title string) template.HTML {
	var s canvas
	s.put(`<svg class="`, class, `" viewBox="0 0 `, w, " ", h, `" width="`, w, `" height="`, h, `" role="img"><title>`)
	s.escape(title)
	s.put("</title>", c.b.String(), "</svg>")
	return template.HTML(s.b.String()) // markup of ours, and a text that escape wrote
}

// sparkTitle is the picture in words.
func sparkTitle(samples []recorder.Sample) string {
	if len(samples) == 0 {
		return "no probes yet"
	}
	failed, discarded := 0, 0
	for i := range samples {
		switch {
		case samples[i].Discard != 0:
			discarded++
		case samples[i].Failed():
			failed++
		}
	}
	text := fmt.Sprintf("last %d probes: %d failed", len(samples), failed)
	if discarded > 0 {
		text += fmt.Sprintf(", %d discarded", discarded)
	}
	if rtt := medianRTT(samples); rtt > 0 {
		text += ", median " + show.FormatDuration(durationOf(rtt))
	}
	return text
}

// medianRTT is that of the samples that have a round trip, 0 if none has.
func medianRTT(samples []recorder.Sample) float64 {
	all := make([]float32, 0, len(samples))
	for i := range samples {
		if samples[i].RTT > 0 {
			all = append(all, samples[i].RTT)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[(len(all)-1)/2])
}

// logRange is the natural logarithm of the least and the greatest round trip, at
// least a factor of ten apart.
func logRange(samples []recorder.Sample) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for i := range samples {
		if rtt := float64(samples[i].RTT); rtt > 0 {
			low, high = min(low, math.Log(rtt)), max(high, math.Log(rtt))
		}
	}
	if math.IsInf(low, 1) {
		return 0, 1
	}
	if missing := math.Ln10 - (high - low); missing > 0 {
		low, high = low-missing/2, high+missing/2
	}
	return low, high
}
