package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	"github.com/probed/probed/probe"
)

// A ruleFile is rules.yml or alerts.yml.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Record, Alert, Expr, For string
			Labels, Annotations      map[string]string
		}
	}
}

func readRules(t *testing.T, file string) (f ruleFile) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, deployed+file)), &f); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return f
}

// vocabulary is what metrics there are, each with the labels that it has of its own.
type vocabulary map[string][]string

// of a target's series, and of probed's own, beside the metric's own labels.
var (
	targetLabels = []string{"job", "instance", "job_name", "target", "module", "ip"}
	ownLabels    = []string{"job", "instance"}
)

// documented reads docs/metrics.md, which metrics' own test holds against what is
// exported, and adds what is Prometheus's or recorded by our rules.
func documented(t *testing.T) vocabulary {
	t.Helper()
	v := vocabulary{
		"up": ownLabels,
		// Of /probe, by docs/api.md; target is by the relabelling of the example.
		"probe_success":                 append([]string{"target"}, ownLabels...),
		"probed_probe_failure":          append([]string{"target", "reason"}, ownLabels...),
		"process_cpu_seconds_total":     ownLabels,
		"process_resident_memory_bytes": ownLabels,
		"ALERTS":                        append([]string{"alertname", "alertstate", "severity"}, targetLabels...),
	}
	sd := regexp.MustCompile("^\\| `(prometheus_sd_.*)`(?: \\[([^]]*)\\])? \\|")
	row := regexp.MustCompile("^\\| `(probed_[a-z_]+)`(?: \\[([^]]*)\\])? \\| ([a-z]+) \\|")
	of := targetLabels
	for line := range strings.Lines(read(t, "../../docs/metrics.md")) {
		if strings.HasPrefix(line, "## ") {
			of = targetLabels
			if strings.Contains(line, "itself") {
				of = ownLabels
			}
		}
		list := func(s string) []string { return strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(s)) }
		if m := sd.FindStringSubmatch(line); m != nil {
			for _, name := range list(m[1]) {
				v[name] = slices.Concat(ownLabels, list(m[2]))
			}
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		own := list(m[2])
		v[m[1]] = slices.Concat(of, own)
		if m[3] == "histogram" {
			v[m[1]+"_bucket"] = slices.Concat(of, []string{"le"})
			v[m[1]+"_sum"], v[m[1]+"_count"] = of, of
		}
	}
	for _, g := range readRules(t, "rules.yml").Groups {
		for _, r := range g.Rules {
			level, _, _ := strings.Cut(r.Record, ":")
			_, extra, _ := strings.Cut(level, "_")
			of := targetLabels
			if level == "instance" {
				of = ownLabels
			}
			v[r.Record] = slices.Concat(of, strings.Fields(extra))
		}
	}
	return v
}

// values are the values that a label of a metric can have, as the code names them.
func values(metric, label string) (all []string) {
	switch {
	case label == "reason" && strings.Contains(metric, "failures"):
		for r := probe.OK + 1; int(r) < probe.NumReasons; r++ {
			all = append(all, r.String())
		}
	case label == "reason" && metric == "probed_probes_discarded_total":
		for r := probe.NotDiscarded + 1; int(r) < probe.NumDiscardReasons; r++ {
			all = append(all, r.String())
		}
	case label == "answer":
		for a := probe.NoAnswer + 1; int(a) < probe.NumAnswers; a++ {
			all = append(all, a.String())
		}
	case label == "what":
		all = []string{"hops", "mss"} // what the pages name of it
	}
	return all
}

// check reports what an expression names and is not there: metrics, their labels,
// labels' values, and labels in by, on and group_left.
func (v vocabulary) check(e parser.Expr) (wrong []string) {
	say := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	named := make(map[string]bool) // labels of all that is selected
	selectors(e, func(s *parser.VectorSelector, _ []parser.Node) {
		has, ok := v[s.Name]
		if !ok {
			say("no metric %s", s.Name)
			return
		}
		for _, l := range has {
			named[l] = true
		}
		for _, m := range s.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				continue
			}
			if !slices.Contains(has, m.Name) {
				say("%s has no label %s", s.Name, m.Name)
			}
			if known := values(s.Name, m.Name); known != nil {
				for _, value := range strings.Split(m.Value, "|") {
					if !slices.Contains(known, value) {
						say("%s: %s is never %s", s.Name, m.Name, value)
					}
				}
			}
		}
	})
	group := func(list []string) {
		for _, l := range list {
			if !named[l] {
				say("no series has a label %s", l)
			}
		}
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.AggregateExpr:
			group(n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				group(n.VectorMatching.MatchingLabels)
				group(n.VectorMatching.Include)
			}
		}
		return nil
	})
	return wrong
}

// TestNames holds every metric and label in the rules, the dashboard and the runbooks
// against docs/metrics.md.
func TestNames(t *testing.T) {
	v := documented(t)
	if len(v) < 60 {
		t.Fatalf("%d metrics in docs/metrics.md", len(v))
	}
	var asked int
	check := func(what, expr string) {
		asked++
		for _, w := range v.check(parse(t, what, expr)) {
			t.Errorf("%s: %s", what, w)
		}
	}
	for _, file := range []string{"rules.yml", "alerts.yml"} {
		for _, g := range readRules(t, file).Groups {
			for _, r := range g.Rules {
				check(r.Record+r.Alert, r.Expr)
			}
		}
	}
	d := readDashboard(t)
	for _, p := range d.asking() {
		for _, q := range p.Targets {
			check(p.Title, d.substitute(t, q.Expr, nil))
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			check(a.Name, d.substitute(t, a.Expr, nil))
		}
	}
	for _, r := range runbooks(t) {
		for _, q := range r.queries {
			check("docs/alerts.md "+r.name, q)
		}
	}
	t.Logf("%d expressions, %d metrics", asked, len(v))
}

// TestNamesAreChecked breaks each check on purpose.
func TestNamesAreChecked(t *testing.T) {
	v := documented(t)
	for expr, want := range map[string]string{
		`rate(probed_probes_totals[5m])`:                                              "no metric probed_probes_totals",
		`probed_probe_success{jobname="x"}`:                                           "probed_probe_success has no label jobname",
		`probed_targets{target="x"}`:                                                  "probed_targets has no label target",
		`rate(probed_probe_failures_total{reason="timed_out"}[5m])`:                   "probed_probe_failures_total: reason is never timed_out",
		`rate(probed_probes_discarded_total{reason="timeout"}[5m])`:                   "probed_probes_discarded_total: reason is never timeout",
		`sum by (reasons) (rate(probed_probe_failures_total[5m]))`:                    "no series has a label reasons",
		`probed_flows_failing / on (tgt) probed_flows`:                                "no series has a label tgt",
		`rate(probed_handshake_rtt_seconds_bucket{le="1"}[5m])`:                       "",
		`target_reason:probed_close_failures_per_probe:ratio_rate30m{reason="reset"}`: "",
	} {
		if got := strings.Join(v.check(parse(t, expr, expr)), "; "); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// TestEveryReasonHasAnAlert looks for a failure that nobody would be told of.
func TestEveryReasonHasAnAlert(t *testing.T) {
	named := make(map[string]bool)
	for _, file := range []string{"rules.yml", "alerts.yml"} {
		for _, g := range readRules(t, file).Groups {
			for _, r := range g.Rules {
				selectors(parse(t, r.Record+r.Alert, r.Expr), func(s *parser.VectorSelector, _ []parser.Node) {
					for _, m := range s.LabelMatchers {
						// What rules.yml keeps apart by reason is for alerts.yml to name.
						if m.Name == "reason" && !strings.HasPrefix(r.Record, "target_reason:") {
							for _, reason := range strings.Split(m.Value, "|") {
								named[reason] = true
							}
						}
					}
				})
			}
		}
	}
	for r := probe.OK + 1; int(r) < probe.NumReasons; r++ {
		if !named[r.String()] {
			t.Errorf("no alert is about %v", r)
		}
	}
}
