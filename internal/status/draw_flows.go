package status

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/metrics"
)

// A flow is what is known of one source port: its last verdicts, and the round trips
// that are remembered.
type flow struct {
	metrics.Flow
	p50  float64 // seconds; 0 without a round trip
	slow bool    // its median stands out from its siblings'
}

func (f *flow) loss() float64 { return float64(f.Failed) / float64(max(f.Verdicts, 1)) }

// flowSlower is how many times their siblings' a flow's median must be to stand out.
const flowSlower = 1.5

// flowsOf adds to the flows what the samples say of their round trips.
func flowsOf(known []metrics.Flow, samples []recorder.Sample) []flow {
	byPort := make(map[uint16][]recorder.Sample)
	for _, s := range samples {
		byPort[s.Port] = append(byPort[s.Port], s)
	}
	flows := make([]flow, len(known))
	for i, f := range known {
		flows[i] = flow{Flow: f, p50: medianRTT(byPort[f.Port])}
	}
	for i := range flows {
		flows[i].compare(flows)
	}
	return flows
}

// compare compares a flow's median with its siblings'.
func (f *flow) compare(all []flow) {
	var medians []float64
	for i := range all {
		if all[i].Port != f.Port && all[i].p50 > 0 {
			medians = append(medians, all[i].p50)
		}
	}
	if len(medians) > 0 && f.p50 > 0 {
		slices.Sort(medians)
		f.slow = f.p50 > flowSlower*medians[len(medians)/2]
	}
}

const (
	flowRow  = 19.0
	flowTop  = 26.0
	flowPort = 66.0 // where ports end
	flowBar  = 74.0 // where loss begins
)

// What depends on the width: a full bar's, and between what the dots are.
func (c *chart) flowWide() float64  { return 0.2 * c.wide }
func (c *chart) flowP50() float64   { return 0.2*c.wide + 172 }
func (c *chart) flowRight() float64 { return c.wide - 82 }

// flowStrip draws a line for every source port: what part of its probes failed, and
// its median. Each takes its own path where paths are chosen by a hash. It is empty
// if there is but one.
func flowStrip(flows []flow) template.HTML {
	return bothWidths(drawFlows(flows, wideFrame()).picture(), drawFlows(flows, narrowFrame()).picture())
}

// drawFlows returns nil if there is nothing to draw.
func drawFlows(flows []flow, f frame) *chart {
	if len(flows) < 2 {
		return nil
	}
	c := chart{frame: f, name: "flows", title: "Loss and median of each flow"}
	least, most := math.Inf(1), 0.0
	for i := range flows {
		if flows[i].p50 > 0 {
			least, most = min(least, flows[i].p50), max(most, flows[i].p50)
		}
	}
	if most == 0 {
		least, most = 1e-3, 1
	}
	axis := newLogAxis(durationOf(least), durationOf(most), c.flowP50(), c.flowRight())
	for _, head := range [...]label{
		{x: flowPort, anchor: fromRight, text: "port"}, {x: flowBar, text: "failed"},
		{x: c.flowP50(), text: "median"},
	} {
		head.y, head.size, head.class = 14, chartText, "chart-tick"
		c.write(head)
	}
	standing := 0
	for i := range flows {
		y := flowTop + float64(i)*flowRow
		if flows[i].Failing || flows[i].slow {
			standing++
			c.rect(2, y-2, c.wide-4, flowRow-1, "flow-stands")
			c.write(label{x: 8, y: y + 11, size: chartText + 1, class: "flow-sign", text: "▶"})
		}
		c.flow(&flows[i], &axis, y)
	}
	c.high = flowTop + float64(len(flows))*flowRow + 4
	c.text = fmt.Sprintf("%d source ports, %d of them stand out from their siblings.", len(flows), standing)
	return &c
}

// flow draws one line.
func (c *chart) flow(f *flow, axis *logAxis, y float64) {
	at := func(x float64, a anchor, class, text string) {
		c.write(label{x: x, y: y + 11, anchor: a, size: chartText + 0.5, class: class, text: text})
	}
	class := "flow-text"
	if f.Failing || f.slow {
		class += " flow-bold"
	}
	at(flowPort, fromRight, class, fmt.Sprint(f.Port))
	c.rect(flowBar, y+1, c.flowWide(), flowRow-7, "heat-ground")
	if f.Failed > 0 {
		c.rect(flowBar, y+1, max(2, f.loss()*c.flowWide()), flowRow-7, "flow-loss")
	}
	lossClass := class
	if f.Failing {
		lossClass += " flow-loses"
	}
	at(flowBar+c.flowWide()+8, fromLeft, lossClass, fmt.Sprintf("%s of %d", percentText(f.Failed, f.Verdicts), f.Verdicts))
	if f.p50 == 0 {
		return
	}
	d := durationOf(f.p50)
	x := axis.at(d)
	dot := "flow-dot"
	if f.slow {
		dot += " flow-slow"
	}
	c.line(c.flowP50(), y+7, x, y+7, "flow-stem")
	c.put(`<circle cx="`, x, `" cy="`, y+7, `" r="4.5" class="`, dot, `"/>`)
	at(x+9, fromLeft, class, show.FormatDuration(d))
}

// percentText writes a share, with a digit behind the point where it is small.
func percentText(n, of int) string {
	if of == 0 {
		return "–"
	}
	share := 100 * float64(n) / float64(of)
	if n == 0 || share >= 10 {
		return fmt.Sprintf("%.0f %%", share)
	}
	return fmt.Sprintf("%.1f %%", share)
}
