package metrics

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/probed/probed/probe"
)

// A row of a table in docs/metrics.md that begins with a name in code.
type row struct {
	name  string
	cells []string // all others, the labels in brackets first
}

// page returns the rows of docs/metrics.md.
func page(t *testing.T) (rows []row) {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	first := regexp.MustCompile("^`([a-z_]+)`(?: \\[(.*)\\])?$")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if m := first.FindStringSubmatch(cells[0]); m != nil && len(cells) > 1 {
			rows = append(rows, row{m[1], append([]string{strings.NewReplacer("`", "", ",", "").Replace(m[2])}, cells[1:]...)})
		}
	}
	return rows
}

// A subject is a kind of probe as the page names it.
type subject struct {
	name string
	way
}

func subjects() []subject {
	return []subject{
		{"half_open", way{}},
		{"active_close", ways[0]},
		{"passive_close", ways[1]},
		{"time_wait reuse", ways[2]},
		{"time_wait duration", ways[3]},
	}
}

// on reports whether the page's list of kinds has s.
func (s subject) on(list string) bool {
	kinds := strings.Split(list, ", ")
	kind, _, _ := strings.Cut(s.name, " ")
	return slices.Contains(kinds, s.name) || slices.Contains(kinds, kind)
}

// measured is Metrics with one target of the kind, which was measured.
func (s subject) measured(t *testing.T, buckets []float64) *Metrics {
	m := New(Options{})
	target := mustAdd(t, m, Labels{Target: "a:1"}, TargetOptions{Kind: s.kind, Measure: s.measure, Buckets: buckets})
	for _, o := range s.observed() {
		target.Observe(&o)
	}
	return m
}

// docs/metrics.md lists every metric, and nothing else, each with its type, its
// labels, and the kinds of probe that have it.
func TestDocumented(t *testing.T) {
	documented := map[string]row{}
	for _, r := range page(t) {
		if strings.HasPrefix(r.name, "probed_") {
			documented[r.name] = r
		}
	}
	families := allFamilies()
	for _, f := range families {
		r, ok := documented[f.name]
		if !ok {
			t.Errorf("%s is not in docs/metrics.md", f.name)
		} else if r.cells[1] != f.kind.String() {
			t.Errorf("%s is a %s, and on the page a %s", f.name, f.kind, r.cells[1])
		}
	}
	for name := range documented {
		if !slices.ContainsFunc(families, func(f family) bool { return f.name == name }) {
			t.Errorf("%s is in docs/metrics.md and not exported", name)
		}
	}
	exported, err := scenario(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range exported {
		labels := documented[f.GetName()].cells[0]
		metric := f.Metric[0]
		for _, name := range words(labels) {
			if valueOf(metric, name) == "" {
				t.Errorf("%s has no label %s", f.GetName(), name)
			}
		}
	}
	for _, s := range subjects() {
		has := closingFamilies(t, s.measured(t, nil))
		for _, f := range families {
			if f.closing == nil {
				continue
			}
			name := strings.TrimPrefix(f.name, "probed_")
			if on := s.on(documented[f.name].cells[2]); on != slices.Contains(has, name) {
				t.Errorf("%s of %s: exported %t, on the page %t", f.name, s.name, !on, on)
			}
		}
	}
}

// TestReasonsDocumented holds the page's table of failure reasons against those
// that are exported from the start.
func TestReasonsDocumented(t *testing.T) {
	documented := map[string]row{}
	for _, r := range page(t) {
		if !strings.HasPrefix(r.name, "probed_") && !strings.HasPrefix(r.name, "prometheus_") && r.name != "reason" {
			documented[r.name] = r
		}
	}
	if len(documented) != probe.NumReasons-1 {
		t.Errorf("%d reasons on the page, want %d", len(documented), probe.NumReasons-1)
	}
	for _, s := range subjects() {
		has := valuesOf(gathered(t, s.measured(t, nil), "probed_probe_failures_total"), "reason")
		for r := probe.OK + 1; int(r) < probe.NumReasons; r++ {
			row, ok := documented[r.String()]
			if !ok {
				t.Errorf("%v is not on the page", r)
				continue
			}
			if on := s.on(row.cells[1]); on != slices.Contains(has, r.String()) {
				t.Errorf("%v of %s: exported %t, on the page %t", r, s.name, !on, on)
			}
		}
	}
}

// TestSeriesDocumented counts a target's series, as the page does.
func TestSeriesDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subjects() {
		with := New(Options{})
		none := textLines(t, with)
		classic := textLines(t, s.measured(t, usualBuckets)) - none
		native := 0
		m := s.measured(t, nil)
		families, err := m.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, metric := range f.Metric {
				if valueOf(metric, "target") != "" {
					native++
				}
			}
		}
		reasons := len(gathered(t, m, "probed_probe_failures_total").Metric)
		want := "| " + strings.Join([]string{
			s.name, strconv.Itoa(classic), strconv.Itoa(native), strconv.Itoa(reasons),
		}, " | ") + " |"
		if !strings.Contains(string(text), want) {
			t.Errorf("not in docs/metrics.md: %s", want)
		}
	}
}
