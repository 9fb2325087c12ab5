package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

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
	before := lab.CPUTime(b, cmd.Process.Pid)
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
	b.ReportMetric(float64((lab.CPUTime(b, cmd.Process.Pid)-before).Microseconds())/float64(b.N), "cpu-µs/probe")
	series := 0
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	b.ReportMetric(float64(series), "series")
}
