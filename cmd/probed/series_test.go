package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// TestSeriesPerTarget counts a target's series at a real /metrics, for every kind, and
// holds docs/scale.md against them.
func TestSeriesPerTarget(t *testing.T) {
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []struct{ name, module string }{
		{"`half_open`", "probe: half_open"},
		{"`half_open`, `flows: 8`", "probe: half_open, flows: 8"},
		{"`active_close`", "probe: active_close"},
		{"`passive_close`", `probe: passive_close, send: "HEAD / HTTP/1.0\r\n\r\n"`},
		{"`time_wait`", `probe: time_wait, send: "HEAD / HTTP/1.0\r\n\r\n", after: 100ms`},
	}
	var config strings.Builder
	config.WriteString("global: {interval: 500ms}\nmodules:\n")
	for i, k := range kinds {
		fmt.Fprintf(&config, "  m%d: {%s}\n  n%d: {%s, buckets: []}\n", i, k.module, i, k.module)
	}
	config.WriteString("jobs:\n")
	for i := range kinds {
		for _, m := range []string{"m", "n"} {
			fmt.Fprintf(&config, "- {name: %s%d, module: %s%d, targets: [\"127.0.0.1:10965\"]}\n", m, i, m, i)
		}
	}
	p := start(t, lab.NewHost(t, "a"), config.String())
	lab.Eventually(t, 20*time.Second, func() error {
		s := p.scrape()
		for i := range kinds {
			for _, m := range []string{"m", "n"} {
				job := labels{"job_name": fmt.Sprint(m, i)}
				if n := s.sum("probed_probe_success", job); n != 1 {
					return fmt.Errorf("%v has not succeeded", job)
				}
			}
		}
		for _, m := range []string{"m4", "n4"} {
			if s.sum("probed_time_wait_reuse_total", labels{"job_name": m}) == 0 {
				return fmt.Errorf("%s has not used a TIME-WAIT again", m)
			}
		}
		return nil
	})
	_, body := p.do("GET", "/metrics")
	for i, k := range kinds {
		classic, buckets, histograms := seriesOf(body, fmt.Sprintf("m%d", i))
		none, _, _ := seriesOf(body, fmt.Sprintf("n%d", i))
		native := classic - buckets - histograms // of each histogram, _sum or _count is left to stand for it
		row := fmt.Sprintf("| %s | %d | %d | %d | %d |", k.name, histograms, classic, none, native)
		if !strings.Contains(string(page), row+"\n") {
			t.Errorf("docs/scale.md has no row %s", row)
		}
	}
}

// TestScaleExamples has promtool check every Prometheus configuration that
// docs/scale.md shows.
func TestScaleExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, part := range strings.Split(string(page), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
		text = strings.ReplaceAll("\n"+text, "\n"+indent, "\n")
		if !strings.Contains(text, "\nscrape_configs:") {
			continue
		}
		seen++
		file := filepath.Join(t.TempDir(), "prometheus.yml")
		write(t, file, strings.ReplaceAll(text, "/etc/prometheus/password", file)) // a file that is there
		args := []string{"check", "config", file}
		if strings.Contains(text, "\nremote_write:") {
			args = []string{"check", "config", "--agent", file}
		}
		program := os.Getenv("PROMTOOL")
		if program == "" {
			program = "promtool"
		}
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s\n%s", err, out, text)
		}
	}
	if seen != 2 {
		t.Errorf("%d examples, expected 2", seen)
	}
}

// seriesOf counts the lines of a job in an exposition, those of them that are buckets,
// and its histograms.
func seriesOf(body, job string) (all, buckets, histograms int) {
	for line := range strings.Lines(body) {
		if !strings.Contains(line, fmt.Sprintf("{job_name=%q,", job)) {
			continue
		}
		name, _, _ := strings.Cut(line, "{")
		all++
		switch {
		case strings.HasSuffix(name, "_bucket"):
			buckets++
		case strings.HasSuffix(name, "_seconds_count"):
			histograms++
		}
	}
	return all, buckets, histograms
}
