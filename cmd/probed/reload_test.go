package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// reloadable starts probed on a configuration file that the test may rewrite.
func reloadable(t *testing.T, h *lab.Host, yaml string, options ...option) (p *process, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "probed.yml")
	write(t, file, yaml)
	p = launchFile(t, h, file, options...)
	p.awaitReady()
	return p, file
}

// probes waits until a target has n more probes than it had.
func (p *process) awaitProbes(target string, n float64) {
	p.t.Helper()
	with := labels{"target": target}
	before := p.scrape().sum("probed_probes_total", with)
	lab.Eventually(p.t, 5*time.Second, func() error {
		if now := p.scrape().sum("probed_probes_total", with); now < before+n {
			return fmt.Errorf("%s: %v probes since", target, now-before)
		}
		return nil
	})
}

func TestReload(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	h.Listen("tcp", "[::]:81")
	one, two, three := "127.0.0.1:80", "[::1]:80", "127.0.0.2:81"
	p, file := reloadable(t, h, simpleConfig("20ms", "10ms", one, two))
	p.awaitProbes(one, 10)
	p.awaitProbes(two, 10)
	first := p.scrape()
	began := first.sum("probed_config_last_reload_success_timestamp_seconds", nil)
	if age := float64(time.Now().UnixMilli())/1e3 - began; age < 0 || age > 30 || first.sum("probed_config_last_reload_successful", nil) != 1 {
		t.Errorf("after the start: reload successful %v, %.1f s ago", first.sum("probed_config_last_reload_successful", nil), age)
	}

	// A broken file changes nothing but the metrics that say so.
	write(t, file, simpleConfig("20ms", "soon", three)+"oops: 1\n")
	code, body := p.do("POST", "/-/reload")
	want := fmt.Sprintf("%[1]s:1:35: global.timeout: \"soon\" is not a duration; allowed: whole numbers with the units w, d, h, m, s, ms, large to small, such as 1m30s\n"+
		"%[1]s:6:1: oops: unknown key; allowed: global, modules, jobs\n", file)
	if code != 500 || body != want {
		t.Errorf("a broken reload: %d\n%swant\n%s", code, body, want)
	}
	s := p.scrape()
	if s.sum("probed_config_last_reload_successful", nil) != 0 || s.sum("probed_config_last_reload_success_timestamp_seconds", nil) != began {
		t.Error("the metrics don't tell of the broken reload")
	}
	if got := s.targets(); !slices.Equal(got, []string{one, two}) {
		t.Errorf("targets after a broken reload: %v", got)
	}
	p.awaitProbes(one, 5)
	p.awaitProbes(two, 5)
	if _, conf := p.do("GET", "/config"); strings.Contains(conf, three) {
		t.Errorf("/config shows the broken one:\n%s", conf)
	}

	// So does one that asks for other source ports.
	write(t, file, "global: {source_ports: 62000-62255}\n"+minimal)
	code, body = p.do("POST", "/-/reload")
	if want := "global.source_ports: 61000-61255 are held until probed ends: restart it to change them\n"; code != 500 || body != want {
		t.Errorf("other source ports: %d\n%swant\n%s", code, body, want)
	}
	// And one that the host cannot serve.
	write(t, file, "modules: {half_open: {interface: eth7}}\n"+minimal)
	code, body = p.do("POST", "/-/reload")
	if want := "modules.half_open: interface: this host has no \"eth7\"; it has lo\n"; code != 500 || body != want {
		t.Errorf("an interface that isn't there: %d\n%swant\n%s", code, body, want)
	}

	// A good one by SIGHUP: one stays, two goes, three comes, all faster.
	before := p.scrape()
	write(t, file, simpleConfig("10ms", "5ms", one, three))
	p.signal(syscall.SIGHUP)
	lab.Eventually(t, 3*time.Second, func() error {
		if s = p.scrape(); s.sum("probed_config_last_reload_successful", nil) != 1 ||
			s.sum("probed_config_last_reload_success_timestamp_seconds", nil) <= began {
			return fmt.Errorf("not reloaded:\n%s", p.said())
		}
		return nil
	})
	if got := p.scrape().targets(); !slices.Equal(got, []string{one, three}) {
		t.Errorf("targets after a reload: %v", got)
	}
	p.awaitProbes(three, 10)
	s = p.scrape()
	for _, name := range []string{"probed_probes_total", "probed_handshake_rtt_seconds"} {
		if was, is := before.sum(name, labels{"target": one}), s.sum(name, labels{"target": one}); is <= was {
			t.Errorf("%s of the target that stayed: %v before, %v after", name, was, is)
		}
		if n := len(s.find(name, labels{"target": two})); n != 0 {
			t.Errorf("%s of the target that went: %d series", name, n)
		}
	}
	if n := s.sum("probed_targets", nil); n != 2 {
		t.Errorf("probed_targets %v", n)
	}
	rate := func() float64 {
		from, at := p.scrape().sum("probed_probes_total", labels{"target": one}), time.Now()
		p.awaitProbes(one, 60)
		return (p.scrape().sum("probed_probes_total", labels{"target": one}) - from) / time.Since(at).Seconds()
	}
	if r := rate(); r < 60 || r > 120 { // it was 50 before, and a busy machine skips some
		t.Errorf("%.0f probes/s after a reload to an interval of 10ms", r)
	}

	// Other buckets: classic ones start again, the other counters go on.
	write(t, file, "modules: {half_open: {buckets: [0.5, 1]}}\n"+simpleConfig("10ms", "5ms", one, three))
	if code, body := p.do("POST", "/-/reload"); code != 200 || body != "configuration reloaded\n" {
		t.Errorf("reload: %d %s", code, body)
	}
	p.awaitProbes(one, 5)
	m := p.scrape().find("probed_handshake_rtt_seconds", labels{"target": one})[0].GetHistogram()
	var bounds []float64
	for _, b := range m.GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	if len(bounds) < 2 || bounds[0] != 0.5 || bounds[1] != 1 {
		t.Errorf("buckets %v after a reload to [0.5, 1]", bounds)
	}
	if was, is := s.sum("probed_probes_total", labels{"target": one}), p.scrape().sum("probed_probes_total", labels{"target": one}); is <= was {
		t.Errorf("probes after a reload of buckets: %v before, %v after", was, is)
	}

	// A file that is gone is an error too.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, body := p.do("POST", "/-/reload"); code != 500 || !strings.Contains(body, "no such file") {
		t.Errorf("reload of no file: %d %s", code, body)
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Reloads that are asked for at once wait for each other.
func TestReloadsAtOnce(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	p, _ := reloadable(t, a, fmt.Sprintf("jobs: [{name: one, targets: ['%v:80']}]\n", b.Addr4()))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if code, body := p.do("POST", "/-/reload"); code != http.StatusOK {
				t.Errorf("%d %s", code, body)
			}
		})
	}
	all.Wait()
}

// TestReloadKeepsConversations reloads while SYNs wait for their answers: those
// of the target that stays and of the one that goes alike end as they would
// have.
func TestReloadKeepsConversations(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Refuse(80, lab.Drop)
	target := netip.AddrPortFrom(b.Addr4(), 80).String()
	p, file := reloadable(t, a, simpleConfig("100ms", "500ms", target))
	p.awaitProbes(target, 1)
	for range 10 {
		write(t, file, simpleConfig("100ms", "500ms", target))
		if code, body := p.do("POST", "/-/reload"); code != 200 {
			t.Fatalf("reload: %d %s", code, body)
		}
		p.awaitProbes(target, 1)
	}
	s := p.scrape()
	if n := s.sum("probed_probes_discarded_total", nil); n != 0 {
		t.Errorf("%v probes discarded: %v", n, s.reasons("probed_probes_discarded_total", nil))
	}
	if probes, lost := s.sum("probed_probes_total", nil), s.reasons("probed_probe_failures_total", nil)["timeout"]; !about(lost, probes) {
		t.Errorf("%v probes of which %v timed out", probes, lost)
	}
	if n := s.sum("probed_probes_skipped_total", nil); n != 0 {
		t.Errorf("%v probes skipped", n)
	}
}

// TestNamesThatChange follows names through new addresses, none, a broken name
// server and back.
func TestNamesThatChange(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	dns := serveDNS(t, a, map[string][]netip.Addr{"one.test": {b.Addr4()}, "many.test": {b.Addr4(), b.Addr6()}})
	capture := a.Capture(t, a.Iface(), ourPorts, lab.Immediate)
	p := start(t, a, `
global: {interval: 50ms, timeout: 45ms, resolve_interval: 1s}
modules: {every: {probe: half_open, resolve: all}}
jobs:
- {name: one, targets: ["one.test:80"]}
- {name: many, module: every, targets: ["many.test:80"]}
`, withDNS(t, "127.0.0.1"))
	ips := func() []string {
		var all []string
		for _, m := range p.scrape().find("probed_probes_total", labels{"target": "many.test:80"}) {
			all = append(all, labelsOf(m)["ip"])
		}
		slices.Sort(all)
		return all
	}
	awaitIPs := func(want ...string) {
		t.Helper()
		lab.Eventually(t, 5*time.Second, func() error {
			if got := ips(); !slices.Equal(got, want) {
				return fmt.Errorf("ip labels %v, want %v", got, want)
			}
			return nil
		})
	}
	v4, v6 := b.Addr4().String(), b.Addr6().String()
	awaitIPs(v4, v6)
	p.awaitProbes("one.test:80", 5)

	// An address goes and a name moves.
	dns.set("many.test", v6)
	dns.set("one.test", v6)
	awaitIPs(v6)
	p.awaitProbes("one.test:80", 60) // past its own look-up
	if n := p.scrape().sum("probed_probe_failures_total", nil); n > 0 {
		t.Errorf("%v failures while names moved", n)
	}

	// A name server that fails is not a name that is gone, not even if it fails
	// for one family and has nothing of the other.
	dns.set("one.test", v4)
	p.awaitProbes("one.test:80", 60)
	for _, types := range [][]dnsmessage.Type{{dnsmessage.TypeA, dnsmessage.TypeAAAA}, {dnsmessage.TypeA}} {
		dns.fail(types...)
		before := p.scrape().sum("probed_resolve_failures_total", nil)
		lab.Eventually(t, 5*time.Second, func() error {
			if n := p.scrape().sum("probed_resolve_failures_total", nil); n < before+4 {
				return fmt.Errorf("%v look-ups failed", n-before)
			}
			return nil
		})
		p.awaitProbes("one.test:80", 5)
		if n := p.scrape().reasons("probed_probe_failures_total", nil)["not_resolved"]; n > 0 {
			t.Errorf("%v probes of no address while the name server was broken for %v", n, types)
		}
	}
	dns.fail()

	// Gone, then back elsewhere.
	dns.set("one.test")
	dns.set("many.test")
	with := labels{"target": "one.test:80"}
	lab.Eventually(t, 5*time.Second, func() error {
		if n := p.scrape().reasons("probed_probe_failures_total", with)["not_resolved"]; n < 5 {
			return fmt.Errorf("%v probes of a name that is gone failed as such", n)
		}
		return nil
	})
	awaitIPs("")
	dns.set("one.test", v4)
	dns.set("many.test", v4, v6)
	awaitIPs(v4, v6)
	lab.Eventually(t, 5*time.Second, func() error {
		if p.scrape().sum("probed_probe_success", with) != 1 {
			return fmt.Errorf("one.test is not back")
		}
		return nil
	})
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	both := map[netip.Addr]int{}
	for _, x := range exchanges(t, segments(t, capture.Packets())) {
		both[x.syn.Dst]++
		if len(x.synAcks) != len(x.resets) {
			t.Errorf("%v: %d SYN-ACKs, %d RSTs", x.syn.to(), len(x.synAcks), len(x.resets))
		}
	}
	if len(both) != 2 {
		t.Errorf("SYNs by address: %v", both)
	}
}

// TestDefaultFileThatGoes looks for the default file: without it the embedded
// configuration runs, but does not take the place of one that was in force.
func TestDefaultFileThatGoes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "probed.yml")
	d := daemon{configFile: file, log: slog.New(slog.DiscardHandler)}
	if _, err := d.load(); err != nil {
		t.Errorf("without a file: %v", err)
	}
	write(t, file, minimal)
	if c, err := d.load(); err != nil || len(c.Jobs) != 1 || c.Jobs[0].Name != "test" {
		t.Errorf("with the file: %v %v", c, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if c, err := d.load(); err == nil {
		t.Errorf("the file is gone, and %v took its place", c.Jobs)
	}
}

// A file that takes its time to be read, here a pipe that nobody writes into, holds up no page,
// no probe on request and not the end.
func TestReloadReadsSlowly(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	p, file := reloadable(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80"))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	for _, path := range []string{"/", "/config", "/probe?target=127.0.0.1:80", "/metrics", "/-/healthy"} {
		if code, body := p.do("GET", path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	write(t, file, simpleConfig("20ms", "10ms", "127.0.0.2:80"))
	p.awaitProbes("127.0.0.2:80", 1)
	p.signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	p.signal(syscall.SIGTERM)
	if code := p.end(5 * time.Second); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
