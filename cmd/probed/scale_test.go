package main

import (
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

// BenchmarkDaemon runs the whole daemon, with n targets that each have an address of
// their own behind a veth and are probed once a second, and reports what docs/scale.md
// quotes: what of a processor it takes, without scrapes and the peer's kernel included
// (it answers within our system calls); its resident memory; and how long a scrape
// takes and how long it is, by the format that is asked for.
func BenchmarkDaemon(b *testing.B) {
	for _, c := range []struct {
		module string
		n      int
	}{
		{"half_open", 100}, {"half_open", 1000}, {"half_open", 10_000}, {"half_open", 30_000},
		{"active_close", 100}, {"active_close", 1000},
	} {
		for _, buckets := range []string{"default", "none"} {
			if buckets == "none" && c.n != 10_000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/targets=%d/buckets=%s", c.module, c.n, buckets), func(b *testing.B) {
				for range b.N {
					benchmarkDaemon(b, c.module, c.n, buckets == "none")
				}
			})
		}
	}
}

func benchmarkDaemon(b *testing.B, module string, n int, native bool) {
	const settle, seconds = 30, 10 // the first probes fill tables, rings and pages
	here, there := lab.Pair(b)
	there.AnyIP("198.19.0.0/16")
	there.Serve("tcp4", "0.0.0.0:80", lab.Discard)
	file := filepath.Join(b.TempDir(), "probed.yml")
	var text strings.Builder
	text.WriteString("global: {limits: {packets_per_second: 1000000}}\nmodules:\n  m: {probe: " + module)
	if native {
		text.WriteString(", buckets: []")
	}
	text.WriteString("}\njobs:\n- name: load\n  module: m\n  interval: 1s\n  targets:\n")
	for i, a := 0, netip.MustParseAddr("198.19.0.1"); i < n; i, a = i+1, a.Next() {
		fmt.Fprintf(&text, "  - %s:80\n", a)
	}
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
	time.Sleep(settle * time.Second)
	before := processTime(b, cmd.Process.Pid)
	time.Sleep(seconds * time.Second)
	used := processTime(b, cmd.Process.Pid) - before
	b.ReportMetric(100*used.Seconds()/seconds, "cpu-%")
	b.ReportMetric(float64(used.Microseconds())/float64(seconds*n), "cpu-µs/probe")
	b.ReportMetric(resident(b, cmd.Process.Pid), "rss-MiB")
	for _, f := range []struct{ name, accept, encoding string }{
		{"text", "text/plain", ""},
		{"gzip", "text/plain", "gzip"},
		{"protobuf-gzip", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "gzip"},
	} {
		before := processTime(b, cmd.Process.Pid)
		took, size := timeScrape(b, here, f.accept, f.encoding)
		b.ReportMetric(float64(took.Milliseconds()), f.name+"-ms")
		b.ReportMetric(float64((processTime(b, cmd.Process.Pid) - before).Milliseconds()), f.name+"-cpu-ms")
		b.ReportMetric(float64(size)/1e6, f.name+"-MB")
	}
	skipped, bad := lapses(b, here)
	if bad != "" {
		b.Error(bad)
	}
	b.ReportMetric(100*skipped/float64((settle+seconds)*n), "skipped-%")
}

// BenchmarkOnDemand makes half_open probes by /probe, one after the other, and reports
// what each takes of a processor, this client's share not included, and what it answers.
func BenchmarkOnDemand(b *testing.B) {
	here, there := lab.Pair(b)
	there.Listen("tcp4", "0.0.0.0:80")
	file := filepath.Join(b.TempDir(), "probed.yml")
	if err := os.WriteFile(file, []byte("jobs: []\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := here.Command(context.WithoutCancel(b.Context()), "/proc/self/exe", "--config.file="+file)
	cmd.Env = append(os.Environ(), runAsProbed+"=1")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	time.Sleep(time.Second)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return here.Dial(network, addr, 5*time.Second)
		},
	}}
	url := "http://127.0.0.1:10965/probe?module=half_open&target=" + netip.AddrPortFrom(there.Addr4(), 80).String()
	var body []byte
	before := processTime(b, cmd.Process.Pid)
	for b.Loop() {
		resp, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		if body, err = io.ReadAll(resp.Body); err != nil || !bytes.Contains(body, []byte("\nprobe_success 1\n")) {
			b.Fatalf("%v %s", err, body)
		}
		_ = resp.Body.Close()
		time.Sleep(20 * time.Millisecond) // within the limit for an address
	}
	b.ReportMetric(float64((processTime(b, cmd.Process.Pid)-before).Microseconds())/float64(b.N), "cpu-µs/probe")
	series := 0
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	b.ReportMetric(float64(series), "series")
}

// processTime is what a process has used of the processors.
func processTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, proc(5), in USER_HZ
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// resident is a process's resident memory, in MiB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
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

// lapses returns how many probes were skipped, and says what else went wrong that
// such a load must do without.
func lapses(b *testing.B, h *lab.Host) (skipped float64, bad string) {
	b.Helper()
	conn, err := h.Dial("tcp", "127.0.0.1:10965", 5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n")
	body, err := io.ReadAll(conn)
	if err != nil {
		b.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(body)) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		v, err := strconv.ParseFloat(fields[1], 64)
		if err != nil || v == 0 {
			continue
		}
		switch metric, _, _ := strings.Cut(fields[0], "{"); metric {
		case "probed_probes_skipped_total":
			skipped += v
		case "probed_probe_failures_total", "probed_probes_discarded_total", "probed_tap_drops_total":
			all = append(all, fields[0]+" "+fields[1])
		}
	}
	return skipped, strings.Join(all, ", ")
}
