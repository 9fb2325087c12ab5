package status

import (
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
)

// An entry is a target with its figures at one moment: a row of the list. It does
// not change; what is dear is worked out when it is first asked for.
type entry struct {
	target  Target
	folded  string // what free text is looked for in, lower case
	version uint64 // of the recorder
	figures

	ranked   sync.Once
	p50, p99 float64
	drawn    sync.Once
	cells    cells
}

// figures are what a target's remembered probes come to.
type figures struct {
	state               state
	verdicts            int // remembered probes with a verdict
	failed              int // of them
	discarded           int // remembered probes without one
	last                recorder.Sample
	lastFailure         recorder.Sample // however long ago
	everFailed, settled bool            // the two above are there
}

// cells are what a row says, as a page shows it and as the live stream sends it.
type cells struct {
	State     state         `json:"state"`
	Loss      string        `json:"loss"`
	Lossy     bool          `json:"lossy"` // some of the remembered probes failed
	Probes    string        `json:"probes"`
	P50       string        `json:"p50"`
	P99       string        `json:"p99"`
	Reason    string        `json:"reason"`       // of the last failure; empty without
	FailedAt  int64         `json:"failed_at_ms"` // since the Unix epoch; 0 without
	Sparkline template.HTML `json:"sparkline"`
}

// newEntry makes a target's entry. Of a target whose recorder has nothing new it is the
// entry of before.
func newEntry(t *Target, before *entry) *entry {
	version := t.Recorder.Version()
	if before != nil && before.version == version && before.target.same(t) {
		return before
	}
	r := &entry{target: *t, version: version, figures: figuresOf(t.Recorder)}
	if before != nil && before.target.same(t) {
		r.folded = before.folded
	} else {
		r.folded = searchable(t)
	}
	return r
}

// same reports whether two targets are told apart by nothing that a row says.
func (t *Target) same(o *Target) bool {
	return t.ID == o.ID && t.Remote == o.Remote && t.Interval == o.Interval && t.Kind == o.Kind && t.Flows == o.Flows &&
		t.Address == o.Address && t.Recorder == o.Recorder && t.Metrics == o.Metrics && t.OneAtATime == o.OneAtATime
}

// searchable joins what free text may name.
func searchable(t *Target) string {
	parts := []string{t.Address, t.Job, t.Module, t.Kind.String(), t.IP}
	if t.Remote.IsValid() {
		parts = append(parts, t.Remote.String())
	}
	for _, l := range t.Labels {
		parts = append(parts, l.Name+"="+l.Value)
	}
	return strings.ToLower(strings.Join(parts, "\n"))
}

func figuresOf(r *recorder.Recorder) figures {
	n := r.Totals()
	f := figures{state: unknown, verdicts: n.Verdicts, failed: n.Failed, discarded: n.Discarded, last: n.Last}
	if f.settled = n.Verdicts+n.Discarded > 0; f.settled {
		f.state = stateOf(f.last)
	}
	f.lastFailure, f.everFailed = r.LastFailure()
	return f
}

// loss is the part of the remembered verdicts that are failures, NaN without any.
func (f *figures) loss() float64 {
	if f.verdicts == 0 {
		return math.NaN()
	}
	return float64(f.failed) / float64(f.verdicts)
}

// quantiles returns the median and the 99th percentile of the handshake's round
// trip, in seconds; NaN if none is remembered.
func (r *entry) quantiles() (p50, p99 float64) {
	r.ranked.Do(func() { r.p50, r.p99 = quantiles(r.samples()) })
	return r.p50, r.p99
}

// show returns what the row says.
func (r *entry) show() cells {
	r.drawn.Do(func() {
		p50, p99 := r.quantiles()
		r.cells = cells{
			State: r.state, Loss: percent(r.loss()), Lossy: r.failed > 0, Probes: strconv.Itoa(r.verdicts),
			P50: seconds(p50), P99: seconds(p99), Sparkline: sparkline(r.samples()),
		}
		if r.everFailed {
			r.cells.Reason = r.lastFailure.Reason.String()
			r.cells.FailedAt = r.lastFailure.At / int64(time.Millisecond)
		}
	})
	return r.cells
}

// samples reads them once more: to keep them all would be 40 MiB of ten thousand
// targets.
func (r *entry) samples() []recorder.Sample {
	return r.target.Recorder.AppendSamples(make([]recorder.Sample, 0, recorder.MaxSamples))
}

// quantiles are the median and the 99th percentile of the handshakes among the
// samples, each by nearest rank: one that was measured.
func quantiles(samples []recorder.Sample) (p50, p99 float64) {
	rtts := make([]float32, 0, recorder.MaxSamples)
	for i := range samples {
		if rtt := samples[i].RTT; rtt > 0 {
			rtts = append(rtts, rtt)
		}
	}
	if len(rtts) == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(rtts)
	rank := func(p float64) float64 { return float64(rtts[int(math.Ceil(p*float64(len(rtts))))-1]) }
	return rank(0.50), rank(0.99)
}

// seconds formats a duration for a table; empty for NaN. It has four digits, zeros
// at the end included, so that a column of them does not fray.
func seconds(s float64) string {
	if math.IsNaN(s) {
		return ""
	}
	number, unit, _ := strings.Cut(show.FormatDuration(time.Duration(math.Round(s*1e9))), " ")
	if unit == "ns" || len(number) >= len("1.234") {
		return number + " " + unit
	}
	if !strings.Contains(number, ".") && len(number) < 4 {
		number += "."
	}
	return number + strings.Repeat("0", len("1.234")-len(number)) + " " + unit
}

// percent formats a part of 1; empty for NaN. What is neither nothing nor all
// doesn't look like it.
func percent(part float64) string {
	switch {
	case math.IsNaN(part):
		return ""
	case part == 0:
		return "0 %"
	case part == 1:
		return "100 %"
	}
	return strconv.FormatFloat(min(max(part*100, 0.1), 99.9), 'f', 1, 64) + " %"
}

// ago says roughly how long ago something was. The page's script says the same.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h ago"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " d ago"
	}
}
