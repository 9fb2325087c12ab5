package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// onDemand asks for one probe.
func (p *process) onDemand(target, module string, more ...string) (int, string) {
	p.t.Helper()
	return p.do("GET", "/probe?target="+url.QueryEscape(target)+"&module="+module+strings.Join(more, ""))
}

// TestProbeOnRequest probes targets that no job has, by every kind.
func TestProbeOnRequest(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	const late = 100 * time.Millisecond
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.Copy(io.Discard, c); time.Sleep(late) })
	b.Serve("tcp", "[::]:83", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 4))
		_, _ = io.WriteString(c, "bye")
	})
	b.NFT("add table inet lab\nadd chain inet lab input { type filter hook input priority 0; }\nadd rule inet lab input tcp dport 81 drop\n")
	serveDNS(t, a, map[string][]netip.Addr{"db.test": {b.Addr4()}})
	p := start(t, a, `
modules:
  web: {probe: passive_close, send: "ping"}
  reuse: {probe: time_wait, send: "ping", after: 100ms}
jobs: []
`, withDNS(t, "127.0.0.1"))
	for _, tt := range []struct {
		target, module string
		want           map[string]float64
	}{
		{fmt.Sprintf("%v:80", b.Addr4()), "half_open", map[string]float64{"probe_success": 1, "probe_ip_protocol": 4}},
		{fmt.Sprintf("[%v]:80", b.Addr6()), "half_open", map[string]float64{"probe_success": 1, "probe_ip_protocol": 6}},
		{"db.test:80", "half_open", map[string]float64{"probe_success": 1}},
		{"none.test:80", "half_open", map[string]float64{"probe_success": 0, "probed_probe_failure reason=not_resolved": 1}},
		{fmt.Sprintf("%v:81", b.Addr4()), "half_open", map[string]float64{"probe_success": 0, "probed_probe_failure reason=timeout": 1}},
		{fmt.Sprintf("%v:82", b.Addr4()), "half_open", map[string]float64{"probe_success": 0, "probed_probe_failure reason=refused": 1}},
		// Nobody has it: the SYN waits in this host until our kernel gives up.
		{b.Addr4().Next().String() + ":80", "half_open", map[string]float64{"probe_success": 0, "probed_probe_failure reason=unreachable": 1}},
		{fmt.Sprintf("%v:80", b.Addr4()), "active_close", map[string]float64{"probe_success": 1, "probed_probe_teardown form=four_way": 1}},
		{fmt.Sprintf("%v:83", b.Addr4()), "web", map[string]float64{"probe_success": 1, "probed_probe_teardown form=four_way": 1}},
		{fmt.Sprintf("[%v]:83", b.Addr6()), "reuse", map[string]float64{"probe_success": 1, "probed_probe_time_wait_reuse answer=accepted": 1}},
	} {
		code, body := p.onDemand(tt.target, tt.module)
		if code != 200 {
			t.Errorf("%s by %s: %d %s", tt.target, tt.module, code, body)
			continue
		}
		s := parseMetrics(t, body)
		for name, want := range tt.want {
			name, with, _ := strings.Cut(name, " ")
			l := labels{}
			if k, v, ok := strings.Cut(with, "="); ok {
				l[k] = v
			}
			if found := s.find(name, l); len(found) != 1 || found[0].GetGauge().GetValue() != want {
				t.Errorf("%s by %s: %s %v is not %v\n%s", tt.target, tt.module, name, l, want, body)
			}
		}
		promtool(t, body)
	}
	if _, body := p.onDemand(fmt.Sprintf("%v:80", b.Addr4()), "active_close", "&debug=true"); !strings.Contains(body, "Flags [F.]") || !strings.Contains(body, "FIN-WAIT-2") {
		t.Errorf("the transcript: %s", body)
	}
	if code, body := p.onDemand("224.0.0.1:80", "half_open"); code != 400 {
		t.Errorf("a multicast address: %d %s", code, body)
	}
	// Nothing of it is a target's.
	if n := p.scrape().sum("probed_probes_total", nil); n != 0 {
		t.Errorf("%v probes of targets that no job has", n)
	}
	if left := holding(b); len(left) > 0 {
		t.Errorf("the peer is left with %v", left)
	}
}

// TestProbeOnRequestKeepsTheLimits asks for more probes than the limit of one
// address allows, all at once.
func TestProbeOnRequestKeepsTheLimits(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	p := start(t, a, `
global: {limits: {packets_per_second_per_address: 20}}
jobs: []
`)
	capture := a.Capture(t, a.Iface(), ourPorts)
	target := fmt.Sprintf("%v:80", b.Addr4())
	codes := make(map[int]int)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for range 60 {
		asking.Go(func() {
			code, _ := p.onDemand(target, "half_open")
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	asking.Wait()
	if codes[200] < 10 || codes[200]+codes[503] != 60 {
		t.Errorf("answered %v", codes)
	}
	var ours []int64
	for _, q := range segments(t, capture.Packets()) {
		if q.ours() && q.Segment.Flags.Has(probe.SYN) {
			ours = append(ours, q.wall, q.wall) // and its RST
		}
	}
	for i, at := range ours {
		if j := i + 20; j < len(ours) && ours[j]-at < int64(time.Second) {
			t.Fatalf("more than 20 packets within %v", time.Duration(ours[j]-at))
		}
	}
}

// Whatever web clients ask for, and however often, the log has a few lines of it.
func TestRequestsInTheLog(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.NFT("add table inet lab\nadd chain inet lab input { type filter hook input priority 0; }\nadd rule inet lab input tcp dport 81 drop\n")
	p, _ := reloadable(t, a, "jobs: []\n")
	const times = 30
	for range times {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		r, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/probe?target=%v:81", p.base, b.Addr4()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := p.http.Do(r); err == nil {
			t.Errorf("answered: %s", resp.Status)
			_ = resp.Body.Close()
		}
		cancel()
		if code, body := p.do("POST", "/-/reload"); code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
	}
	lab.Eventually(t, 5*time.Second, func() error {
		for _, line := range []string{"no verdict for a probe on request", "configuration reloaded"} {
			if n := strings.Count(p.said(), line); n == 0 || n > 2*sparingAtOnce {
				return fmt.Errorf("%d requests are %d lines: %s", times, n, line)
			}
		}
		return nil
	})
}
