package monitoring

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/probed/probed/internal/lab"
)

// deployed is where what is tested here lies.
const deployed = "../../deploy/prometheus/"

// nobody is a target of Prometheus's where nobody listens.
const nobody = "127.0.0.1:1"

// A prometheus is a Prometheus server that scrapes the probed of its host.
type prometheus struct {
	*server
	name string
}

// startPrometheus runs one with the rules of deploy/prometheus and its scrape
// example, faster. Its data begin with history, in OpenMetrics' text.
func startPrometheus(t *testing.T, h *lab.Host, name, address, history string, args ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []string{"rules.yml", "alerts.yml"} {
		write(t, filepath.Join(dir, file), accelerate(t, read(t, deployed+file)))
	}
	write(t, filepath.Join(dir, "prometheus.yml"), example(t))
	write(t, filepath.Join(dir, "services.yml"), "- targets: ["+net4(h.End(0), healthy)+", "+net4(h.End(0), silent)+"]\n")
	past := filepath.Join(dir, "history.om")
	write(t, past, history)
	data := filepath.Join(dir, "data")
	out, err := exec.CommandContext(t.Context(), tool(t, "promtool"),
		"tsdb", "create-blocks-from", "openmetrics", "--quiet", past, data).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool tsdb create-blocks-from: %v\n%s", err, out)
	}
	args = append(args,
		"--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+data, "--web.listen-address="+address,
		// How long a series without a new sample is taken for current.
		fmt.Sprintf("--query.lookback-delta=%dms", (5*time.Minute/faster).Milliseconds()))
	return &prometheus{start(t, h, address, tool(t, "prometheus"), args...), name}
}

// net4 is a port of the other end of a joint.
func net4(e *lab.End, port int) string {
	peer := e.Addr4.As4()
	peer[3] = 2
	return fmt.Sprintf(`"%d.%d.%d.%d:%d"`, peer[0], peer[1], peer[2], peer[3], port)
}

// example is deploy/prometheus/prometheus.yml for one host of the laboratory: as it
// is but for addresses, files and times.
func example(t *testing.T) string {
	t.Helper()
	text := accelerate(t, read(t, deployed+"prometheus.yml"))
	var c map[string]any
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	jobs := c["scrape_configs"].([]any)
	own, services := jobs[0].(map[string]any), jobs[1].(map[string]any)
	own["static_configs"] = []any{map[string]any{"targets": []string{"127.0.0.1:10965", nobody}}}
	services["file_sd_configs"] = []any{map[string]any{"files": []string{"services.yml"}}}
	// A probe for a scrape takes half a second less than this at most, and three of them
	// must be within five faster minutes.
	services["scrape_interval"], services["scrape_timeout"] = "1200ms", "1200ms"
	relabel := services["relabel_configs"].([]any)
	relabel[len(relabel)-1].(map[string]any)["replacement"] = "127.0.0.1:10965"
	services["params"] = map[string]any{"module": []string{"close"}}
	out, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// A sample is one series of an instant query's answer.
type sample struct {
	Metric    map[string]string
	Value     []any
	Histogram []any
}

// number is a float sample's value.
func (s *sample) number() float64 {
	if len(s.Value) != 2 {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(s.Value[1].(string), 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

// query asks for an expression's value now.
func (p *prometheus) query(expr string) ([]sample, error) {
	var data struct{ Result []sample }
	if err := p.api("query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", p.name, expr, err)
	}
	return data.Result, nil
}

// has reports an error unless an expression gives at least one number, or one
// histogram.
func (p *prometheus) has(expr string) error {
	samples, err := p.query(expr)
	if err != nil {
		return err
	}
	for _, s := range samples {
		if len(s.Histogram) > 0 || !math.IsNaN(s.number()) {
			return nil
		}
	}
	return fmt.Errorf("%s: no data: %s", p.name, expr)
}

// A rule is what Prometheus says of one.
type rule struct {
	Name, Type, Query, Health, LastError, State string
}

// rules lists what is loaded.
func (p *prometheus) rules() (all []rule, err error) {
	var data struct {
		Groups []struct{ Rules []rule }
	}
	err = p.api("rules", nil, &data)
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, err
}

// An alert is one that is pending or firing.
type alert struct {
	Labels      map[string]string
	Annotations map[string]string
	State       string
}

// of says which alert it is, and of what.
func (a *alert) of() string {
	of := a.Labels["target"]
	if of == "" {
		of = a.Labels["instance"]
	}
	return a.Labels["alertname"] + " " + strings.TrimSpace(a.Labels["job_name"]+" "+of)
}

// firing lists the alerts that fire, by what they are of.
func (p *prometheus) firing() (map[string]alert, error) {
	var data struct{ Alerts []alert }
	if err := p.api("alerts", nil, &data); err != nil {
		return nil, err
	}
	firing := make(map[string]alert)
	for _, a := range data.Alerts {
		if a.State == "firing" {
			firing[a.of()] = a
		}
	}
	return firing, nil
}

// healthy reports the rules that could not be evaluated.
func (p *prometheus) healthy() error {
	all, err := p.rules()
	for _, r := range all {
		if r.Health != "ok" || r.LastError != "" {
			err = errors.Join(err, fmt.Errorf("%s: %s: %s %s", p.name, r.Name, r.Health, r.LastError))
		}
	}
	return err
}
