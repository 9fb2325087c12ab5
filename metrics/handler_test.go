package metrics

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// What Prometheus 3 sends with native histograms on, and with them off.
const (
	acceptNative  = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
	acceptClassic = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

func TestHandler(t *testing.T) {
	others := prometheus.NewRegistry()
	others.MustRegister(collectors.NewGoCollector())
	server := httptest.NewServer(scenario(t).Handler(others))
	defer server.Close()
	for _, c := range []struct {
		accept, encoding string
		format           expfmt.FormatType
		gzip             bool
	}{
		{"", "", expfmt.TypeTextPlain, false},
		{"*/*", "deflate, gzip", expfmt.TypeTextPlain, true},
		{"text/html,*/*;q=0.8", "gzip;q=0, br", expfmt.TypeTextPlain, false},
		{acceptClassic, "gzip", expfmt.TypeTextPlain, true},
		{acceptNative, "gzip;q=0.5", expfmt.TypeProtoDelim, true},
		{acceptNative, "identity", expfmt.TypeProtoDelim, false},
	} {
		t.Run(c.accept+" "+c.encoding, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", c.accept)
			req.Header.Set("Accept-Encoding", c.encoding)
			rsp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer rsp.Body.Close()
			format := expfmt.ResponseFormat(rsp.Header)
			if format.FormatType() != c.format {
				t.Errorf("format %s", format)
			}
			var body io.Reader = rsp.Body
			if got := rsp.Header.Get("Content-Encoding") == "gzip"; got != c.gzip {
				t.Errorf("gzip %t, want %t", got, c.gzip)
			} else if got {
				if body, err = gzip.NewReader(rsp.Body); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[string]*dto.MetricFamily{}
			for dec := expfmt.NewDecoder(body, format); ; {
				f := new(dto.MetricFamily)
				if err := dec.Decode(f); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				seen[f.GetName()] = f
			}
			if seen["go_goroutines"] == nil || seen["probed_tap_drops_total"] == nil {
				t.Errorf("%d families: not both ours and the others'", len(seen))
			}
			h := seen["probed_handshake_rtt_seconds"]
			if h == nil || len(h.Metric) != 3+len(ways) {
				t.Fatalf("handshake histogram %v", h)
			}
			if native := len(h.Metric[0].Histogram.PositiveSpan) > 0; native != (c.format == expfmt.TypeProtoDelim) {
				t.Errorf("native buckets %t as %s", native, format)
			}
		})
	}
}

type broken struct{}

func (broken) Gather() ([]*dto.MetricFamily, error) { return nil, errors.New("no such thing") }

// TestHandlerSaysWhatFailed gives a scrape that can't be whole a status that
// says so.
func TestHandlerSaysWhatFailed(t *testing.T) {
	rsp := httptest.NewRecorder()
	scenario(t).Handler(broken{}).ServeHTTP(rsp, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rsp.Code != http.StatusInternalServerError || !strings.Contains(rsp.Body.String(), "no such thing") {
		t.Errorf("%d %s", rsp.Code, rsp.Body)
	}
}

// A limitedWriter fails once it has taken left octets.
type limitedWriter struct{ left int }

var errGone = errors.New("the client is gone")

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errGone
	}
	w.left -= len(p)
	return len(p), nil
}

// TestWriteStopsWithTheClient breaks the connection at many places: the error
// comes back, and the next scrape is whole.
func TestWriteStopsWithTheClient(t *testing.T) {
	m := New(Options{})
	for _, name := range []string{"a", "b", "c"} {
		for i := range 200 {
			mustAdd(t, m, Labels{Job: name, Target: strings.Repeat("x", i)}, TargetOptions{Buckets: usualBuckets})
		}
	}
	for _, write := range []func(io.Writer) error{m.WriteText, m.WriteProtobuf} {
		var whole bytes.Buffer
		if err := write(&whole); err != nil {
			t.Fatal(err)
		}
		for left := 0; left < whole.Len(); left += whole.Len() / 7 {
			if err := write(&limitedWriter{left}); !errors.Is(err, errGone) {
				t.Errorf("after %d octets: %v", left, err)
			}
			var again bytes.Buffer
			if err := write(&again); err != nil || !bytes.Equal(again.Bytes(), whole.Bytes()) {
				t.Fatalf("the scrape after a broken one differs: %v", err)
			}
		}
	}
}

// A client has a bounded time for each piece of a scrape, and for what the server has
// left to send once the last is written.
func TestScrapeDeadline(t *testing.T) {
	rsp := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	began := time.Now()
	scenario(t).Handler(nil).ServeHTTP(rsp, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	n := len(rsp.set)
	if n < 1 || rsp.unbounded || rsp.set[n-1].IsZero() {
		t.Fatalf("deadlines %v, written without one: %v", rsp.set, rsp.unbounded)
	}
	if d := rsp.set[0].Sub(began); d < patience || d > patience+time.Minute {
		t.Errorf("the first is in %v", d)
	}
}

// deadlines notes the write deadlines that are set.
type deadlines struct {
	*httptest.ResponseRecorder
	set       []time.Time
	unbounded bool
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

func (d *deadlines) Write(b []byte) (int, error) {
	d.unbounded = d.unbounded || len(d.set) == 0 || d.set[len(d.set)-1].IsZero()
	return d.ResponseRecorder.Write(b)
}
