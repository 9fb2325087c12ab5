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

// lintExpr holds one question of the dashboard to the linter's rules.
func lintExpr(t *testing.T, d *dashboard, what, text string) {
	t.Helper()
	for name, value := range map[string]string{"job": `job=~"$job"`, "instance": `instance=~"$instance"`} {
		if strings.Count(text, "{") != strings.Count(text, value) {
			t.Errorf("target-%s-rule: %s: %s", name, what, text)
		}
	}
	interval := "$__rate_interval]"
	e := parse(t, what, d.substitute(t, text, nil))
	selectors(e, func(s *parser.VectorSelector, path []parser.Node) {
		var call string
		for _, n := range slices.Backward(path) {
			if c, ok := n.(*parser.Call); ok {
				call = c.Func.Name
				break
			}
		}
		// changes() of a gauge and *_over_time() may look over other times.
		counts := call == "rate" || call == "increase"
		if strings.HasSuffix(s.Name, "_total") && !counts {
			t.Errorf("target-counter-agg-rule: %s: %s", what, s.Name)
		}
		if strings.HasSuffix(s.Name, "_bucket") && !counts {
			t.Errorf("target-histogram-rule: %s: %s", what, s.Name)
		}
	})
	for i := range text {
		if rest := text[i:]; strings.HasPrefix(rest, "rate(") || strings.HasPrefix(rest, "increase(") {
			_, after, _ := strings.Cut(rest, "[")
			if !strings.HasPrefix(after, interval) {
				t.Errorf("target-rate-interval-rule: %s: %s", what, rest)
			}
		}
	}
}
