package ondemand_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/ondemand"
	"github.com/probed/probed/probe"
)

// FuzzProbe asks for any probe, as any client may. What is wrong is the client's fault
// and makes none; what is probed is a target as the configuration could have it, within
// the time that there is; and the answer is an exposition.
func FuzzProbe(f *testing.F) {
	for _, seed := range []struct{ query, headers string }{
		{"target=198.18.0.1:80", ""}, {"target=198.18.0.1:80&module=held", "X-Prometheus-Scrape-Timeout-Seconds: 10"},
		{"target=%5B2001:db8::1%5D:80&module=old", ""}, {"target=db.test:5432&module=reuse&debug=true", "X-Prometheus-Scrape-Timeout-Seconds: 4.5"},
		{"target=224.0.0.1:80", ""}, {"target=[fe80::1%25eth0]:1&module=active_close", "X-Prometheus-Scrape-Timeout-Seconds: 1e300"},
		{"target=http://u:p@h/&target=x", "X-Prometheus-Scrape-Timeout-Seconds: NaN"}, {"module=%3Cscript%3E%1b[31m&target=a:1", ""},
		{"target=a:1;module=b", "X-Prometheus-Scrape-Timeout-Seconds: 0.0000001"}, {"target=0177.1:1", ""},
		{"target=198.18.0.1:80&debug=true&module=passive_close", "Accept: application/openmetrics-text;q=1\r\nAccept-Encoding: identity"},
		{"target=a:1", "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"},
	} {
		f.Add(seed.query, seed.headers)
	}
	c, err := config.Parse("test.yml", []byte(configuration))
	if err != nil {
		f.Fatal(err)
	}
	files := []string{"syn_then_synack_then_duplicate", "active_close_four_way", "syn_then_silence"}
	var played []probe.Transcript
	for _, file := range files {
		tr, err := play(file)
		if err != nil {
			f.Fatal(err)
		}
		played = append(played, tr)
	}
	f.Fuzz(func(t *testing.T, query, headers string) {
		raw := "GET /probe?" + query + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		r.RemoteAddr = "127.0.0.1:40000"
		var asked []config.Target
		h := ondemand.New(ondemand.Options{
			Config: func() *config.Config { return c }, Clock: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Probes: func(netip.AddrPort) bool { return false }, Names: func(string, uint16) bool { return false }, FromHere: func(*http.Request) bool { return true },
			Once: func(ctx context.Context, x *config.Target, may func(netip.Addr) error) (probe.Transcript, error) {
				if err := may(netip.MustParseAddr("198.18.0.1")); err != nil && !x.IP.IsValid() {
					return probe.Transcript{}, err
				}
				asked = append(asked, *x)
				if until, ok := ctx.Deadline(); !ok || time.Until(until) > 2*time.Minute {
					t.Errorf("waits for it until %v", until)
				}
				return played[len(query)%len(played)], nil
			},
		})
		w := httptest.NewRecorder()
		began := time.Now()
		h.ServeHTTP(w, r)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if w.Code != http.StatusOK {
			text := w.Body.String()
			if w.Code != http.StatusBadRequest && w.Code != http.StatusForbidden || len(asked) > 0 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
				t.Errorf("%d after %d probes: %s", w.Code, len(asked), text)
			}
			if len(text) > 4096 || !utf8.ValidString(text) || strings.ContainsFunc(strings.TrimSpace(text), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' }) {
				t.Errorf("%q", text)
			}
			return
		}
		if len(asked) != 1 {
			t.Fatalf("%d probes", len(asked))
		}
		x := &asked[0]
		if x.Port == 0 || x.Host == "" || x.IP.IsValid() && config.NotUnicast(x.IP) != "" || x.Interval <= 0 || x.Timeout <= 0 || x.Timeout > 2*time.Minute {
			t.Errorf("probes %+v", x)
		}
		if again, err := config.ParseEndpoint(x.Address); err != nil || again != x.Endpoint {
			t.Errorf("%q is %+v, not %+v: %v", x.Address, again, x.Endpoint, err)
		}
		format := expfmt.ResponseFormat(w.Header())
		if r.URL.Query().Get("debug") == "true" {
			if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || !utf8.Valid(w.Body.Bytes()) || strings.ContainsAny(w.Body.String(), "\x1b\x00\r") {
				t.Errorf("%q", w.Body)
			}
			return
		}
		if format.FormatType() != expfmt.TypeTextPlain || w.Header().Get("Content-Encoding") != "" {
			return // client_golang's own, which is not ours to test
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if families, err := parser.TextToMetricFamilies(w.Body); err != nil || families["probe_success"] == nil {
			t.Errorf("%v: %s", err, w.Body)
		}
	})
}
