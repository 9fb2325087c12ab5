package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A scrape is /metrics at one moment.
type scrape map[string]*dto.MetricFamily

// scrape reads /metrics.
func (p *process) scrape() scrape {
	p.t.Helper()
	code, body := p.do("GET", "/metrics")
	if code != 200 {
		p.t.Fatalf("/metrics: %d\n%s", code, body)
	}
	return parseMetrics(p.t, body)
}

func parseMetrics(t *testing.T, body string) scrape {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("/metrics: %v\n%s", err, body)
	}
	return families
}

// labels are a series' or a part of them.
type labels map[string]string

func (l labels) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&b, "%s=%q ", k, l[k])
	}
	return strings.TrimSpace(b.String())
}

func labelsOf(m *dto.Metric) labels {
	l := make(labels)
	for _, p := range m.GetLabel() {
		l[p.GetName()] = p.GetValue()
	}
	return l
}

// find returns the series of a metric that have the labels, among others.
func (s scrape) find(name string, with labels) []*dto.Metric {
	var found []*dto.Metric
	for _, m := range s[name].GetMetric() {
		have := labelsOf(m)
		missing := false
		for k, v := range with {
			missing = missing || have[k] != v
		}
		if !missing {
			found = append(found, m)
		}
	}
	return found
}

// sum adds up the values of the series that have the labels; of a histogram,
// its counts.
func (s scrape) sum(name string, with labels) float64 {
	var sum float64
	for _, m := range s.find(name, with) {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() +
			float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}

// seconds is a histogram's sum.
func (s scrape) seconds(name string, with labels) float64 {
	var sum float64
	for _, m := range s.find(name, with) {
		sum += m.GetHistogram().GetSampleSum()
	}
	return sum
}

// reasons returns the non-zero values of a metric's series by their reason.
func (s scrape) reasons(name string, with labels) map[string]float64 {
	by := make(map[string]float64)
	for _, m := range s.find(name, with) {
		if v := m.GetCounter().GetValue(); v != 0 {
			by[labelsOf(m)["reason"]] += v
		}
	}
	return by
}

// targets returns the target labels that there are.
func (s scrape) targets() []string {
	seen := make(map[string]bool)
	for _, m := range s["probed_probes_total"].GetMetric() {
		seen[labelsOf(m)["target"]] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// about compares a count of some probes with the count of all, which a scrape
// reads a moment later.
func about(some, all float64) bool { return some <= all && all-some <= 2 }

// promtool checks an exposition as Prometheus's own linter does. PROMTOOL names
// the program where it is not on the path.
func promtool(t *testing.T, exposition string) {
	t.Helper()
	program := os.Getenv("PROMTOOL")
	if program == "" {
		program = "promtool"
	}
	cmd := exec.CommandContext(t.Context(), program, "check", "metrics")
	cmd.Stdin = strings.NewReader(exposition)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics (apt-get install prometheus, or set PROMTOOL): %v\n%s", err, out)
	}
}
