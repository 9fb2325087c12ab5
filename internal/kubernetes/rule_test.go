package kubernetes

import (
	"flag"
	"os"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "rewrite the PrometheusRule")

// TestPrometheusRule holds the PrometheusRule against deploy/prometheus: it has the
// same groups, comments included.
func TestPrometheusRule(t *testing.T) {
	const file = manifests + "/components/prometheus-rule/prometheusrule.yaml"
	var b strings.Builder
	b.WriteString(`# Made of deploy/prometheus by ` + "`go test ./internal/kubernetes -run PrometheusRule -update`" + `.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: probed
spec:
  groups:
`)
	for _, from := range []string{"rules.yml", "alerts.yml"} {
		text, err := os.ReadFile("../../deploy/prometheus/" + from)
		if err != nil {
			t.Fatal(err)
		}
		_, groups, found := strings.Cut(string(text), "\ngroups:\n")
		if !found {
			t.Fatalf("%s: no groups", from)
		}
		for line := range strings.Lines(groups) {
			if strings.TrimSpace(line) != "" {
				b.WriteString("  ")
			}
			b.WriteString(line)
		}
	}
	want := b.String()
	if *update {
		write(t, file, want)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what deploy/prometheus makes it: run this test with -update", file)
	}
	// The indentation moved nothing.
	var rule struct{ Spec struct{ Groups []any } }
	if err := yaml.Unmarshal(got, &rule); err != nil {
		t.Fatal(err)
	}
	var all []any
	for _, from := range []string{"rules.yml", "alerts.yml"} {
		text, err := os.ReadFile("../../deploy/prometheus/" + from)
		if err != nil {
			t.Fatal(err)
		}
		var f struct{ Groups []any }
		if err := yaml.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		all = append(all, f.Groups...)
	}
	if a, b := flow(t, rule.Spec.Groups), flow(t, all); a != b {
		t.Error("the groups differ from those of deploy/prometheus")
	}
}

func flow(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
