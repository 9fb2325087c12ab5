package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// TestChurn adds and removes targets by the thousand while all are probed: who
// stays loses nothing, who goes leaves nothing.
func TestChurn(t *testing.T) { // not beside others, whose times it would disturb
	const (
		stay, come = 2000, 2000 // targets that stay, and those that come with each list and go with the next
		rounds     = 4
		interval   = 2 * time.Second
	)
	h := lab.NewHost(t, "a")
	h.Listen("tcp4", "0.0.0.0:80")
	list := filepath.Join(t.TempDir(), "list.json")
	address := func(k int) string { return fmt.Sprintf("127.%d.%d.%d:80", 1+k>>16, k>>8&0xff, k&0xff) }
	put := func(round, stay, come int) {
		var all []string
		for i := range stay {
			all = append(all, address(i))
		}
		for i := range come {
			all = append(all, address(stay+round*come+i))
		}
		place(t, list, `[{"targets": ["`+strings.Join(all, `", "`)+`"], "labels": {"rack": "a1"}}]`)
	}
	put(0, stay, come)
	p := start(t, h, fmt.Sprintf(`
global: {interval: %v, timeout: 900ms}
modules: {half_open: {buckets: []}}
jobs: [{name: churn, file_sd_configs: [{files: [%q]}]}]
`, interval, list))
	p.http.Timeout = 30 * time.Second
	// await waits until the targets are probed, and then until each was.
	await := func(n int, last string) {
		t.Helper()
		lab.Eventually(t, 20*time.Second, func() error {
			f := p.figures("probed_targets", "probed_probes_total")
			if _, is := f[last]; f["probed_targets"] == float64(n) && (is || n == 0) {
				return nil
			}
			time.Sleep(200 * time.Millisecond)
			return fmt.Errorf("%v targets, want %d\n%s", f["probed_targets"], n, p.said())
		})
		time.Sleep(interval + 500*time.Millisecond) // the last ones are handed to the engine just then
	}
	await(stay+come, address(stay+come-1))
	began, first := time.Now(), p.figures("probed_probes_total")
	before, heap, routines := first, 0.0, 0.0
	for round := 1; round <= rounds; round++ {
		put(round, stay, come)
		await(stay+come, address(stay+(round+1)*come-1))
		now := p.figures("probed_probes_total")
		kept := 0
		for target, n := range now {
			was, known := before[target]
			if known {
				kept++
			}
			if n < was || n == 0 {
				t.Fatalf("list %d: %s had %v probes and has %v", round, target, was, n)
			}
		}
		if len(now) != stay+come || kept != stay {
			t.Errorf("list %d: %d targets have series, %d of them of before", round, len(now), kept)
		}
		before = now
		if round == rounds/2 || round == rounds {
			f := p.collected()
			h, r := f["go_memstats_heap_alloc_bytes"]/(1<<20), f["go_goroutines"]
			t.Logf("list %d: %.1f MiB of heap, %.0f goroutines, %.0f conversations", round, h, r, f["probed_conversations"])
			if heap > 0 && (h > heap*1.1+4 || r > routines+10) {
				t.Errorf("it was %.1f MiB of heap and %.0f goroutines after list %d", heap, routines, rounds/2)
			}
			heap, routines = h, r
		}
	}
	last, took := p.figures("probed_probes_total"), time.Since(began)
	least := took.Seconds()/interval.Seconds() - 1.5
	for i := range stay {
		if n := last[address(i)] - first[address(i)]; n < least {
			t.Fatalf("%s: %v probes in %v", address(i), n, took)
		}
	}
	s := p.scrape()
	if skipped := s.reasons("probed_probes_skipped_total", nil); len(skipped) > 0 {
		t.Errorf("skipped: %v", skipped)
	}
	if n := s.sum("probed_probe_failures_total", nil) + s.sum("probed_probes_discarded_total", nil); n > 0 {
		t.Errorf("%v probes failed or were discarded", n)
	}
	t.Logf("%.0f s, schedule delay: %s", took.Seconds(), delays(s))

	// All go, and nothing stays.
	place(t, list, "[]")
	await(0, "")
	lab.Eventually(t, 10*time.Second, func() error {
		f := p.collected()
		if n, heap := f["probed_conversations"], f["go_memstats_heap_alloc_bytes"]/(1<<20); n > 0 || heap > heapOfNone {
			return fmt.Errorf("%v conversations and %.1f MiB of heap of no targets", n, heap)
		}
		return nil
	})
	f := p.collected()
	t.Logf("no targets: %.1f MiB of heap, %.0f goroutines", f["go_memstats_heap_alloc_bytes"]/(1<<20), f["go_goroutines"])
	if n := len(p.scrape()["probed_probes_total"].GetMetric()); n > 0 {
		t.Errorf("%d series of targets that are gone", n)
	}
}

// heapOfNone is how many MiB a daemon may still have that has probed thousands of
// targets and has none: peers are remembered for two minutes.
const heapOfNone = 32

// figures reads metrics off /metrics, much faster than scrape where there are
// thousands: by the label target, or by name where there is none.
func (p *process) figures(names ...string) map[string]float64 {
	p.t.Helper()
	_, body := p.do(http.MethodGet, "/metrics")
	found := make(map[string]float64)
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		name, labels, _ := strings.Cut(series, "{")
		if !slices.Contains(names, name) {
			continue
		}
		if _, after, is := strings.Cut(labels, `target="`); is {
			name, _, _ = strings.Cut(after, `"`)
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		found[name] = v
	}
	return found
}

// collected are figures after two collections of garbage.
func (p *process) collected() map[string]float64 {
	p.t.Helper()
	for range 2 {
		if code, _ := p.do(http.MethodGet, "/debug/pprof/heap?gc=1"); code != 200 {
			p.t.Fatalf("/debug/pprof/heap: %d", code)
		}
	}
	return p.figures("go_memstats_heap_alloc_bytes", "go_goroutines", "probed_conversations")
}

// delays writes how many probes went later than some times after they were due.
func delays(s scrape) string {
	m := s["probed_schedule_delay_seconds"].GetMetric()[0].GetHistogram()
	text := fmt.Sprintf("%d probes", m.GetSampleCount())
	for _, b := range m.GetBucket() {
		if late := m.GetSampleCount() - b.GetCumulativeCount(); late > 0 {
			text += fmt.Sprintf(", %d above %v", late, time.Duration(b.GetUpperBound()*1e9))
		}
	}
	return text
}
