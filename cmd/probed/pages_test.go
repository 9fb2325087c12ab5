package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// Of the API, what is looked at here.
type (
	apiTarget struct {
		ID     string
		Job    string
		Probes float64
		Failed float64
		P50    float64 `json:"p50_seconds"`
		Totals struct {
			Probes   float64
			Failures map[string]float64
		}
	}
	apiSamples struct {
		Samples []struct {
			RTT float64 `json:"handshake_rtt_seconds"`
		}
	}
	apiTranscripts struct {
		Transcripts []struct {
			Local    netip.AddrPort
			Started  time.Time
			RTT      float64 `json:"handshake_rtt_seconds"`
			Teardown float64 `json:"teardown_seconds"`
		}
	}
)

// getJSON reads an answer of the API.
func (p *process) getJSON(path string, into any) {
	p.t.Helper()
	code, body := p.do("GET", path)
	if code != 200 {
		p.t.Fatalf("%s: %d %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		p.t.Fatalf("%s: %v\n%s", path, err, body)
	}
}

// A look is what is said of one target, by all, with no probe in between.
type look struct {
	metrics scrape
	target  apiTarget
	samples apiSamples
	kept    apiTranscripts
	page    string
}

// look reads everything of a target, again if a probe ended meanwhile or has a verdict
// and no transcript yet: that of a closing is handed over when our last ACK has left.
func (p *process) look(id, job string) (l look) {
	p.t.Helper()
	with := labels{"job_name": job}
	lab.Eventually(p.t, 10*time.Second, func() error {
		l = look{metrics: p.scrape()}
		p.getJSON("/api/v1/targets/"+id, &l.target)
		p.getJSON("/api/v1/targets/"+id+"/samples", &l.samples)
		p.getJSON("/api/v1/targets/"+id+"/transcripts", &l.kept)
		_, l.page = p.do("GET", "/targets/"+id)
		if before, after := l.metrics.sum("probed_probes_total", with), p.scrape().sum("probed_probes_total", with); before != after {
			return fmt.Errorf("%v probes, then %v", before, after)
		}
		if of := &l.target; of.Probes != of.Totals.Probes || len(l.samples.Samples) != int(of.Probes) {
			return fmt.Errorf("%v probes in the books, %v and %d in the recorder", of.Totals.Probes, of.Probes, len(l.samples.Samples))
		}
		return nil
	})
	return l
}

// TestPagesAgree holds the page, the API and /metrics against each other, and the
// conversations that are kept against tcpdump.
func TestPagesAgree(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.Copy(io.Discard, c); time.Sleep(20 * time.Millisecond) })
	capture := a.Capture(t, a.Iface(), ourPorts)
	p := start(t, a, fmt.Sprintf(`
global: {interval: 500ms, timeout: 150ms}
modules: {active_close: {timeout: 400ms}}
jobs:
- {name: answered, targets: ["%v:80"]}
- {name: refused, targets: ["%[1]v:82"]}
- {name: closing, module: active_close, targets: ["[%v]:80"]}
`, b.Addr4(), b.Addr6()))
	lab.Eventually(t, 20*time.Second, func() error {
		if n := p.scrape().sum("probed_probes_total", nil); n < 36 {
			return fmt.Errorf("%v probes", n)
		}
		return nil
	})
	var list struct{ Targets []apiTarget }
	p.getJSON("/api/v1/targets", &list)
	if len(list.Targets) != 3 {
		t.Fatalf("targets %+v", list)
	}
	looks := make(map[string]look)
	for _, row := range list.Targets {
		l := p.look(row.ID, row.Job)
		looks[row.Job] = l
		with := labels{"job_name": row.Job}
		probes, failed := l.metrics.sum("probed_probes_total", with), l.metrics.sum("probed_probe_failures_total", with)
		if l.target.Totals.Probes != probes || l.target.Probes != probes || l.target.Failed != failed || l.target.Totals.Failures["refused"] != failed {
			t.Errorf("%s: the API says %+v, /metrics %v probes and %v failed", row.Job, l.target, probes, failed)
		}
		if row.Job == "refused" {
			if probes == 0 || failed != probes || !strings.Contains(l.page, "refused") {
				t.Errorf("refused: %v of %v failed", failed, probes)
			}
			continue
		}
		var sum float64
		n := 0
		for _, s := range l.samples.Samples {
			if s.RTT > 0 {
				sum, n = sum+s.RTT, n+1
			}
		}
		h := l.metrics.find("probed_handshake_rtt_seconds", with)[0].GetHistogram()
		if uint64(n) != h.GetSampleCount() || math.Abs(sum-h.GetSampleSum()) > 1e-6*sum || l.target.P50 <= 0 {
			t.Errorf("%s: samples %d, %v s; /metrics %d, %v s", row.Job, n, sum, h.GetSampleCount(), h.GetSampleSum())
		}
		if len(l.kept.Transcripts) != 4 {
			t.Errorf("%s: %d transcripts", row.Job, len(l.kept.Transcripts))
		}
	}
	for job, l := range looks {
		if job == "refused" {
			continue
		}
		for _, k := range l.kept.Transcripts {
			rtt, teardown := readOff(t, segments(t, capture.Packets()), k.Local, k.Started)
			// Sent segments have one stamp; each tap reads the clock for what arrives.
			const apart = 50 * time.Microsecond
			if d := time.Duration(k.RTT*1e9) - rtt; d.Abs() > apart {
				t.Errorf("%s: handshake %v, in the capture %v", job, time.Duration(k.RTT*1e9), rtt)
			}
			if d := time.Duration(math.Round(k.Teardown*1e9)) - teardown; job == "closing" && d != 0 {
				t.Errorf("%s: teardown %v, in the capture %v", job, time.Duration(k.Teardown*1e9), teardown)
			}
		}
	}
}

// readOff reads a conversation's round trip and, from our FIN to our last ACK, its
// teardown out of a capture, given when its SYN left.
func readOff(t *testing.T, all []segment, local netip.AddrPort, started time.Time) (rtt, teardown time.Duration) {
	t.Helper()
	var syn, fin, ack int64
	for _, s := range all {
		switch {
		case s.ours() && s.SrcPort == local.Port() && s.is(probe.SYN):
			if syn != 0 && s.wall != started.UnixNano() {
				return rtt, teardown // the next one on this port
			}
			if s.wall == started.UnixNano() {
				syn = s.wall
			}
		case syn == 0:
		case !s.ours() && s.DstPort == local.Port() && s.is(probe.SYN|probe.ACK) && rtt == 0:
			rtt = time.Duration(s.wall - syn)
		case s.ours() && s.SrcPort == local.Port() && s.Segment.Flags.Has(probe.FIN):
			fin = s.wall
		case s.ours() && s.SrcPort == local.Port() && fin != 0 && s.is(probe.ACK):
			ack = s.wall
			teardown = time.Duration(ack - fin)
		}
	}
	if syn == 0 {
		t.Errorf("no SYN of %v left at %v", local, started)
	}
	return rtt, teardown
}
