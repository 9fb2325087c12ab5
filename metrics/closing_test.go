package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/probed/probed/probe"
)

// A way is a kind of probe that goes past the handshake, with what it
// measures.
type way struct {
	name    string
	kind    probe.Kind
	measure probe.Measure
}

var ways = []way{
	{"active_close", probe.ActiveClose, 0},
	{"passive_close", probe.PassiveClose, 0},
	{"time_wait_reuse", probe.TimeWaitProbe, probe.MeasureReuse},
	{"time_wait_duration", probe.TimeWaitProbe, probe.MeasureDuration},
}

// observed is what one probe that succeeds gives.
func (w way) observed() []probe.Observation {
	all := answered(900 * time.Microsecond)
	verdict := all[len(all)-1]
	all = all[:len(all)-1]
	switch {
	case w.kind == probe.ActiveClose:
		all = append(all, closed(time.Millisecond)[:5]...)
	case w.kind == probe.PassiveClose:
		all = append(all, closed(time.Millisecond)[5:8]...)
	case w.measure == probe.MeasureReuse:
		all = append(append(all, closed(time.Millisecond)[5:8]...), closed(time.Millisecond)[8])
	case w.measure == probe.MeasureDuration:
		all = append(append(all, closed(time.Millisecond)[5:8]...), closed(time.Millisecond)[9])
	}
	return append(all, verdict)
}

// closed is every observation of a closing: the first five are an active
// close's, the next three a passive close's, and the last two TIME-WAIT's.
func closed(d time.Duration) []probe.Observation {
	return []probe.Observation{
		{Kind: probe.FINACKRTT, Duration: d},
		{Kind: probe.CloseWaitTime, Duration: 250 * d},
		{Kind: probe.Teardown, Form: probe.Simultaneous, Duration: 251 * d},
		{Kind: probe.HalfCloseOctets, Octets: 1460},
		{Kind: probe.FINRetransmit, Side: probe.Local},
		{Kind: probe.PeerCloseTime, Duration: 3 * d},
		{Kind: probe.LastACKRTT, Duration: 2 * d},
		{Kind: probe.Teardown, Form: probe.FourWay, Duration: -1},
		{Kind: probe.TimeWaitReuse, Answer: probe.AnswerAccepted, Duration: d},
		{Kind: probe.TimeWaitLasted, Least: 59 * time.Second, Duration: 60500 * time.Millisecond},
	}
}

// TestFamiliesOfKinds gives a target of each kind every observation that there
// is: only the kind's own families are exported, and the series that are there
// from the start are all that there will be, TIME-WAIT's gauges excepted.
func TestFamiliesOfKinds(t *testing.T) {
	const (
		active  = "teardowns_total fin_ack_rtt_seconds close_wait_seconds teardown_seconds half_close_bytes_total fin_retransmits_total"
		passive = "teardowns_total peer_close_seconds last_ack_rtt_seconds teardown_seconds fin_retransmits_total"
		opening = "timeout refused unreachable prohibited challenge_ack bad_synack not_resolved"
		first   = opening + " reset accept_queue_full fin_unacked fin_missing"
		second  = opening + " reset accept_queue_full fin_unacked peer_never_closed"
	)
	for _, c := range []struct {
		kind                    probe.Kind
		measure                 probe.Measure
		families, late, reasons string
	}{
		{0, 0, "", "", opening},
		{probe.HalfOpen, 0, "", "", opening},
		{probe.ActiveClose, 0, active, "", first},
		{probe.PassiveClose, 0, passive, "", second},
		{probe.PassiveClose, probe.MeasureReuse, passive, "", second},
		{probe.TimeWaitProbe, 0, passive, "", second},
		{probe.TimeWaitProbe, probe.MeasureReuse, passive + " time_wait_reuse_total time_wait_reuse_rtt_seconds", "", second},
		{probe.TimeWaitProbe, probe.MeasureDuration, passive, "time_wait_min_seconds time_wait_max_seconds", second},
	} {
		t.Run(fmt.Sprintf("%v %v", c.kind, c.measure), func(t *testing.T) {
			m := New(Options{})
			target := mustAdd(t, m, Labels{}, TargetOptions{Kind: c.kind, Measure: c.measure, Buckets: usualBuckets})
			if got, want := closingFamilies(t, m), words(c.families); !slices.Equal(got, want) {
				t.Errorf("at the start %v\nwant %v", got, want)
			}
			if got, want := valuesOf(gathered(t, m, "probed_probe_failures_total"), "reason"), words(c.reasons); !slices.Equal(got, want) {
				t.Errorf("reasons %v\nwant %v", got, want)
			}
			for _, o := range closed(time.Millisecond) {
				target.Observe(&o)
			}
			if got, want := closingFamilies(t, m), words(c.families+" "+c.late); !slices.Equal(got, want) {
				t.Errorf("in the end %v\nwant %v", got, want)
			}
		})
	}
}

// TestEveryReasonHasAKind keeps canFail complete.
func TestEveryReasonHasAKind(t *testing.T) {
	for r := probe.OK + 1; int(r) < probe.NumReasons; r++ {
		if !CanFail(probe.ActiveClose, r) && !CanFail(probe.PassiveClose, r) {
			t.Errorf("%v: no kind of probe can fail so", r)
		}
	}
	if CanFail(probe.ActiveClose, probe.OK) {
		t.Error("success is no failure")
	}
}

// TestNotKnown counts what has no duration, and leaves it out of the
// histograms.
func TestNotKnown(t *testing.T) {
	m := New(Options{})
	target := mustAdd(t, m, Labels{}, TargetOptions{Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse})
	for _, o := range []probe.Observation{
		{Kind: probe.Teardown, Form: probe.ThreeWay, Duration: -1},
		{Kind: probe.Teardown, Form: probe.FourWay, Duration: time.Second},
		{Kind: probe.TimeWaitReuse, Answer: probe.AnswerSilence, Duration: -1},
		{Kind: probe.TimeWaitReuse, Answer: probe.AnswerChallengeACK, Duration: -1},
		{Kind: probe.TimeWaitReuse, Answer: probe.AnswerAccepted, Duration: 0},
	} {
		target.Observe(&o)
	}
	for _, c := range []struct{ name, label, want string }{
		{"probed_teardowns_total", "form", "four_way:1 three_way:1"},
		{"probed_time_wait_reuse_total", "answer", "accepted:1 challenge_ack:1 reset:0 silence:1"},
	} {
		var got []string
		for _, metric := range gathered(t, m, c.name).Metric {
			got = append(got, fmt.Sprintf("%s:%v", valueOf(metric, c.label), metric.Counter.GetValue()))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %v, want %s", c.name, got, c.want)
		}
	}
	for name, want := range map[string]uint64{"probed_teardown_seconds": 1, "probed_time_wait_reuse_rtt_seconds": 1} {
		if n := gathered(t, m, name).Metric[0].Histogram.GetSampleCount(); n != want {
			t.Errorf("%s has %d observations, want %d", name, n, want)
		}
	}
}

// TestSimultaneousIsNotLost shows a form that the kind should not see.
func TestSimultaneousIsNotLost(t *testing.T) {
	m := New(Options{})
	target := mustAdd(t, m, Labels{}, TargetOptions{Kind: probe.PassiveClose})
	target.Observe(&probe.Observation{Kind: probe.Teardown, Form: probe.Simultaneous, Duration: 1})
	if got := valuesOf(gathered(t, m, "probed_teardowns_total"), "form"); !slices.Contains(got, "simultaneous") {
		t.Errorf("forms %v", got)
	}
}

// TestReconfigureKind keeps the probes and the handshake, and begins the closing
// again when another kind is probed.
func TestReconfigureKind(t *testing.T) {
	m := New(Options{})
	o := TargetOptions{Kind: probe.PassiveClose, Buckets: []float64{1}}
	target := mustAdd(t, m, Labels{}, o)
	probed := func() {
		for _, ob := range append(answered(time.Millisecond), closed(time.Millisecond)...) {
			target.Observe(&ob)
		}
	}
	probed()
	teardowns := func() (n float64) {
		for _, metric := range gathered(t, m, "probed_teardowns_total").Metric {
			n += metric.Counter.GetValue()
		}
		return n
	}
	for _, step := range []struct {
		what   string
		change func(*TargetOptions)
		want   float64 // teardowns; -1 for no such family
		timed  uint64  // of which the duration is known
	}{
		{"nothing", func(*TargetOptions) {}, 2, 1},
		{"a measure that the kind has none of", func(o *TargetOptions) { o.Measure = probe.MeasureReuse }, 2, 1},
		{"the buckets", func(o *TargetOptions) { o.Buckets = []float64{2} }, 2, 0},
		{"the kind", func(o *TargetOptions) { o.Kind = probe.TimeWaitProbe }, 0, 0},
		{"the measure", func(o *TargetOptions) { o.Measure = probe.MeasureDuration }, 0, 0},
		{"no closing", func(o *TargetOptions) { o.Kind = probe.HalfOpen }, -1, 0},
		{"and one again", func(o *TargetOptions) { o.Kind = probe.ActiveClose }, 0, 0},
	} {
		step.change(&o)
		if err := m.Reconfigure(target, o); err != nil {
			t.Fatal(err)
		}
		if n := gathered(t, m, "probed_probes_total").Metric[0].Counter.GetValue(); n == 0 {
			t.Errorf("%s: the probes are forgotten", step.what)
		}
		if step.want < 0 {
			if got := closingFamilies(t, m); len(got) > 0 {
				t.Errorf("%s: %v", step.what, got)
			}
			probed() // of a conversation that began before
			continue
		}
		if n := teardowns(); n != step.want {
			t.Errorf("%s: %v teardowns, want %v", step.what, n, step.want)
		}
		h := gathered(t, m, "probed_teardown_seconds").Metric[0].Histogram
		if n := h.GetSampleCount(); n != step.timed || h.Bucket[0].GetUpperBound() != o.Buckets[0] {
			t.Errorf("%s: %v, want %d observations", step.what, h, step.timed)
		}
		if step.want == 0 {
			probed()
		}
	}
}

// TestMemoryPerKind holds the budget of what a kind adds to half_open's: 0.7
// KiB idle, and 0.6 KiB for each histogram that is warm.
func TestMemoryPerKind(t *testing.T) {
	const n = 200
	add := func(kind probe.Kind, measure probe.Measure) (m *Metrics, idle, warmed int) {
		before := heap()
		m = New(Options{})
		targets := make([]*Target, n)
		for i := range targets {
			targets[i] = mustAdd(t, m, Labels{Target: fmt.Sprintf("198.18.%d.%d:443", i/256, i%256)},
				TargetOptions{Kind: kind, Measure: measure, Buckets: usualBuckets})
		}
		idle = int(heap()-before) / n
		warm(targets)
		return m, idle, int(heap()-before) / n
	}
	base, idleBase, warmBase := add(probe.HalfOpen, 0)
	for _, w := range ways {
		m, idle, warmed := add(w.kind, w.measure)
		histograms := len(intervalsOf(w.kind, w.measure))
		t.Logf("%s: octets per target: %d idle, %d warm; half_open %d and %d", w.name, idle, warmed, idleBase, warmBase)
		if idle-idleBase > 716 || warmed-warmBase > 716+614*histograms {
			t.Errorf("%s: octets per target: %d idle, %d warm beyond half_open's", w.name, idle-idleBase, warmed-warmBase)
		}
		runtime.KeepAlive(m)
	}
	runtime.KeepAlive(base)
}

// closingFamilies returns the names of the per-target families that are there
// and not half_open's, sorted and without their prefix.
func closingFamilies(t testing.TB, m *Metrics) []string {
	t.Helper()
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, f := range m.families {
		own[f.name] = f.closing != nil
	}
	var names []string
	for _, f := range families {
		if own[f.GetName()] {
			names = append(names, strings.TrimPrefix(f.GetName(), "probed_"))
		}
	}
	return names
}

// words returns the words of s, sorted.
func words(s string) []string {
	w := strings.Fields(s)
	slices.Sort(w)
	return w
}

// valuesOf returns the values of a label, sorted.
func valuesOf(f *dto.MetricFamily, label string) []string {
	seen := map[string]bool{}
	for _, metric := range f.Metric {
		seen[valueOf(metric, label)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func valueOf(metric *dto.Metric, label string) string {
	for _, l := range metric.Label {
		if l.GetName() == label {
			return l.GetValue()
		}
	}
	return ""
}

// textLines counts the series of the text format.
func textLines(t testing.TB, m *Metrics) (n int) {
	t.Helper()
	var b bytes.Buffer
	if err := m.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}
