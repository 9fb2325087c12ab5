package monitoring

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A series is one of a range query's answer.
type series struct {
	Metric     map[string]string
	Values     [][2]any
	Histograms []any
}

// over asks for an expression's values over the last minute, as a graph does.
func (p *prometheus) over(expr string) error {
	now := time.Now()
	var data struct{ Result []series }
	err := p.api("query_range", url.Values{
		"query": {expr}, "step": {"1"},
		"start": {strconv.FormatInt(now.Add(-time.Minute).Unix(), 10)}, "end": {strconv.FormatInt(now.Unix(), 10)},
	}, &data)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, expr, err)
	}
	for _, s := range data.Result {
		if len(s.Histograms) > 0 {
			return nil
		}
		for _, v := range s.Values {
			if f, err := strconv.ParseFloat(v[1].(string), 64); err == nil && !math.IsNaN(f) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: no data: %s", p.name, expr)
}

// ask asks one question of a panel as Grafana would.
func (p *prometheus) ask(q *target, expr string) error {
	if q.Instant {
		return p.has(expr)
	}
	return p.over(expr)
}

// labelValues asks for a variable's values.
func (p *prometheus) labelValues(question string) (values []string, err error) {
	inside := strings.TrimSuffix(strings.TrimPrefix(question, "label_values("), ")")
	comma := strings.LastIndex(inside, ",")
	match, label := inside[:comma], strings.TrimSpace(inside[comma+1:])
	err = p.api("label/"+label+"/values", url.Values{"match[]": {match}}, &values)
	return values, err
}

// answered asks a panel's questions as Grafana would, and returns the errors of those
// that have no answer, by question.
func (p *prometheus) answered(t *testing.T, d *dashboard, panel *panel, values chosen) map[string]error {
	t.Helper()
	without := make(map[string]error)
	for _, q := range panel.Targets {
		if err := p.ask(&q, d.substitute(t, q.Expr, values)); err != nil {
			without[q.RefID] = err
		}
	}
	return without
}

// answerDashboard asks all that Grafana would ask. Every question has an answer from
// one server at least (native histograms and classic ones are two questions of the
// heat map), and every panel has one from both; so have the panels of a target when
// one is chosen.
func answerDashboard(t *testing.T, w *world, servers []*prometheus) {
	d := readDashboard(t)
	for _, p := range servers {
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			if values, err := p.labelValues(d.substitute(t, v.question(), nil)); err != nil || len(values) == 0 {
				t.Errorf("%s: variable %s: %v, %v", p.name, v.Name, values, err)
			}
		}
		for _, a := range d.Annotations.List {
			if a.Expr != "" {
				if err := p.over(d.substitute(t, a.Expr, nil)); err != nil {
					t.Errorf("annotation %s: %v", a.Name, err)
				}
			}
		}
	}
	one := chosen{"job": {"probed"}, "instance": {"127.0.0.1:10965"}, "job_name": {"edge", "web"}, "target": {w.at(healthy)}}
	ofOne := []string{"Handshake", "Handshake, all of it", "Peers", "The peer or the path changed", "Whole teardown"}
	var questions int
	for _, panel := range d.asking() {
		questions += len(panel.Targets)
		nowhere := make(map[string]int)
		for _, p := range servers {
			without := p.answered(t, &d, &panel, nil)
			if len(without) == len(panel.Targets) {
				t.Errorf("%s: %v", panel.Title, without)
			}
			for ref := range without {
				nowhere[ref]++
			}
			if slices.Contains(ofOne, panel.Title) {
				if without := p.answered(t, &d, &panel, one); len(without) == len(panel.Targets) {
					t.Errorf("%s of one target: %v", panel.Title, without)
				}
			}
		}
		for ref, n := range nowhere {
			if n == len(servers) {
				t.Errorf("%s %s: no answer from any server", panel.Title, ref)
			}
		}
	}
	t.Logf("%d questions of %d panels have answers", questions, len(d.asking()))
}
