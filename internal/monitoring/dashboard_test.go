package monitoring

import (
	"errors"
	"fmt"
	"maps"
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

// dashboard asks everything that Grafana would ask: every question has an answer from
// one server at least, and every panel from both; with one target chosen that has
// everything, its panels have answers too.
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
	var questions int
	for _, panel := range d.asking() {
		answered := make(map[string]bool)
		for _, p := range servers {
			var any bool
			var failed error
			for _, q := range panel.Targets {
				err := p.ask(&q, d.substitute(t, q.Expr, nil))
				failed = errors.Join(failed, err)
				any = any || err == nil
				answered[q.RefID] = answered[q.RefID] || err == nil
			}
			if !any {
				t.Errorf("%s: %v", panel.Title, failed)
			}
		}
		for _, ref := range slices.Sorted(maps.Keys(answered)) {
			questions++
			if !answered[ref] {
				t.Errorf("%s %s: no data in any server", panel.Title, ref)
			}
		}
	}
	t.Logf("%d questions of %d panels have answers", questions, len(d.asking()))

	one := chosen{"job": {"probed"}, "instance": {"127.0.0.1:10965"}, "job_name": {"edge", "web"}, "target": {w.at(healthy)}}
	for _, panel := range d.asking() {
		if !slices.Contains([]string{"Handshake", "Handshake, all of it", "Peers", "The peer or the path changed", "Whole teardown"}, panel.Title) {
			continue
		}
		for _, p := range servers {
			if err := p.ask(&panel.Targets[0], d.substitute(t, panel.Targets[0].Expr, one)); err != nil && panel.Type != "heatmap" {
				t.Errorf("one target: %s: %v", panel.Title, err)
			}
		}
	}
}
