package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// holding lists what a host still has of its connections.
func holding(h *lab.Host) (left []string) {
	for _, s := range lab.SS(h) {
		if s.State != "TIME-WAIT" && s.State != "LISTEN" {
			left = append(left, fmt.Sprint(s))
		}
	}
	return left
}

// TestConnections holds whole connections with services that close in every
// way, and reads off the metrics how.
func TestConnections(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	drain := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	const late = 250 * time.Millisecond
	b.Serve("tcp", "[::]:80", drain)
	b.Serve("tcp", "[::]:81", func(c net.Conn) { drain(c); time.Sleep(late) })
	b.Serve("tcp", "[::]:82", func(c net.Conn) { drain(c); time.Sleep(3 * time.Second) })
	b.Serve("tcp", "[::]:83", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, len("HEAD / HTTP/1.0\r\n\r\n")))
		_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n")
	})
	b.Serve("tcp", "[::]:84", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) })
	var targets [6]string
	for i := range targets {
		targets[i] = fmt.Sprintf(`["%v:%d", "[%v]:%d"]`, b.Addr4(), 80+i, b.Addr6(), 80+i)
	}
	p := start(t, a, fmt.Sprintf(`
global: {interval: 200ms, limits: {packets_per_second_per_address: 2000}}
modules:
  active_close: {timeout: 1500ms}
  web: {probe: passive_close, timeout: 1500ms, send: "HEAD / HTTP/1.0\r\n\r\n"}
  idle: {probe: passive_close, timeout: 500ms}
  reuse: {probe: time_wait, timeout: 1500ms, send: "HEAD / HTTP/1.0\r\n\r\n", after: 100ms}
jobs:
- {name: at_once, module: active_close, targets: %s}
- {name: late, module: active_close, targets: %s}
- {name: never, module: active_close, targets: %s}
- {name: resets, module: idle, targets: %s}
- {name: nobody, module: active_close, targets: %s}
- {name: web, module: web, targets: %[6]s}
- {name: reuse, module: reuse, targets: %[6]s}
- {name: idle, module: idle, targets: %[1]s}
`, targets[0], targets[1], targets[2], targets[4], targets[5], targets[3]))
	jobs := []string{"at_once", "late", "never", "resets", "nobody", "web", "reuse", "idle"}
	var s scrape
	lab.Eventually(t, 15*time.Second, func() error {
		s = p.scrape()
		for _, job := range jobs {
			for _, m := range s.find("probed_probes_total", labels{"job_name": job}) {
				if n := m.GetCounter().GetValue(); n < 5 {
					return fmt.Errorf("%s: %v probes", job, n)
				}
			}
		}
		return nil
	})
	for job, want := range map[string]map[string]float64{
		"at_once": {}, "late": {}, "web": {}, "reuse": {},
		"never": {"fin_missing": 1}, "resets": {"reset": 1}, "nobody": {"refused": 1}, "idle": {"peer_never_closed": 1},
	} {
		probes := s.sum("probed_probes_total", labels{"job_name": job})
		got := s.reasons("probed_probe_failures_total", labels{"job_name": job})
		for reason, n := range got {
			if want[reason]*probes != n {
				t.Errorf("%s: %v probes, failures %v", job, probes, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v probes, failures %v", job, probes, got)
		}
	}
	mean := func(name, job string) time.Duration {
		t.Helper()
		var sum float64
		var n uint64
		for _, m := range s.find(name, labels{"job_name": job}) {
			sum += m.GetHistogram().GetSampleSum()
			n += m.GetHistogram().GetSampleCount()
		}
		if n < 10 {
			t.Errorf("%s of %s: %d samples", name, job, n)
			return 0
		}
		return time.Duration(sum / float64(n) * 1e9)
	}
	// The kernel acknowledges, prompted, at once; what is late is the application.
	if d := mean("probed_fin_ack_rtt_seconds", "late"); d > 20*time.Millisecond {
		t.Errorf("FIN acknowledged after %v", d)
	}
	if d := mean("probed_close_wait_seconds", "late"); d < late || d > late+50*time.Millisecond {
		t.Errorf("CLOSE-WAIT of %v, the application takes %v", d, late)
	}
	mean("probed_peer_close_seconds", "web")
	mean("probed_last_ack_rtt_seconds", "web")
	mean("probed_teardown_seconds", "web")
	mean("probed_time_wait_reuse_rtt_seconds", "reuse")
	if n := s.sum("probed_time_wait_reuse_total", labels{"answer": "accepted"}); n < 10 || n != s.sum("probed_time_wait_reuse_total", nil) {
		t.Errorf("%v of %v reuses accepted", n, s.sum("probed_time_wait_reuse_total", nil))
	}
	if n := s.sum("probed_teardowns_total", labels{"job_name": "late", "form": "four_way"}); n < 10 {
		t.Errorf("%v four-way teardowns where the application is late", n)
	}
	_, exposition := p.do("GET", "/metrics")
	promtool(t, exposition)
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lab.Eventually(t, 4*time.Second, func() error { // the applications sleep
		if left := holding(b); len(left) > 0 {
			return fmt.Errorf("the peer is left with %s", strings.Join(left, "; "))
		}
		return nil
	})
	for _, s := range lab.SS(a) {
		if s.State != "TIME-WAIT" { // the kernel's, of a scrape
			t.Errorf("left here: %v", s)
		}
	}
}

// TestTermResetsConnections ends probed while it waits for peers to close.
func TestTermResetsConnections(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	p := waiting(t, a, b)
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lab.Eventually(t, time.Second, func() error {
		if left := holding(b); len(left) > 0 {
			return fmt.Errorf("the peer is left with %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// TestKillResetsConnections kills it: the guards are gone with it, and the
// kernel resets what the peers say next.
func TestKillResetsConnections(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	p := waiting(t, a, b)
	p.signal(syscall.SIGKILL)
	p.end(time.Second)
	lab.Eventually(t, 5*time.Second, func() error {
		if left := holding(b); len(left) > 0 {
			return fmt.Errorf("the peer is left with %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// waiting starts probed with connections whose peers say something every 200 ms
// and never close.
func waiting(t *testing.T, a, b *lab.Host) *process {
	t.Helper()
	b.Serve("tcp", "[::]:80", func(c net.Conn) {
		for range 100 {
			if _, err := io.WriteString(c, "still here\n"); err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	p := start(t, a, fmt.Sprintf(`
global: {interval: 500ms}
modules: {idle: {probe: passive_close, timeout: 30s}}
jobs: [{name: idle, module: idle, targets: ["%v:80", "[%v]:80"]}]
`, b.Addr4(), b.Addr6()))
	lab.Eventually(t, 10*time.Second, func() error {
		if n := len(lab.SS(b, "estab")); n < 6 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	return p
}
