package monitoring

import (
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// run runs a checker on files of deploy/prometheus and fails with what it says.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, program), args...)
	cmd.Dir = deployed
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "FAILED") {
		t.Errorf("%s %v: %v\n%s", program, args, err, out)
	}
}

// TestExamples has Prometheus's and Alertmanager's own programs check the examples.
func TestExamples(t *testing.T) {
	run(t, "promtool", "check", "config", "prometheus.yml")
	run(t, "promtool", "check", "rules", "rules.yml", "alerts.yml")
	run(t, "amtool", "check-config", "alertmanager.yml")
}

// TestAlertCases plays the cases of deploy/prometheus/tests, and sees that each alert
// has one in which it fires and one in which it doesn't.
func TestAlertCases(t *testing.T) {
	files, err := filepath.Glob(deployed + "tests/*_test.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, file := range files {
		var cases struct {
			Tests []struct {
				Alerts []struct {
					Alertname string
					Expected  []any `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, file)), &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases.Tests {
			for _, a := range c.Alerts {
				fires[a.Alertname] = fires[a.Alertname] || len(a.Expected) > 0
				silent[a.Alertname] = silent[a.Alertname] || len(a.Expected) == 0
			}
		}
	}
	for _, g := range readRules(t, "alerts.yml").Groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("%s: it fires in a case: %t; it doesn't in another: %t", r.Alert, fires[r.Alert], silent[r.Alert])
			}
			delete(fires, r.Alert)
		}
	}
	if len(fires) > 0 {
		t.Errorf("cases of no alert: %v", slices.Sorted(maps.Keys(fires)))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			run(t, "promtool", "test", "rules", "tests/"+filepath.Base(file))
		})
	}
}
