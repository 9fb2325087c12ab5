package discovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

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
	c, err := dial(context.Background(), "tcp", l.Addr().String())
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
	r := New(nil, nil)
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
