package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// place writes a file beside its place and renames it into it, as who maintains
// lists of targets should.
func place(t *testing.T, file, text string) {
	t.Helper()
	write(t, file+".new", text)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// awaitTargets waits until these are the target labels that there are.
func (p *process) awaitTargets(want ...string) {
	p.t.Helper()
	slices.Sort(want)
	lab.Eventually(p.t, 10*time.Second, func() error {
		if got := p.scrape().targets(); !slices.Equal(got, want) {
			return fmt.Errorf("targets %q, want %q\n%s", got, want, p.said())
		}
		return nil
	})
}

// awaitRise waits until a metric is above what it was.
func (p *process) awaitRise(name string, was float64) {
	p.t.Helper()
	lab.Eventually(p.t, 10*time.Second, func() error {
		if is := p.scrape().sum(name, nil); is <= was {
			return fmt.Errorf("%s is still %v\n%s", name, is, p.said())
		}
		return nil
	})
}

// keeps checks that the counters of a target have not fallen since, that it is
// still probed, and that no probe was skipped but for a busy machine.
func (p *process) keeps(before scrape, target string) {
	p.t.Helper()
	p.awaitProbes(target, 3)
	now, with := p.scrape(), labels{"target": target}
	for _, name := range []string{"probed_probes_total", "probed_handshake_rtt_seconds"} {
		if was, is := before.sum(name, with), now.sum(name, with); is <= was {
			p.t.Errorf("%s of %s: %v before, %v after", name, target, was, is)
		}
	}
	skipped := now.reasons("probed_probes_skipped_total", nil)
	if delete(skipped, "late"); len(skipped) > 0 {
		p.t.Errorf("skipped: %v", skipped)
	}
}

// gone checks that a target has left no series.
func (s scrape) gone(t *testing.T, target string) {
	t.Helper()
	for name := range s {
		if n := len(s.find(name, labels{"target": target})); n > 0 {
			t.Errorf("%s of %s: %d series, and it is gone", name, target, n)
		}
	}
}

// TestFileDiscovery probes what a file says, through all that can happen to it.
func TestFileDiscovery(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	h.Serve("tcp", "[::]:81", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	dir := t.TempDir()
	list := filepath.Join(dir, "list.yml")
	yaml := func(refresh string) string {
		return `
global: {interval: 20ms, timeout: 10ms}
modules: {closing: {probe: active_close, interval: 50ms, timeout: 1s}}
jobs:
- {name: static, targets: ["127.0.0.9:80"]}
- name: files
  labels: {team: core, env: prod}
  file_sd_configs: [{files: ["` + dir + `/*.yml"], refresh_interval: ` + refresh + `}]
  relabel_configs:
  - {source_labels: [env], regex: dev, action: drop}
  - {source_labels: [__address__], regex: "127.*", action: keep}
  - {source_labels: [env], target_label: environment}
  - {regex: env, action: labeldrop}
  - {source_labels: [__meta_filepath], regex: ".*/(.*)", target_label: file}
`
	}
	const static, one, two, three, four = "127.0.0.9:80", "127.0.0.1:80", "127.0.0.2:81", "127.0.0.3:80", "127.0.0.4:80"
	p, file := reloadable(t, h, yaml("1h"))
	p.awaitTargets(static)
	if n := len(p.scrape().find("probed_discovered_targets", labels{"job_name": "files"})); n != 1 {
		t.Errorf("%d series say that nothing is discovered", n)
	}

	place(t, list, `
- targets: ["`+one+`"]
- targets: ["`+two+`"]
  labels: {__module__: closing, team: edge}
- targets: ["`+three+`", "198.18.0.1:80"]
  labels: {__interval__: 10ms, __timeout__: 5ms}
- targets: ["127.0.0.5:80"]
  labels: {env: dev}
`)
	p.awaitTargets(static, one, two, three)
	s := p.scrape()
	if n := s.sum("probed_discovered_targets", labels{"job_name": "files"}); n != 5 {
		t.Errorf("%v discovered", n)
	}
	common := labels{"job_name": "files", "environment": "prod", "file": "list.yml"}
	for target, want := range map[string]labels{
		one:   {"target": one, "module": "half_open", "team": "core"},
		two:   {"target": two, "module": "closing", "team": "edge"},
		three: {"target": three, "module": "half_open", "team": "core"},
	} {
		maps.Copy(want, common)
		found := s.find("probed_probes_total", labels{"target": target})
		if len(found) != 1 || !maps.Equal(labelsOf(found[0]), want) {
			t.Errorf("labels %v, want %v", found, want)
		}
	}
	p.awaitProbes(one, 10)
	p.awaitProbes(two, 3)
	from, at := p.scrape().sum("probed_probes_total", labels{"target": three}), time.Now()
	p.awaitProbes(three, 60)
	if rate := (p.scrape().sum("probed_probes_total", labels{"target": three}) - from) / time.Since(at).Seconds(); rate < 60 || rate > 120 { // at the job's 20ms: 50
		t.Errorf("%.0f probes/s with __interval__ 10ms", rate)
	}
	if n := p.scrape().sum("probed_teardowns_total", labels{"target": two}); n < 3 {
		t.Errorf("%v teardowns with __module__ closing", n)
	}

	// A broken file: the last good list stays, and the metrics tell.
	before := p.scrape()
	place(t, list, "- targets: [")
	p.awaitRise("prometheus_sd_file_read_errors_total", before.sum("prometheus_sd_file_read_errors_total", nil))
	p.awaitTargets(static, one, two, three)
	p.keeps(before, one)

	// A list in which one stays, one goes, one comes, and some cannot be probed.
	before = p.scrape()
	place(t, list, `
- targets: ["`+one+`", "`+four+`", "127.0.0.6", "127.0.0.7:0", "127.0.0.8:\e[31m"]
- targets: ["`+two+`"]
  labels: {__module__: nothing, team: edge}
`)
	p.awaitTargets(static, one, four)
	p.keeps(before, one)
	p.keeps(before, static)
	p.awaitProbes(four, 3)
	s = p.scrape()
	s.gone(t, two)
	s.gone(t, three)
	if n, of := s.sum("probed_discovered_targets_invalid", labels{"job_name": "files"}), s.sum("probed_discovered_targets", nil); n != 4 || of != 6 {
		t.Errorf("%v of %v discovered targets are invalid", n, of)
	}
	said := p.said()
	if n := strings.Count(said, "discovered targets are not probed"); n != 1 || !strings.Contains(said, "job=files") ||
		!strings.Contains(said, "targets=4 of=6") || strings.Contains(said, "\x1b") {
		t.Errorf("%d complaints:\n%s", n, said)
	}

	// Reloads: a broken one changes nothing, one that changes how it is discovered
	// loses nothing.
	before = p.scrape()
	write(t, file, yaml("soon"))
	if code, _ := p.do("POST", "/-/reload"); code != 500 {
		t.Errorf("a broken reload: %d", code)
	}
	place(t, list, fmt.Sprintf("- targets: [%q, %q, %q]", one, two, four)) // is still looked after
	p.awaitTargets(static, one, two, four)
	write(t, file, yaml("2h"))
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Errorf("reload: %d %s", code, body)
	}
	if n := p.scrape().sum("probed_targets", nil); n != 4 {
		t.Errorf("%v targets just after a reload", n)
	}
	if _, body := p.do("GET", "/config"); !strings.Contains(body, "file_sd_configs") || !strings.Contains(body, "refresh_interval: 2h") {
		t.Errorf("/config:\n%s", body)
	}
	if _, body := p.do("GET", "/api/v1/targets"); !strings.Contains(body, `"`+four+`"`) {
		t.Errorf("/api/v1/targets:\n%s", body)
	}
	place(t, list, fmt.Sprintf("- targets: [%q, %q]", one, two))
	p.awaitTargets(static, one, two)
	p.keeps(before, one)
	promtool(t, discoveredOnly(p))

	// The file goes, and with it its targets; then the job's discovery does.
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	p.awaitTargets(static)
	p.keeps(before, static)
	write(t, file, simpleConfig("20ms", "10ms", static))
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Errorf("reload: %d %s", code, body)
	}
	if s := p.scrape(); len(s["probed_discovered_targets"].GetMetric()) > 0 || len(s["prometheus_sd_discovered_targets"].GetMetric()) > 0 {
		t.Error("a job without discovery has its metrics")
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// discoveredOnly is what /metrics says of discovery in our own words: promtool has
// its quarrel with Prometheus's.
func discoveredOnly(p *process) string {
	p.t.Helper()
	_, body := p.do("GET", "/metrics")
	var b strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "probed_discovered_targets") {
			b.WriteString(line)
		}
	}
	return b.String()
}
