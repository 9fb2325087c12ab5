package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// What Prometheus 2.54 and later ask for, without native histograms.
const (
	prometheusAccepts  = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
	prometheusEncoding = "gzip"
)

// BenchmarkScraped runs the whole daemon with n targets behind a veth, the peer's
// kernel on the same processors, first without scrapes and then with one every second
// as Prometheus makes them. It reports of each how late the probes were (p50, p99 and
// the most, as the upper bounds of the buckets of probed_schedule_delay_seconds), what
// was skipped, and of the scrapes how long they took and what garbage each made.
func BenchmarkScraped(b *testing.B) {
	for _, c := range []struct {
		n        int
		interval string
	}{{10_000, "1s"}, {100_000, "10s"}, {100_000, "1s"}} {
		b.Run(fmt.Sprintf("targets=%d/interval=%s", c.n, c.interval), func(b *testing.B) {
			for range b.N {
				benchmarkScraped(b, c.n, c.interval)
			}
		})
	}
}

func benchmarkScraped(b *testing.B, n int, interval string) {
	const phase = 20 * time.Second
	each, err := time.ParseDuration(interval)
	if err != nil {
		b.Fatal(err)
	}
	here, there := lab.Pair(b)
	there.AnyIP("198.19.0.0/16")
	for _, port := range []int{80, 81} {
		there.Serve("tcp4", fmt.Sprintf("0.0.0.0:%d", port), lab.Discard)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "global: {limits: {packets_per_second: 1000000}}\njobs:\n- name: load\n  module: half_open\n  interval: %s\n  timeout: 900ms\n  targets:\n", interval)
	for i, a := 0, netip.MustParseAddr("198.19.0.1"); i < n; i++ {
		fmt.Fprintf(&text, "  - %s:%d\n", a, 80+i%2)
		if i%2 == 1 || n <= 30_000 {
			a = a.Next()
		}
	}
	file := filepath.Join(b.TempDir(), "probed.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := here.Command(context.WithoutCancel(b.Context()), "/proc/self/exe", "--config.file="+file)
	cmd.Env = append(os.Environ(), runAsProbed+"=1")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || b.Failed() {
			b.Errorf("probed ended: %v\n%s", err, said.String())
		}
	}()
	time.Sleep(max(2*each, 10*time.Second))
	begun := ask(b, here)
	time.Sleep(phase)
	quiet := ask(b, here)
	var took []time.Duration
	tick := time.NewTicker(time.Second) // which waits for a scrape that takes longer, as Prometheus does
	defer tick.Stop()
	cpu, since := lab.CPUTime(b, cmd.Process.Pid), time.Now()
	for time.Since(since) < phase {
		<-tick.C
		d, _ := timeScrape(b, here, prometheusAccepts, prometheusEncoding)
		took = append(took, d)
	}
	cpu = lab.CPUTime(b, cmd.Process.Pid) - cpu
	share := cpu.Seconds() / time.Since(since).Seconds()
	scraped := ask(b, here)
	quiet.report(b, "quiet", begun)
	scraped.report(b, "scraped", quiet)
	var all, most time.Duration
	for _, d := range took {
		all += d
		most = max(most, d)
	}
	b.ReportMetric(float64((all / time.Duration(len(took))).Milliseconds()), "scrape-ms")
	b.ReportMetric(float64(most.Milliseconds()), "scrape-most-ms")
	b.ReportMetric((scraped.value["go_memstats_alloc_bytes_total"]-quiet.value["go_memstats_alloc_bytes_total"])/float64(len(took)+1)/(1<<20), "garbage-MiB/scrape")
	b.ReportMetric(100*share, "scraped-cpu-%")
	b.ReportMetric(lab.Resident(b, cmd.Process.Pid), "rss-MiB")
	b.ReportMetric(0, "ns/op")
}

// figures are what probed says about itself at one moment.
type figures struct {
	value   map[string]float64
	bounds  []float64 // of the schedule delay's buckets, ms
	counts  []float64 // cumulative
	skipped float64
}

// ask scrapes probed's figures about itself.
func ask(b *testing.B, h *lab.Host) *figures {
	b.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return h.Dial(network, addr, 5*time.Second)
		},
	}}
	rsp, err := client.Get("http://127.0.0.1:10965/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer rsp.Body.Close()
	f := &figures{value: make(map[string]float64)}
	for lines := bufio.NewScanner(rsp.Body); lines.Scan(); {
		series, text, _ := strings.Cut(lines.Text(), " ")
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch le, is := strings.CutPrefix(series, `probed_schedule_delay_seconds_bucket{le="`); {
		case is:
			bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64)
			if err != nil {
				b.Fatal(err)
			}
			f.bounds, f.counts = append(f.bounds, bound*1e3), append(f.counts, v)
		case strings.HasPrefix(series, "probed_probes_skipped_total{"):
			f.skipped += v
		case strings.HasPrefix(series, "go_"):
			f.value[series] = v
		}
	}
	return f
}

// report says how late probes were since other figures.
func (f *figures) report(b *testing.B, name string, since *figures) {
	last := len(f.counts) - 1
	all := f.counts[last] - since.counts[last]
	quantile := func(q float64) float64 {
		for i := range f.counts {
			if f.counts[i]-since.counts[i] >= q*all {
				return f.bounds[i]
			}
		}
		return f.bounds[last]
	}
	b.ReportMetric(quantile(0.5), name+"-p50-ms")
	b.ReportMetric(quantile(0.99), name+"-p99-ms")
	b.ReportMetric(quantile(0.999), name+"-p99.9-ms")
	b.ReportMetric(quantile(1), name+"-most-ms")
	b.ReportMetric(f.skipped-since.skipped, name+"-skipped")
	b.ReportMetric(all, name+"-probes")
}

// timeScrape scrapes once and returns how long it took and how many octets came.
func timeScrape(b *testing.B, h *lab.Host, accept, encoding string) (time.Duration, int64) {
	b.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableCompression: true,
		DisableKeepAlives:  true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return h.Dial(network, addr, 5*time.Second)
		},
	}}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://127.0.0.1:10965/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began), n
}
