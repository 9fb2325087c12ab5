package monitoring

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A dashboard is what of Grafana's model is looked at here.
type dashboard struct {
	Title, UID string
	Editable   bool
	Panels     []panel
	Templating struct{ List []variable }
	// Annotations that Prometheus answers have an Expr.
	Annotations struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Links []struct{ Title, URL string }
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	Targets                  []target
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
}

// A target is one question of a panel's.
type target struct {
	RefID, Expr    string
	Instant, Range bool
	Datasource     datasource
}

type variable struct {
	Name, Label, Type, AllValue, Definition string
	Multi, IncludeAll                       bool
	Refresh                                 int
	Datasource                              datasource
	Query                                   any // a data source's is text, a question's an object
}

// question is a variable's expression, "" for a data source's.
func (v *variable) question() string {
	if q, ok := v.Query.(map[string]any); ok {
		return q["query"].(string)
	}
	return ""
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "../../deploy/grafana/probed.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// of lists the panels that ask something.
func (d *dashboard) asking() []panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p panel) bool { return p.Type == "row" })
}

// chosen are values of the dashboard's variables, as in Grafana's URL. One that is
// not named has all.
type chosen map[string][]string

var reference = regexp.MustCompile(`\$(\w+)|\$\{(\w+)(?::\w+)?\}`)

// substitute puts values for variables as Grafana's Prometheus data source does:
// "all" is the variable's own value for it, and others are escaped to stand in a
// regular expression within quotes, several as alternatives.
func (d *dashboard) substitute(t *testing.T, expr string, values chosen) string {
	t.Helper()
	return reference.ReplaceAllStringFunc(expr, func(ref string) string {
		m := reference.FindStringSubmatch(ref)
		name := m[1] + m[2]
		if name == "__rate_interval" {
			return "2s" // four scrapes at least
		}
		i := slices.IndexFunc(d.Templating.List, func(v variable) bool { return v.Name == name })
		if i < 0 {
			t.Fatalf("%s: there is no variable %s", expr, name)
		}
		picked, ok := values[name]
		if !ok {
			return d.Templating.List[i].AllValue
		}
		var escaped []string
		for _, v := range picked {
			escaped = append(escaped, strings.ReplaceAll(regexp.QuoteMeta(v), `\`, `\\`))
		}
		if len(escaped) == 1 {
			return escaped[0]
		}
		return "(" + strings.Join(escaped, "|") + ")"
	})
}

// An exception is a rule that a panel of the dashboard may break.
type exception struct{ rule, panel string }

// exceptions reads deploy/grafana/.lint.
func exceptions(t *testing.T, d *dashboard) map[exception]bool {
	t.Helper()
	var f struct {
		Exclusions map[string]struct {
			Reason  string
			Entries []struct{ Dashboard, Panel string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../../deploy/grafana/.lint")), &f); err != nil {
		t.Fatal(err)
	}
	all := make(map[exception]bool)
	for rule, x := range f.Exclusions {
		for _, e := range x.Entries {
			if e.Dashboard != d.Title || x.Reason == "" {
				t.Errorf("%s: an exception of %q, reason %q", rule, e.Dashboard, x.Reason)
			}
			all[exception{rule, e.Panel}] = true
		}
	}
	return all
}

// TestDashboardLint holds the dashboard to the rules of Grafana's dashboard-linter and
// to ours. That program could not be run here (its module is not served): its rules are
// written here after its documentation. What is excepted has its reason in
// deploy/grafana/.lint, which that program reads too.
func TestDashboardLint(t *testing.T) {
	d := readDashboard(t)
	excepted, needed := exceptions(t, &d), make(map[exception]bool)
	lint := func(q expression) {
		for _, rule := range lintExpr(t, &d, q) {
			if x := (exception{rule, q.panel}); excepted[x] {
				needed[x] = true
			} else {
				t.Errorf("%s: %s: %s", rule, q.panel, q.text)
			}
		}
	}
	if d.Editable {
		t.Error("template-uneditable-rule: what is edited in Grafana is lost with the next version")
	}
	labels := map[string]string{"datasource": "Data source", "job": "Job", "instance": "Instance"}
	for _, v := range d.Templating.List {
		if want, ok := labels[v.Name]; ok && v.Label != want {
			t.Errorf("template-%s-rule: labelled %q, want %q", v.Name, v.Label, want)
		}
		delete(labels, v.Name)
		if v.Type != "query" {
			continue
		}
		if !strings.HasPrefix(v.question(), "label_values(") || v.Definition != v.question() {
			t.Errorf("template-label-promql-rule: %s: %q, %q", v.Name, v.question(), v.Definition)
		}
		if v.Refresh != 2 {
			t.Errorf("template-on-time-change-reload-rule: %s", v.Name)
		}
		if !v.Multi || !v.IncludeAll || v.AllValue != ".+" || v.Datasource.UID != "${datasource}" {
			t.Errorf("template-job-rule, template-instance-rule: %s: %+v", v.Name, v)
		}
	}
	if len(labels) > 0 {
		t.Errorf("template-…-rule: no variables %v", slices.Sorted(maps.Keys(labels)))
	}
	units := []string{"none", "short", "percentunit", "ops", "pps", "s"}
	ids := make(map[int]bool)
	for _, p := range d.asking() {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: panel %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Title == "" || len(p.Description) < 20 {
			t.Errorf("panel-title-description-rule: panel %d: %q: %q", p.ID, p.Title, p.Description)
		}
		if p.Datasource.UID != "${datasource}" {
			t.Errorf("panel-datasource-rule: %s", p.Title)
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel-no-targets-rule: %s", p.Title)
		}
		if p.Type != "heatmap" && !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
			t.Errorf("panel-units-rule: %s: %q", p.Title, p.FieldConfig.Defaults.Unit)
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" || q.Instant == q.Range {
				t.Errorf("%s %s: %+v", p.Title, q.RefID, q)
			}
			lint(expression{p.Title, q.Expr})
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			lint(expression{a.Name, a.Expr})
		}
	}
	for x := range excepted {
		if !needed[x] {
			t.Errorf("%s breaks no %s: the exception is not needed", x.panel, x.rule)
		}
	}
	for _, p := range d.Panels { // in rows of 24, none over another
		if g := p.GridPos; g.W < 1 || g.X+g.W > 24 || g.H < 1 {
			t.Errorf("%s: %+v", p.Title, g)
		}
		for _, o := range d.Panels {
			if a, b := p.GridPos, o.GridPos; o.ID < p.ID && a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over %s", p.Title, o.Title)
			}
		}
	}
}
