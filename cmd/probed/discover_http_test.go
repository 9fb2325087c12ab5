package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// An inventory is a web server that says what to probe, or does not.
type inventory struct {
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  int
}

// serveInventory starts one on 127.0.0.1:8080 of a host.
func serveInventory(t *testing.T, h *lab.Host) *inventory {
	t.Helper()
	i := new(inventory)
	var l net.Listener
	var err error
	h.Do(func() { l, err = net.Listen("tcp", "127.0.0.1:8080") })
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: i}
	var done sync.WaitGroup
	done.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		_ = s.Close()
		done.Wait()
	})
	return i
}

func (i *inventory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.asked++
	answer := i.answer
	i.mu.Unlock()
	answer(w, r)
}

// will has it answer so from now on.
func (i *inventory) will(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// list answers with targets.
func list(targets ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `[{"targets": ["%s"], "labels": {"__meta_rack": "a1"}}]`, strings.Join(targets, `", "`))
	}
}

// TestHTTPDiscovery probes what a web server says, which fails in every way and
// recovers.
func TestHTTPDiscovery(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	web := serveInventory(t, h)
	unavailable := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }
	web.will(unavailable)
	const one, two, three = "127.0.0.1:80", "127.0.0.2:80", "[::1]:80"
	p, file := reloadable(t, h, `
global: {interval: 50ms, timeout: 45ms}
jobs:
- name: web
  http_sd_configs: [{url: "http://127.0.0.1:8080/targets?dc=a", refresh_interval: 500ms}]
  relabel_configs: [{source_labels: [__meta_rack], target_label: rack}]
`)
	p.awaitRise("prometheus_sd_http_failures_total", 0)
	p.awaitTargets()
	web.will(list(one, two))
	p.awaitTargets(one, two)
	p.awaitProbes(one, 10)
	if n := len(p.scrape().find("probed_probes_total", labels{"job_name": "web", "rack": "a1"})); n != 2 {
		t.Errorf("%d series have the rack", n)
	}

	before := p.scrape()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	for name, fails := range map[string]http.HandlerFunc{
		"500": unavailable,
		"JSON that is none": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `[{"targets": ["127.0.0.9:80"`)
		},
		"another type": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[]`) },
		"no answer": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-end:
			}
		},
		"an answer that stops": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `[{"targets": [`)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-end:
			}
		},
		"a connection that breaks": func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = c.Close()
			}
		},
	} {
		failures := p.scrape().sum("prometheus_sd_refresh_failures_total", nil)
		web.will(fails)
		p.awaitRise("prometheus_sd_refresh_failures_total", failures+1)
		if got := p.scrape().targets(); len(got) != 2 {
			t.Errorf("%s: targets %v", name, got)
		}
	}
	p.keeps(before, one)

	// A reload to a source that cannot start changes nothing.
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(good), "refresh_interval: 500ms", "refresh_interval: 500ms, tls_config: {ca_file: nowhere.pem}", 1))
	if code, body := p.do("POST", "/-/reload"); code != 500 || !strings.Contains(body, "http_sd_configs") || !strings.Contains(body, "nowhere.pem") {
		t.Errorf("a reload to a certificate that is not there: %d %s", code, body)
	}
	p.keeps(before, one)

	// It recovers, with another list; and an empty list is a list.
	web.will(list(one, three))
	p.awaitTargets(one, three)
	p.keeps(before, one)
	p.awaitProbes(three, 3)
	p.scrape().gone(t, two)
	web.will(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "[]")
	})
	p.awaitTargets()
	web.will(list(two))
	p.awaitTargets(two)
	p.awaitProbes(two, 3)
	if s := p.scrape(); s.sum("probed_probe_failures_total", nil) > 0 {
		t.Errorf("failures: %v", s.reasons("probed_probe_failures_total", nil))
	}
	began := time.Now()
	if code := stop(p); code != 0 || time.Since(began) > 2*time.Second {
		t.Errorf("exit code %d after %v", code, time.Since(began))
	}
}
