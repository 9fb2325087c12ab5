package metrics

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// populated returns Metrics with n targets, and the targets: half_open, or of
// the given kinds in turn.
func populated(tb testing.TB, n int, kinds ...way) (*Metrics, []*Target) {
	if kinds == nil {
		kinds = []way{{name: "half_open"}}
	}
	m := New(Options{Stats: func() Stats { return Stats{} }})
	targets := make([]*Target, n)
	for i := range targets {
		w := kinds[i%len(kinds)]
		targets[i] = mustAdd(tb, m, Labels{
			Job: "edge", Module: w.name, Target: fmt.Sprintf("198.18.%d.%d:443", i/256, i%256),
			Extra: map[string]string{"team": "core"},
		}, TargetOptions{Kind: w.kind, Measure: w.measure, Buckets: usualBuckets})
	}
	return m, targets
}

// warm gives each target 1,000 probes around its own latency, which populate
// some thirty native buckets of each of its histograms.
func warm(targets []*Target) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, target := range targets {
		median := 100e-6 * math.Exp2(rng.Float64()*10)
		for range 1000 {
			d := time.Duration(1e9 * median * math.Exp2(rng.NormFloat64()*0.6))
			for _, o := range answered(d) {
				target.Observe(&o)
			}
			if target.closing == nil {
				continue
			}
			for _, o := range closed(d) {
				target.Observe(&o)
			}
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestMemoryPerTarget holds what this package has of a target: the whole of the daemon
// is to have 2 KiB of one that is idle, and 6 KiB of one that is warm.
func TestMemoryPerTarget(t *testing.T) {
	const n = 2000
	before := heap()
	m, targets := populated(t, n)
	m.snapshot()
	idle := (heap() - before) / n
	warm(targets)
	warmed := (heap() - before) / n
	buckets := 0
	for _, target := range targets {
		buckets += len(target.rtt.native())
	}
	t.Logf("octets per target: %d idle, %d warm with %d native buckets", idle, warmed, buckets/n)
	if idle > 400 || warmed > 900 {
		t.Errorf("octets per target: %d idle, %d warm; want at most 400 and 900", idle, warmed)
	}
	runtime.KeepAlive(m)
}

// TestScrapeAllocations bounds what a scrape allocates: a few for probed
// itself, none per target.
func TestScrapeAllocations(t *testing.T) {
	m, targets := populated(t, 1000, append(ways, way{name: "half_open"})...)
	warm(targets[:50])
	for name, write := range map[string]func(io.Writer) error{"text": m.WriteText, "protobuf": m.WriteProtobuf} {
		if err := write(io.Discard); err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(10, func() {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		})
		if t.Logf("%s: %v allocations a scrape of 1,000 targets", name, n); n > 100 {
			t.Errorf("%s: %v allocations a scrape of 1,000 targets, want at most 100", name, n)
		}
	}
}

// TestScrapeGarbage bounds the octets that a scrape leaves to the garbage collector, as
// Prometheus makes it: next to none, however many targets there are.
func TestScrapeGarbage(t *testing.T) {
	m, targets := populated(t, 1000)
	warm(targets[:20])
	h := m.Handler(nil)
	for name, accept := range map[string]string{"text": acceptClassic, "protobuf": acceptNative} {
		req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", "gzip")
		least := uint64(math.MaxUint64)
		for range 8 { // a collection may empty the pools
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			h.ServeHTTP(&nowhere{header: make(http.Header)}, req)
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		if t.Logf("%s: %d octets of garbage a scrape", name, least); least > 64<<10 {
			t.Errorf("%s: %d octets of garbage a scrape of 1,000 targets, want 64 KiB at most", name, least)
		}
	}
}

// A nowhere is a client that reads all.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

func BenchmarkObserve(b *testing.B) {
	_, targets := populated(b, 1)
	warm(targets)
	for _, o := range answered(20 * time.Millisecond) {
		b.Run(o.Kind.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				targets[0].Observe(&o)
			}
		})
	}
	b.Run("probe", func(b *testing.B) { // all that one is observed of
		all := answered(20 * time.Millisecond)
		b.ReportAllocs()
		for b.Loop() {
			targets[0].ObserveAll(all)
		}
	})
	b.Run("client_golang_histogram", func(b *testing.B) {
		h := reference()
		for b.Loop() {
			h.Observe(0.02)
		}
	})
}

// BenchmarkScrape is one scrape of 10,000 warm targets through HTTP, as
// Prometheus and as curl would ask.
func BenchmarkScrape(b *testing.B) {
	m, targets := populated(b, 10_000)
	warm(targets)
	for _, c := range []struct{ name, accept, encoding string }{
		{"text", "", "identity"},
		{"text_gzip", acceptClassic, "gzip"},
		{"protobuf", acceptNative, "identity"},
		{"protobuf_gzip", acceptNative, "gzip"},
	} {
		b.Run(c.name, func(b *testing.B) { scrape(b, m.Handler(nil), c.accept, c.encoding) })
	}
	families, err := m.Gather()
	if err != nil {
		b.Fatal(err)
	}
	// What the same families cost through client_golang, encoding alone: the
	// families are ready.
	through := promhttp.HandlerFor(ready(families), promhttp.HandlerOpts{})
	b.Run("text_by_promhttp", func(b *testing.B) { scrape(b, through, "", "identity") })
	b.Run("protobuf_by_promhttp", func(b *testing.B) { scrape(b, through, acceptNative, "identity") })
}

type ready []*dto.MetricFamily

func (r ready) Gather() ([]*dto.MetricFamily, error) { return r, nil }

func scrape(b *testing.B, h http.Handler, accept, encoding string) {
	server := httptest.NewServer(h)
	defer server.Close()
	req, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", encoding)
	b.ReportAllocs()
	var size int64
	for b.Loop() {
		rsp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		if size, err = io.Copy(io.Discard, rsp.Body); err != nil {
			b.Fatal(err)
		}
		rsp.Body.Close()
	}
	b.ReportMetric(float64(size), "B/scrape")
}

// BenchmarkWrite is the scrape without HTTP.
func BenchmarkWrite(b *testing.B) {
	m, targets := populated(b, 10_000)
	warm(targets)
	for name, write := range map[string]func(io.Writer) error{"text": m.WriteText, "protobuf": m.WriteProtobuf} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := write(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func reference() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "reference", Buckets: usualBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: maxNative,
	})
}

// BenchmarkClientGolangMemory is what client_golang's histogram needs a
// target: the figures behind having one of our own.
func BenchmarkClientGolangMemory(b *testing.B) {
	const n = 1000
	rng := rand.New(rand.NewPCG(5, 6))
	for b.Loop() {
		before := heap()
		all := make([]prometheus.Histogram, n)
		for i := range all {
			all[i] = reference()
		}
		idle := heap() - before
		for _, h := range all {
			median := 100e-6 * math.Exp2(rng.Float64()*10)
			for range 1000 {
				h.Observe(median * math.Exp2(rng.NormFloat64()*0.6))
			}
			if err := h.Write(new(dto.Metric)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(idle)/n, "B/idle")
		b.ReportMetric(float64(heap()-before)/n, "B/warm")
		runtime.KeepAlive(all)
	}
}
