package ondemand_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/ondemand"
	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

const configuration = `
modules:
  held: {probe: active_close, hold: 3s}
  reuse: {probe: time_wait, send: x, after: 2s}
  lasting: {probe: time_wait, measure: duration, send: x}
  old: {probe: half_open, ip_protocol: ip4}
  idle: {probe: passive_close, timeout: 30m}
jobs: []
`

// A prober makes the probe that a script describes.
type prober struct {
	file     string // of probe/testdata/script
	err      error
	resolves map[string]netip.Addr
	wait     chan struct{} // if not nil, until it is closed
	mu       sync.Mutex
	asked    []config.Target
	until    []time.Duration // left of the context's time
}

func (p *prober) once(ctx context.Context, t *config.Target, may func(netip.Addr) error) (probe.Transcript, error) {
	addr := t.IP
	if !addr.IsValid() {
		addr = p.resolves[t.Host]
	}
	if addr.IsValid() {
		if err := may(addr); err != nil {
			return probe.Transcript{}, err
		}
	}
	p.mu.Lock()
	deadline, _ := ctx.Deadline()
	p.asked, p.until = append(p.asked, *t), append(p.until, time.Until(deadline))
	p.mu.Unlock()
	if p.wait != nil {
		select {
		case <-p.wait:
		case <-ctx.Done():
			return probe.Transcript{}, context.Cause(ctx)
		}
	}
	if p.err != nil {
		return probe.Transcript{}, p.err
	}
	return play(p.file)
}

// serve returns a handler on a prober.
func serve(t *testing.T, p *prober) http.Handler { return serveWith(t, p, configuration) }

func serveWith(t *testing.T, p *prober, yaml string) http.Handler {
	t.Helper()
	c, err := config.Parse("test.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return ondemand.New(ondemand.Options{
		Config: func() *config.Config { return c }, Once: p.once, Clock: time.Now,
		Probes: func(a netip.AddrPort) bool {
			return a == netip.MustParseAddrPort("198.18.0.7:80") || a == netip.MustParseAddrPort("[fe80::1%eth3]:80")
		},
		FromHere: func(r *http.Request) bool {
			return strings.HasPrefix(r.RemoteAddr, "127.") || strings.HasPrefix(r.RemoteAddr, "[::1]")
		},
		Names: func(host string, port uint16) bool { return host == "db.test" && port == 80 },
		Log:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func get(h http.Handler, query, timeout string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/probe?"+query, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:40000", "localhost:10965"
	if timeout != "" {
		r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", timeout)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A wrong question is 400 with what is wrong, and makes no probe.
func TestBadRequests(t *testing.T) {
	for _, tt := range []struct{ query, timeout, want string }{
		{"", "", "target is missing"},
		{"module=half_open", "", "target is missing"},
		{"target=", "", "empty; write host:port"},
		{"target=198.18.0.1", "", "has no port"},
		{"target=198.18.0.1:80&target=198.18.0.2:80", "", "target is there 2 times"},
		{"target=http://198.18.0.1/", "", "is a URL"},
		{"target=224.0.0.1:80", "", "a multicast address"},
		{"target=[2001:db8::1]:80&module=old", "", "contradicts ip_protocol"},
		{"target=198.18.0.1:80&module=none", "", `module "none" is not in the configuration; known: active_close, half_open, held, idle, lasting`},
		{"target=198.18.0.1:80&module=%3Cscript%3E%1b[31m", "", `"<script>\x1b[31m"`},
		{"target=198.18.0.1:80&module=a&module=b", "", "module is there 2 times"},
		{"target=198.18.0.1:80&module=lasting", "", "measures how long a TIME-WAIT lasts"},
		{"target=198.18.0.1:80&module=held", "3.4", "its hold of 3s alone"},
		{"target=198.18.0.1:80&module=reuse", "2.4", "its after of 2s alone"},
		{"target=198.18.0.1:80", "soon", "not a number of seconds"},
		{"target=198.18.0.1:80", "-1", "not a number of seconds"},
		{"target=198.18.0.1:80", "NaN", "not a number of seconds"},
	} {
		p := &prober{}
		w := get(serve(t, p), tt.query, tt.timeout)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), tt.want) || len(p.asked) > 0 {
			t.Errorf("%q: %d %q, %d probes; want 400 with %q", tt.query, w.Code, w.Body, len(p.asked), tt.want)
		}
		if ct := w.Header().Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			t.Errorf("%q: Content-Type %s", tt.query, ct)
		}
	}
}

// The scrape's timeout, less a margin, bounds the probe's.
func TestScrapeTimeout(t *testing.T) {
	for _, tt := range []struct {
		query, timeout string
		want           time.Duration
	}{
		{"", "", 900 * time.Millisecond},
		{"", "10", 900 * time.Millisecond},
		{"", "1", 500 * time.Millisecond},
		{"", "0.2", 100 * time.Millisecond},
		{"&module=active_close", "", 5 * time.Second},
		{"&module=active_close", "2.5", 2 * time.Second},
		{"&module=reuse", "", 5 * time.Second},
		{"&module=reuse", "4.5", time.Second}, // twice, and 2 s between
		{"&module=active_close", "1e300", 5 * time.Second},
		{"&module=idle", "", 2*time.Minute - 500*time.Millisecond},
		{"&module=idle", "3", 2500 * time.Millisecond},
	} {
		p := &prober{file: "syn_then_synack_then_duplicate"}
		w := get(serve(t, p), "target=198.18.0.1:80"+tt.query, tt.timeout)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", tt.query, w.Code, w.Body)
		}
		if got := p.asked[0].Module.Timeout; got != tt.want || p.asked[0].Timeout != tt.want {
			t.Errorf("%s, scrape timeout %q: the probe's is %v, want %v", tt.query, tt.timeout, got, tt.want)
		}
		if p.until[0] < tt.want {
			t.Errorf("%s, scrape timeout %q: waited for %v only", tt.query, tt.timeout, p.until[0])
		}
		// A connection that failed is told of 250 ms after its time, when its peer was reset twice.
		if p.asked[0].Module.Probe != probe.HalfOpen && p.until[0] < tt.want+350*time.Millisecond {
			t.Errorf("%s, scrape timeout %q: waited for %v, and a verdict may take %v more than %v",
				tt.query, tt.timeout, p.until[0], 250*time.Millisecond, tt.want)
		}
	}
}

// values parses an exposition of gauges.
func values(t *testing.T, w *httptest.ResponseRecorder) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for name, f := range families {
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			all[key] = m.GetGauge().GetValue()
		}
	}
	return all
}

// What a probe saw is told by gauges.
func TestGauges(t *testing.T) {
	for _, tt := range []struct {
		module, file string
		want         map[string]float64
		without      []string
	}{
		{"half_open", "syn_then_synack_then_duplicate",
			map[string]float64{"probe_success": 1, "probed_probe_failure reason=timeout": 0, "probed_peer_mss_bytes": 1460},
			[]string{"probed_probe_failure reason=reset", "probed_probe_teardown form=four_way"}},
		{"half_open", "syn_then_silence",
			map[string]float64{"probe_success": 0, "probed_probe_failure reason=timeout": 1, "probed_probe_failure reason=refused": 0},
			[]string{"probed_probe_handshake_rtt_seconds"}},
		{"active_close", "active_close_four_way",
			map[string]float64{"probe_success": 1, "probed_probe_teardown form=four_way": 1, "probed_probe_failure reason=fin_missing": 0},
			nil},
	} {
		p := &prober{file: tt.file}
		w := get(serve(t, p), "target=198.18.0.1:80&module="+tt.module, "")
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", tt.file, w.Code, w.Body)
		}
		got := values(t, w)
		for name, v := range tt.want {
			if x, ok := got[name]; !ok || x != v {
				t.Errorf("%s: %s is %v, %v; want %v", tt.file, name, x, ok, v)
			}
		}
		for _, name := range tt.without {
			if _, ok := got[name]; ok {
				t.Errorf("%s: has %s", tt.file, name)
			}
		}
		tr, _ := play(tt.file)
		for _, f := range tr.Figures() {
			name := map[probe.ObservationKind]string{
				probe.HandshakeRTT: "handshake_rtt", probe.FINACKRTT: "fin_ack_rtt", probe.CloseWaitTime: "close_wait", probe.Teardown: "teardown",
			}[f.Kind]
			if name != "" && got["probed_probe_"+name+"_seconds"] != f.Duration.Seconds() {
				t.Errorf("%s: %s is %v, observed %v", tt.file, name, got["probed_probe_"+name+"_seconds"], f.Duration)
			}
		}
		if _, ok := got["probe_duration_seconds"]; !ok {
			t.Errorf("%s: no probe_duration_seconds", tt.file)
		}
	}
}

// Without a verdict the scrape fails: nothing is said of the target.
func TestNoVerdict(t *testing.T) {
	p := &prober{err: errors.New("looking db.test up: server misbehaving")}
	if w := get(serve(t, p), "target=db.test:80", ""); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "server misbehaving") {
		t.Errorf("a failed look-up: %d %s", w.Code, w.Body)
	}
	p = &prober{file: "syn_send_failed"}
	w := get(serve(t, p), "target=198.18.0.1:80", "")
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "send_error") {
		t.Errorf("a discarded probe: %d %s", w.Code, w.Body)
	}
}

// The transcript is shown where it is asked for, with the metrics.
func TestDebug(t *testing.T) {
	p := &prober{file: "active_close_four_way"}
	w := get(serve(t, p), "target=198.18.0.1:80&module=active_close&debug=true", "")
	body := w.Body.String()
	for _, want := range []string{"198.18.0.1:80 by module active_close (active_close), ok", "Flags [S]", "Flags [F.]", "CLOSE-WAIT", "probe_success 1", "probed_probe_close_wait_seconds"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%d, %s", w.Code, w.Header().Get("Content-Type"))
	}
}

// No more probes are under way than the handler has slots for.
func TestConcurrencyIsBounded(t *testing.T) {
	const slots = 64
	p := &prober{file: "syn_then_silence", wait: make(chan struct{})}
	h := serve(t, p)
	var going sync.WaitGroup
	for range slots {
		going.Go(func() { get(h, "target=198.18.0.1:80", "") })
	}
	for begun := 0; begun < slots; {
		time.Sleep(time.Millisecond)
		p.mu.Lock()
		begun = len(p.asked)
		p.mu.Unlock()
	}
	if w := get(h, "target=198.18.0.1:80", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	close(p.wait)
	going.Wait()
	if w := get(h, "target=198.18.0.1:80", ""); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
}

// Of clients elsewhere one has half of the slots at most, whatever addresses of its 64 bits it
// has, and this host can have the others.
func TestConcurrencyOfOneClient(t *testing.T) {
	p := &prober{file: "syn_then_silence", wait: make(chan struct{})}
	h := serve(t, p)
	from := func(client string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/probe?target=198.18.0.7:80", nil)
		r.RemoteAddr = client
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	begun := func(n int) {
		for have := 0; have < n; {
			time.Sleep(time.Millisecond)
			p.mu.Lock()
			have = len(p.asked)
			p.mu.Unlock()
		}
	}
	var going sync.WaitGroup
	for i := range 32 {
		going.Go(func() { from(fmt.Sprintf("[2001:db8::%x]:1", i)) })
	}
	begun(32)
	if w := from("[2001:db8::ffff]:1"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	going.Go(func() { from("198.18.0.99:1") })
	begun(33)
	for range 31 {
		going.Go(func() { get(h, "target=198.18.0.1:80", "") })
	}
	begun(64)
	close(p.wait)
	going.Wait()
	if w := from("[2001:db8::ffff]:1"); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
}

// Whoever takes all the slots, by few addresses, gives one up for each client that has fewer;
// and for nobody that has as many, so that what has begun isn't ended in turn. What this host
// has asked for stays.
func TestConcurrencyIsShared(t *testing.T) {
	p := &prober{file: "syn_then_silence", wait: make(chan struct{})}
	h := serve(t, p)
	codes := make(chan string, 100)
	var going sync.WaitGroup
	ask := func(client string) {
		r := httptest.NewRequest("GET", "/probe?target=198.18.0.7:80", nil)
		r.RemoteAddr = client
		going.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			codes <- fmt.Sprint(strings.TrimSuffix(client, ":1"), " ", w.Code)
		})
	}
	begun := func(n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			p.mu.Lock()
			have := len(p.asked)
			p.mu.Unlock()
			if have >= n {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d probes have begun, want %d", have, n)
			}
		}
	}
	ended := func(want string) {
		t.Helper()
		if got := <-codes; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for range 18 {
		ask("198.18.0.98:1")
	}
	begun(18)
	for range 34 {
		ask("127.0.0.1:1")
	}
	begun(52)
	for range 12 {
		ask("198.18.0.99:1")
	}
	begun(64)
	for i := range 5 {
		ask("198.18.0.5:1")
		begun(65 + i)
		ended("198.18.0.98 503")
	}
	ask("198.18.0.98:1") // which has more than others
	ended("198.18.0.98 503")
	close(p.wait)
	going.Wait()
	close(codes)
	got := make(map[string]int)
	for c := range codes {
		got[c]++
	}
	want := map[string]int{"198.18.0.98 200": 13, "127.0.0.1 200": 34, "198.18.0.99 200": 12, "198.18.0.5 200": 5}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// play plays a script of the conversation's.
func play(file string) (probe.Transcript, error) {
	path := "../../probe/testdata/script/" + file + ".script"
	src, err := os.ReadFile(path)
	if err != nil {
		return probe.Transcript{}, err
	}
	all, err := script.Parse(path, src)
	if err != nil {
		return probe.Transcript{}, err
	}
	t, err := all[0].Run(script.Start{ISS: 1000, IRS: 5000})
	t.Tuple = probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.9:61000"), Remote: netip.MustParseAddrPort("198.18.0.1:80")}
	return t, err
}
