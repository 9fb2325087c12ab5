package discovery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	sd "github.com/prometheus/prometheus/discovery"
	sdhttp "github.com/prometheus/prometheus/discovery/http"
)

// What can't start at all is told before anything is changed, and by its job.
func TestCheck(t *testing.T) {
	good := &sdhttp.SDConfig{URL: "http://127.0.0.1:1/", RefreshInterval: model.Duration(1e9), HTTPClientConfig: config.DefaultHTTPClientConfig}
	bad := *good
	bad.HTTPClientConfig.TLSConfig.CAFile = "/nonexistent/ca.pem"
	if err := Check(map[string]sd.Configs{"a": {good}, "b": {good, good}}); err != nil {
		t.Error(err)
	}
	err := Check(map[string]sd.Configs{"a": {good}, "b": {good, &bad}})
	if err == nil || !strings.HasPrefix(err.Error(), `job "b": http_sd_configs: `) || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("error %v", err)
	}
}

// An answer may be long, and not without end; the next one begins anew.
func TestLongAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for { // as many MiB as asked for
			var n byte
			if _, err := fmt.Fscanf(c, "%d\n", &n); err != nil {
				return
			}
			chunk := make([]byte, 1<<20)
			for range n {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}
	}()
	c, err := newDialer().dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		fmt.Fprintln(c, 60)
		if _, err := io.CopyN(io.Discard, c, 60<<20); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(c, 80)
	n, err := io.Copy(io.Discard, c)
	if err == nil || !strings.Contains(err.Error(), "64 MiB") || n < maxAnswer || n > maxAnswer+1<<20 {
		t.Errorf("%d octets, then %v", n, err)
	}
}

// TestMetricsDocumented holds Prometheus's own metrics against docs/metrics.md.
func TestMetricsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	r := New(nil, nil, nil)
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.registry.Describe(descs)
	}()
	name := regexp.MustCompile(`fqName: "([^"]*)"`)
	exported := make(map[string]bool)
	for d := range descs {
		exported[name.FindStringSubmatch(d.String())[1]] = true
	}
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("`(prometheus_sd_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	for n := range exported {
		if !documented[n] {
			t.Errorf("%s is not in docs/metrics.md", n)
		}
	}
	for n := range documented {
		if !exported[n] {
			t.Errorf("%s is in docs/metrics.md and not exported", n)
		}
	}
	if len(exported) < 10 {
		t.Errorf("%d metrics", len(exported))
	}
}

// TestReloadsLeaveNoConnections has a reload change a source that a web server
// answers, time and again: what is left is the last one's connection.
func TestReloadsLeaveNoConnections(t *testing.T) {
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	asked := make(chan string, 100)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `[{"targets": ["127.0.0.1:1"]}]`)
		asked <- r.URL.Path
	}))
	web.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if open[c] = true; s == http.StateClosed {
			delete(open, c)
		}
	}
	web.Start()
	defer web.Close()
	left := func(most int) (conns, goroutines int) {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			conns, goroutines = len(open), runtime.NumGoroutine()
			mu.Unlock()
			if conns <= most || time.Now().After(end) {
				return conns, goroutines
			}
		}
	}

	r := New(func() {}, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer cancel()
	after := 0 // goroutines with one source
	for i := range 20 {
		path := fmt.Sprintf("/%d", i)
		c := &sdhttp.SDConfig{URL: web.URL + path, RefreshInterval: model.Duration(time.Minute), HTTPClientConfig: config.DefaultHTTPClientConfig}
		if err := r.Apply(map[string]sd.Configs{"job": {c}}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-asked:
			if got != path {
				t.Fatalf("asked for %s, want %s", got, path)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is not asked for", path)
		}
		conns, goroutines := left(1)
		if conns > 1 {
			t.Fatalf("%d connections after %d reloads", conns, i)
		}
		if i == 0 {
			after = goroutines
		}
	}
	const slack = 6 // of what is about to end
	if _, now := left(1); now > after+slack {
		t.Errorf("%d goroutines after 20 reloads, %d after one", now, after)
	}
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if conns, _ := left(0); conns > 0 {
		t.Errorf("%d connections without a source", conns)
	}
}
