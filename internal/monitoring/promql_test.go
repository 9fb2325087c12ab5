package monitoring

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// parse parses an expression as a current Prometheus does. (Debian's, of version 2.42,
// loads the rules in TestLive.)
func parse(t *testing.T, what, expr string) parser.Expr {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, expr)
	}
	return e
}

// selectors lists the series that an expression asks for, each with what it stands in.
func selectors(e parser.Expr, visit func(s *parser.VectorSelector, path []parser.Node)) {
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			visit(s, path)
		}
		return nil
	})
}

// An expression is what asks: a panel's or an annotation's.
type expression struct{ panel, text string }

// lintExpr returns the linter's rules that one question of the dashboard breaks.
func lintExpr(t *testing.T, d *dashboard, q expression) (broken []string) {
	t.Helper()
	text := q.text
	for name, value := range map[string]string{"job": `job=~"$job"`, "instance": `instance=~"$instance"`} {
		if strings.Count(text, "{") != strings.Count(text, value) {
			broken = append(broken, "target-"+name+"-rule")
		}
	}
	e := parse(t, q.panel, d.substitute(t, text, nil))
	selectors(e, func(s *parser.VectorSelector, path []parser.Node) {
		var calls []string // from the inside
		for _, n := range slices.Backward(path) {
			if c, ok := n.(*parser.Call); ok {
				calls = append(calls, c.Func.Name)
			}
		}
		// changes() of a gauge and *_over_time() may look over other times.
		counts := len(calls) > 0 && (calls[0] == "rate" || calls[0] == "increase")
		if strings.HasSuffix(s.Name, "_total") && !counts {
			broken = append(broken, "target-counter-agg-rule")
		}
		if strings.HasSuffix(s.Name, "_bucket") && (!counts || !slices.Contains(calls, "histogram_quantile")) {
			broken = append(broken, "target-histogram-rule")
		}
	})
	for i := range text {
		if rest := text[i:]; strings.HasPrefix(rest, "rate(") || strings.HasPrefix(rest, "increase(") {
			if _, after, _ := strings.Cut(rest, "["); !strings.HasPrefix(after, "$__rate_interval]") {
				broken = append(broken, "target-rate-interval-rule")
			}
		}
	}
	slices.Sort(broken)
	return slices.Compact(broken)
}

// TestLintExpr breaks each rule on purpose.
func TestLintExpr(t *testing.T) {
	d := readDashboard(t)
	const m = `{job=~"$job",instance=~"$instance"}`
	for text, want := range map[string]string{
		`rate(probed_probes_total` + m + `[$__rate_interval])`:                                                         "",
		`rate(probed_probes_total{job=~"$job"}[$__rate_interval])`:                                                     "target-instance-rule",
		`rate(probed_probes_total{instance=~"$instance"}[$__rate_interval])`:                                           "target-job-rule",
		`rate(probed_probes_total` + m + `[5m])`:                                                                       "target-rate-interval-rule",
		`sum(probed_probes_total` + m + `)`:                                                                            "target-counter-agg-rule",
		`histogram_quantile(0.5, sum by (le) (rate(probed_handshake_rtt_seconds_bucket` + m + `[$__rate_interval])))`:  "",
		`histogram_quantile(0.5, sum by (le) (probed_handshake_rtt_seconds_bucket` + m + `))`:                          "target-histogram-rule",
		`sum by (le) (rate(probed_handshake_rtt_seconds_bucket` + m + `[$__rate_interval]))`:                           "target-histogram-rule",
		`histogram_quantile(0.5, sum by (le) (delta(probed_handshake_rtt_seconds_bucket` + m + `[$__rate_interval])))`: "target-histogram-rule",
	} {
		if got := strings.Join(lintExpr(t, &d, expression{"a test", text}), ", "); got != want {
			t.Errorf("%s breaks %q, want %q", text, got, want)
		}
	}
}
