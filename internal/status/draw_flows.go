package status

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
)

// A flow is what the remembered probes of one source port say.
type flow struct {
	port     uint16
	verdicts int
	failed   int
	p50      float64 // seconds; 0 without a round trip
	loses    bool    // its loss stands out from its siblings'
	slow     bool    // so does its median
}

func (f *flow) loss() float64 { return float64(f.failed) / float64(max(f.verdicts, 1)) }

// A flow stands out by its loss if that of its siblings would hardly ever make as
// many failures: this many standard deviations more than they lead to expect. It
// stands out by its latency if its median is so many times theirs.
const (
	flowDeviations = 4.0
	flowSlower     = 1.5
	flowLeast      = 4 // verdicts, below which nothing is said
)

// flowsOf sorts samples by source port.
func flowsOf(samples []recorder.Sample) []flow {
	byPort := make(map[uint16][]recorder.Sample)
	for _, s := range samples {
		if s.Port != 0 && s.Discard == 0 {
			byPort[s.Port] = append(byPort[s.Port], s)
		}
	}
	flows := make([]flow, 0, len(byPort))
	verdicts, failed := 0, 0
	for port, part := range byPort {
		f := flow{port: port, verdicts: len(part), p50: medianRTT(part)}
		for i := range part {
			if part[i].Failed() {
				f.failed++
			}
		}
		verdicts, failed = verdicts+f.verdicts, failed+f.failed
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b flow) int { return cmp.Compare(a.port, b.port) })
	for i := range flows {
		flows[i].judge(flows, verdicts, failed)
	}
	return flows
}

// judge compares a flow with its siblings, of which all together there were so many
// verdicts and failures.
func (f *flow) judge(all []flow, verdicts, failed int) {
	others := verdicts - f.verdicts
	if f.verdicts < flowLeast || others < flowLeast {
		return
	}
	// One more failure than seen, so that siblings that lost nothing yet are not
	// taken to lose nothing ever.
	p := min(float64(failed-f.failed+1)/float64(others+1), 1)
	n := float64(f.verdicts)
	f.loses = float64(f.failed) > n*p+flowDeviations*math.Sqrt(n*p*(1-p))
	var medians []float64
	for i := range all {
		if all[i].port != f.port && all[i].p50 > 0 {
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
func flowStrip(samples []recorder.Sample) template.HTML {
	return bothWidths(drawFlows(samples, wideFrame()).picture(), drawFlows(samples, narrowFrame()).picture())
}

// drawFlows returns nil if there is nothing to draw.
func drawFlows(samples []recorder.Sample, f frame) *chart {
	flows := flowsOf(samples)
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
		if flows[i].loses || flows[i].slow {
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
	if f.loses || f.slow {
		class += " flow-bold"
	}
	at(flowPort, fromRight, class, fmt.Sprint(f.port))
	c.rect(flowBar, y+1, c.flowWide(), flowRow-7, "heat-ground")
	if f.failed > 0 {
		c.rect(flowBar, y+1, max(2, f.loss()*c.flowWide()), flowRow-7, "flow-loss")
	}
	lossClass := class
	if f.loses {
		lossClass += " flow-loses"
	}
	at(flowBar+c.flowWide()+8, fromLeft, lossClass, fmt.Sprintf("%s of %d", percentText(f.failed, f.verdicts), f.verdicts))
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
