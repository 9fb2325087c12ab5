package main

import (
	"bufio"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// TestReloadUnderLoad: 10,000 targets are probed once a second while the configuration
// is loaded 100 times in a row, half of them broken. Every good one has 500 targets go
// and 500 come. No probe is skipped, discarded or lost, the counters of those that stay
// only rise, as fast as the clock, and memory does not.
func TestReloadUnderLoad(t *testing.T) {
	const all, moving, rounds = 10_000, 500, 100
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/18")
	b.Listen("tcp4", "0.0.0.0:80")
	list := func(skip int) string { // of all but some
		text := "global: {limits: {packets_per_second: 50000}}\njobs:\n- name: load\n  labels: {team: core}\n  targets:\n"
		addr := netip.MustParseAddr("198.18.64.1")
		for i := range all + moving {
			if i < skip || i >= skip+moving {
				text += "  - " + netip.AddrPortFrom(addr, 80).String() + "\n"
			}
			addr = addr.Next()
		}
		return text
	}
	lists := [2]string{list(0), list(moving)}
	p, file := reloadable(t, a, lists[0])
	time.Sleep(3 * time.Second) // until each has been probed
	before, began := p.probes(), time.Now()

	resident := make([]float64, 0, rounds)
	longest := time.Duration(0)
	kept := make(map[string]float64) // those on both lists
	for target, n := range before {
		if strings.Contains(lists[1], " "+target+"\n") {
			kept[target] = n
		}
	}
	last := maps.Clone(kept)
	for n := range rounds {
		want, text := 200, lists[n/2%2]
		if n%2 == 0 {
			want, text = 500, text[:len(text)-len("- 198.18.64.1:80\n")*3]+"\n  - nowhere\n"
		}
		write(t, file, text)
		asked := time.Now()
		if code, body := p.do("POST", "/-/reload"); code != want {
			t.Fatalf("reload %d: %d %s", n, code, body)
		}
		longest = max(longest, time.Since(asked))
		resident = append(resident, p.residentMiB())
		if n%20 == 19 {
			now := p.probes()
			for target, was := range last {
				if now[target] < was {
					t.Fatalf("%s had %v probes, and now %v", target, was, now[target])
				}
				last[target] = now[target]
			}
		}
	}
	after, took := p.probes(), time.Since(began)

	s := p.scrape()
	if n := s.sum("probed_probes_skipped_total", nil); n != 0 {
		t.Errorf("%v probes were skipped: %v", n, s.reasons("probed_probes_skipped_total", nil))
	}
	if n := s.sum("probed_tap_drops_total", nil); n != 0 {
		t.Errorf("%v frames were dropped", n)
	}
	if n := s.sum("probed_probe_failures_total", nil); n != 0 {
		t.Errorf("%v probes failed: %v", n, s.reasons("probed_probe_failures_total", nil))
	}
	if n := s.sum("probed_probes_discarded_total", nil); n != 0 {
		t.Errorf("%v probes of what stayed were discarded: %v", n, s.reasons("probed_probes_discarded_total", nil))
	}
	least, most := math.Inf(1), 0.0
	for target, was := range kept {
		least, most = min(least, after[target]-was), max(most, after[target]-was)
	}
	// Between two collections of the garbage it rises: what counts is how far.
	early, middle, late := slices.Max(resident[:20]), slices.Max(resident[30:50]), slices.Max(resident[80:])
	t.Logf("%d reloads in %.1f s, the longest took %v; %d targets stayed and had %v to %v probes each; resident at most %.0f MiB in the first 20 reloads, %.0f until the 50th, %.0f in the last",
		rounds, took.Seconds(), longest.Round(time.Millisecond), len(kept), least, most, early, middle, late)
	if len(kept) != all-moving {
		t.Errorf("%d targets stayed", len(kept))
	}
	if seconds := took.Seconds(); least < seconds-2 || most > seconds+2 {
		t.Errorf("in %.1f s a target had %v probes, another %v", seconds, least, most)
	}
	if late > 1.2*middle {
		t.Errorf("memory grows: %.0f MiB resident until the 50th reload, %.0f until the 100th", middle, late)
	}
}

// probes returns how many probes each target has had.
func (p *process) probes() map[string]float64 {
	p.t.Helper()
	answer, err := p.http.Get(p.base + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		p.t.Fatal(answer.Status)
	}
	all := make(map[string]float64)
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		rest, is := strings.CutPrefix(lines.Text(), "probed_probes_total{")
		if !is {
			continue
		}
		_, rest, _ = strings.Cut(rest, `target="`)
		target, rest, _ := strings.Cut(rest, `"`)
		_, value, _ := strings.Cut(rest, "} ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		all[target] = n
	}
	if err := lines.Err(); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// residentMiB is how much memory the process holds.
func (p *process) residentMiB() float64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return pages * float64(os.Getpagesize()) / (1 << 20)
}
