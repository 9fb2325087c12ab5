package monitoring

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A runbook is an alert's section of docs/alerts.md.
type runbook struct {
	name, text string
	queries    []string // in PromQL
}

func runbooks(t *testing.T) (all []runbook) {
	t.Helper()
	query := regexp.MustCompile("(?s)```promql\n(.*?)```")
	sections := strings.Split(read(t, "../../docs/alerts.md"), "\n## ")
	for _, s := range sections[1:] {
		name, text, _ := strings.Cut(s, "\n")
		r := runbook{name: name, text: text}
		for _, m := range query.FindAllStringSubmatch(text, -1) {
			r.queries = append(r.queries, m[1])
		}
		all = append(all, r)
	}
	return all
}

// TestRunbooks holds docs/alerts.md against the alerts: each has its section, in the
// same order, with every part, and each section its alert.
func TestRunbooks(t *testing.T) {
	var books, alerts []string
	for _, r := range runbooks(t) {
		books = append(books, r.name)
		at := 0
		for _, part := range []string{"**On the wire:**", "**Confirm:**", "**Causes:**", "**Do:**"} {
			i := strings.Index(r.text, part)
			if i < at || strings.Count(r.text, part) != 1 {
				t.Errorf("%s: %s is missing, or not in its place", r.name, part)
			}
			at = max(at, i)
		}
		if len(r.queries) == 0 {
			t.Errorf("%s: no query to confirm it by", r.name)
		}
	}
	severities := []string{"critical", "warning"}
	for _, g := range readRules(t, "alerts.yml").Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			if want := "https://github.com/probed/probed/blob/main/docs/alerts.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("%s: runbook_url %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			for _, a := range []string{"summary", "description"} {
				if text := r.Annotations[a]; text == "" || strings.Contains(text, "\n") {
					t.Errorf("%s: %s: %q", r.Alert, a, text)
				}
			}
			if !slices.Contains(severities, r.Labels["severity"]) || r.For == "" {
				t.Errorf("%s: severity %q, for %q", r.Alert, r.Labels["severity"], r.For)
			}
		}
	}
	if !slices.Equal(books, alerts) {
		t.Errorf("docs/alerts.md has\n%v, alerts.yml\n%v", books, alerts)
	}
	// What links to a section of the page.
	anchors := regexp.MustCompile(`\]\(#([a-z]+)\)`)
	for _, m := range anchors.FindAllStringSubmatch(read(t, "../../docs/alerts.md"), -1) {
		if !slices.ContainsFunc(books, func(b string) bool { return strings.ToLower(b) == m[1] }) {
			t.Errorf("docs/alerts.md links to #%s", m[1])
		}
	}
	// And what the example for Alertmanager names.
	for _, name := range regexp.MustCompile(`Probed[A-Z]\w+`).FindAllString(read(t, deployed+"alertmanager.yml"), -1) {
		if !slices.Contains(alerts, name) {
			t.Errorf("alertmanager.yml names %s", name)
		}
	}
}
