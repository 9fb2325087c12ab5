package metrics

import (
	"bytes"
	"flag"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"github.com/probed/probed/probe"
)

var update = flag.Bool("update", false, "rewrite testdata/*.prom")

// scenario is targets of every kind with different labels: of half_open one
// that is well, one with every kind of trouble, and one that nothing is known
// of yet.
func scenario(t testing.TB) *Metrics {
	m := New(Options{
		Version: "1.2.3", Revision: "abcdef0",
		SkipReasons: []string{"late", "rate_limit"},
		Stats: func() Stats {
			return Stats{Targets: 3, Conversations: 1, SegmentsSent: 12, SegmentsReceived: 7, StampFallbacks: 5, TapDrops: 2, ResolveFailures: 1}
		},
	})
	m.ConfigReload(true, time.UnixMilli(1_800_000_000_250))
	m.ConfigReload(false, time.UnixMilli(1_800_000_100_000))
	m.Discovery([]Discovered{{"edge", 12, 0}, {"say \"B\"", 3, 1}})
	well := mustAdd(t, m, Labels{
		Job: "edge", Target: "198.18.0.10:443", Module: "half_open", Extra: map[string]string{"team": "core"},
	}, TargetOptions{Buckets: usualBuckets})
	for _, rtt := range []time.Duration{900 * time.Microsecond, 1100 * time.Microsecond, 30 * time.Millisecond} {
		for _, o := range answered(rtt) {
			well.Observe(&o)
		}
	}
	trouble := mustAdd(t, m, Labels{
		Job: "database", Target: "db.example.net:5432", Module: "native_only", IP: "2001:db8::1",
		Extra: map[string]string{
			"site": "say \"B\"\\\n", "target": "mine", "exported_target": "mine too", "le": "5", "empty": "", "broken": "a\xffb",
		},
	}, TargetOptions{Flows: 16, Buckets: []float64{}})
	for _, o := range slices.Concat(answered(time.Second), []probe.Observation{
		{Kind: probe.Verdict, Reason: probe.Timeout},
		{Kind: probe.Verdict, Reason: probe.Timeout},
		{Kind: probe.Verdict, Reason: probe.Refused},
		{Kind: probe.Verdict, Reason: probe.NotResolved},
		{Kind: probe.Discarded, Discard: probe.DiscardTapDrop},
		{Kind: probe.Rejected, Reject: probe.RejectBadACK},
		{Kind: probe.SYNACKDuplicate},
		{Kind: probe.SYNACKLate},
		{Kind: probe.PeerSeen, Peer: probe.Fingerprint{TTL: 250, WindowScale: -1, ECN: true, SYNCookies: probe.Yes}},
	}) {
		trouble.Observe(&o)
	}
	mustAdd(t, m, Labels{
		Job: "edge", Target: "[2001:db8::2]:22", Module: "half_open", Extra: map[string]string{"site": "A"},
	}, TargetOptions{Flows: 1, Buckets: []float64{0.01, 0.1}})
	for _, w := range ways {
		target := mustAdd(t, m, Labels{
			Job: "web", Target: "198.18.0.20:80", Module: w.name,
		}, TargetOptions{Kind: w.kind, Measure: w.measure, Buckets: []float64{0.001, 0.1}})
		for _, o := range w.observed() {
			target.Observe(&o)
		}
		target.Observe(&probe.Observation{Kind: probe.Verdict, Reason: probe.Reset})
	}
	m.Skipped("late", 1)
	m.Skipped("send_queue", 1)
	m.ScheduleDelay(40 * time.Microsecond)
	return m
}

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	if err := scenario(t).WriteText(&b); err != nil {
		t.Fatal(err)
	}
	// The Go version is the toolchain's.
	got := regexp.MustCompile(`goversion="[^"]*"`).ReplaceAll(b.Bytes(), []byte(`goversion="go"`))
	golden := filepath.Join("testdata", "scenario.prom")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range gotLines {
			if i >= len(wantLines) || gotLines[i] != wantLines[i] {
				t.Fatalf("line %d\ngot  %s\nwant %s", i+1, gotLines[i], strings.Join(wantLines[min(i, len(wantLines)):][:min(1, len(wantLines)-i)], ""))
			}
		}
		t.Fatal("the exposition is shorter than its golden file")
	}
}

// TestContract says which metrics there are, of which type and with which
// labels beside the target's.
func TestContract(t *testing.T) {
	want := map[string]struct {
		kind   dto.MetricType
		labels string
	}{
		"probed_probes_total":                                 {dto.MetricType_COUNTER, ""},
		"probed_probe_failures_total":                         {dto.MetricType_COUNTER, "reason"},
		"probed_probe_success":                                {dto.MetricType_GAUGE, ""},
		"probed_probes_discarded_total":                       {dto.MetricType_COUNTER, "reason"},
		"probed_replies_rejected_total":                       {dto.MetricType_COUNTER, "reason"},
		"probed_handshake_rtt_seconds":                        {dto.MetricType_HISTOGRAM, ""},
		"probed_synack_duplicates_total":                      {dto.MetricType_COUNTER, ""},
		"probed_synack_late_total":                            {dto.MetricType_COUNTER, ""},
		"probed_peer_hops":                                    {dto.MetricType_GAUGE, ""},
		"probed_peer_mss_bytes":                               {dto.MetricType_GAUGE, ""},
		"probed_peer_info":                                    {dto.MetricType_GAUGE, "window_scale sack timestamps ecn syn_cookies"},
		"probed_peer_changes_total":                           {dto.MetricType_COUNTER, "what"},
		"probed_teardowns_total":                              {dto.MetricType_COUNTER, "form"},
		"probed_fin_ack_rtt_seconds":                          {dto.MetricType_HISTOGRAM, ""},
		"probed_close_wait_seconds":                           {dto.MetricType_HISTOGRAM, ""},
		"probed_peer_close_seconds":                           {dto.MetricType_HISTOGRAM, ""},
		"probed_last_ack_rtt_seconds":                         {dto.MetricType_HISTOGRAM, ""},
		"probed_teardown_seconds":                             {dto.MetricType_HISTOGRAM, ""},
		"probed_half_close_bytes_total":                       {dto.MetricType_COUNTER, ""},
		"probed_fin_retransmits_total":                        {dto.MetricType_COUNTER, "side"},
		"probed_time_wait_reuse_total":                        {dto.MetricType_COUNTER, "answer"},
		"probed_time_wait_reuse_rtt_seconds":                  {dto.MetricType_HISTOGRAM, ""},
		"probed_time_wait_min_seconds":                        {dto.MetricType_GAUGE, ""},
		"probed_time_wait_max_seconds":                        {dto.MetricType_GAUGE, ""},
		"probed_flows":                                        {dto.MetricType_GAUGE, ""},
		"probed_flows_failing":                                {dto.MetricType_GAUGE, ""},
		"probed_build_info":                                   {dto.MetricType_GAUGE, "goversion revision version"},
		"probed_config_last_reload_successful":                {dto.MetricType_GAUGE, ""},
		"probed_config_last_reload_success_timestamp_seconds": {dto.MetricType_GAUGE, ""},
		"probed_discovered_targets":                           {dto.MetricType_GAUGE, "job_name"},
		"probed_discovered_targets_invalid":                   {dto.MetricType_GAUGE, "job_name"},
		"probed_targets":                                      {dto.MetricType_GAUGE, ""},
		"probed_conversations":                                {dto.MetricType_GAUGE, ""},
		"probed_schedule_delay_seconds":                       {dto.MetricType_HISTOGRAM, ""},
		"probed_reaction_seconds":                             {dto.MetricType_HISTOGRAM, ""},
		"probed_probes_skipped_total":                         {dto.MetricType_COUNTER, "reason"},
		"probed_segments_sent_total":                          {dto.MetricType_COUNTER, ""},
		"probed_segments_received_total":                      {dto.MetricType_COUNTER, ""},
		"probed_stamp_fallbacks_total":                        {dto.MetricType_COUNTER, ""},
		"probed_tap_drops_total":                              {dto.MetricType_COUNTER, ""},
		"probed_resolve_failures_total":                       {dto.MetricType_COUNTER, ""},
		"probed_forbidden_addresses":                          {dto.MetricType_GAUGE, ""},
	}
	m := scenario(t)
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	perTarget := map[string]bool{}
	for _, f := range m.families {
		perTarget[f.name] = f.self == nil
	}
	for _, f := range families {
		w, ok := want[f.GetName()]
		if !ok {
			t.Errorf("%s is not in the contract", f.GetName())
			continue
		}
		delete(want, f.GetName())
		if f.GetType() != w.kind {
			t.Errorf("%s is a %v, want %v", f.GetName(), f.GetType(), w.kind)
		}
		for _, unit := range []struct{ suffix, word string }{{"_seconds", "seconds"}, {"_bytes", "bytes"}, {"_total", "Number of"}} {
			if strings.HasSuffix(f.GetName(), unit.suffix) && !strings.Contains(f.GetHelp(), unit.word) {
				t.Errorf("%s: help does not say %q: %s", f.GetName(), unit.word, f.GetHelp())
			}
		}
		if len(f.GetHelp()) < 20 || !strings.HasSuffix(f.GetHelp(), ".") || strings.ContainsAny(f.GetHelp(), "\\\n") {
			t.Errorf("%s: help %q is not a plain sentence", f.GetName(), f.GetHelp())
		}
		for _, metric := range f.Metric {
			var names []string
			for _, l := range metric.Label {
				names = append(names, l.GetName())
			}
			own := names
			if perTarget[f.GetName()] {
				for _, name := range []string{"job_name", "target", "module"} {
					if !slices.Contains(names, name) {
						t.Errorf("%s %v: no label %s", f.GetName(), names, name)
					}
				}
				own = names[len(names)-len(strings.Fields(w.labels)):]
			}
			if strings.Join(own, " ") != w.labels {
				t.Errorf("%s: labels %v, want %q beside the target's", f.GetName(), names, w.labels)
			}
		}
	}
	for name := range want {
		t.Errorf("%s is not exported", name)
	}
}

// A tree gives gathered families to a registry, unchecked, so that the
// registry applies its own checks to each metric.
type tree []*dto.MetricFamily

func (tree) Describe(chan<- *prometheus.Desc) {}

func (t tree) Collect(ch chan<- prometheus.Metric) {
	for _, f := range t {
		for _, m := range f.Metric {
			ch <- leaf{prometheus.NewDesc(f.GetName(), f.GetHelp(), nil, nil), m}
		}
	}
}

type leaf struct {
	desc *prometheus.Desc
	m    *dto.Metric
}

func (l leaf) Desc() *prometheus.Desc { return l.desc }

func (l leaf) Write(m *dto.Metric) error {
	proto.Merge(m, l.m)
	return nil
}

// TestRegistryAccepts puts targets with different labels through
// client_golang's registry: no complaint, and the same families in the same
// order.
func TestRegistryAccepts(t *testing.T) {
	families, err := scenario(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(tree(families))
	checked, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(checked) != len(families) {
		t.Fatalf("%d families, want %d", len(checked), len(families))
	}
	for i, f := range families {
		if checked[i].GetName() != f.GetName() || len(checked[i].Metric) != len(f.Metric) {
			t.Errorf("%s with %d series, want %s with %d", checked[i].GetName(), len(checked[i].Metric), f.GetName(), len(f.Metric))
		}
	}
	if merged, err := (prometheus.Gatherers{registry, prometheus.NewRegistry()}).Gather(); err != nil || len(merged) != len(families) {
		t.Errorf("merged: %d families, %v", len(merged), err)
	}
}

// TestTextSaysWhatProtobufSays parses the text with Prometheus's own library.
func TestTextSaysWhatProtobufSays(t *testing.T) {
	m := scenario(t)
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := m.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed) != len(families) {
		t.Errorf("%d families as text, %d as protobuf", len(parsed), len(families))
	}
	for _, f := range families {
		for _, metric := range f.Metric {
			if h := metric.Histogram; h != nil { // what text can't say, and protobuf leaves to the reader
				h.Schema, h.ZeroThreshold, h.ZeroCount, h.PositiveSpan, h.PositiveDelta = nil, nil, nil, nil, nil
				h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: h.SampleCount, UpperBound: proto.Float64(math.Inf(1))})
			}
		}
		if !proto.Equal(parsed[f.GetName()], f) {
			t.Errorf("as text     %v\nas protobuf %v", parsed[f.GetName()], f)
		}
	}
}

func TestPromtool(t *testing.T) {
	promtool := os.Getenv("PROMTOOL")
	if promtool == "" {
		promtool = "promtool"
	}
	path, err := exec.LookPath(promtool)
	if err != nil {
		t.Fatalf("this test needs promtool, in PATH or named by PROMTOOL: %v", err)
	}
	check := exec.Command(path, "check", "metrics")
	var in bytes.Buffer
	if err := scenario(t).WriteText(&in); err != nil {
		t.Fatal(err)
	}
	check.Stdin = &in
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestRemoveTarget(t *testing.T) {
	m := New(Options{})
	target := mustAdd(t, m, Labels{Target: "a:1"}, TargetOptions{Buckets: usualBuckets})
	if n := len(gathered(t, m, "probed_probes_total").Metric); n != 1 {
		t.Fatalf("%d series, want 1", n)
	}
	m.RemoveTarget(target)
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, metric := range f.Metric {
			for _, l := range metric.Label {
				if l.GetName() == "target" {
					t.Errorf("%s still has %v", f.GetName(), metric)
				}
			}
		}
	}
}

func TestLabelNames(t *testing.T) {
	m := New(Options{})
	for _, name := range []string{"", "1a", "a-b", "a.b", "é", "__meta", "a b"} {
		if _, err := m.AddTarget(Labels{Extra: map[string]string{name: "x"}}, TargetOptions{Buckets: usualBuckets}); err == nil {
			t.Errorf("label name %q is accepted", name)
		}
	}
	for _, name := range []string{"a", "_a1", "A", "instance"} {
		mustAdd(t, m, Labels{Extra: map[string]string{name: "x"}}, TargetOptions{Buckets: usualBuckets})
	}
}

// Labels are the same in protobuf, which is made of the text, escapes and all.
func TestWireLabels(t *testing.T) {
	for _, pairs := range [][]label{
		nil, {{"a", ""}}, {{"a", "b"}, {"c", "d"}}, {{"target", `\"=,`}, {"x", "\n"}}, {{"a", `",b="`}, {"b", `\`}, {"c", `\n`}, {"d", "無\n\""}},
	} {
		var want []byte
		for _, p := range pairs {
			want = appendWireLabel(want, p)
		}
		if got := appendWireLabels(nil, newLabelSet(pairs).text); !bytes.Equal(got, want) {
			t.Errorf("%q: %q, want %q", pairs, got, want)
		}
	}
}

// Whatever is observed while a scrape is written, no target shows more round trips than
// probes.
func TestScrapeOfOneMoment(t *testing.T) {
	m, targets := populated(t, 400)
	for name, write := range map[string]func(io.Writer) error{"text": m.WriteText, "protobuf": m.WriteProtobuf} {
		var out bytes.Buffer
		busy := writerFunc(func(b []byte) (int, error) {
			for _, target := range targets {
				for _, o := range answered(time.Millisecond) {
					target.Observe(&o)
				}
			}
			return out.Write(b)
		})
		if err := write(busy); err != nil {
			t.Fatal(err)
		}
		if name != "text" {
			continue
		}
		counts := make(map[string]float64)
		for line := range strings.Lines(out.String()) {
			series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			series = strings.Replace(series, "probed_handshake_rtt_seconds_count", "rtt", 1)
			series = strings.Replace(series, "probed_probes_total", "probes", 1)
			counts[series], _ = strconv.ParseFloat(value, 64)
		}
		seen := 0.0
		for series, probes := range counts {
			if labels, is := strings.CutPrefix(series, "probes"); is {
				if seen += probes; counts["rtt"+labels] > probes {
					t.Errorf("%v round trips of %v probes: %s", counts["rtt"+labels], probes, labels)
				}
			}
		}
		if seen == 0 {
			t.Error("nothing was observed meanwhile")
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
