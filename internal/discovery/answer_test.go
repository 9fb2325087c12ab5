package discovery

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	sd "github.com/prometheus/prometheus/discovery"
	sdhttp "github.com/prometheus/prometheus/discovery/http"

	"github.com/probed/probed/internal/memory"
)

// An answer that there is no memory for is not read, by TLS either, and little is taken to
// see that; one that fits is, and leaves the memory to the next.
func TestAnswersNeedRoom(t *testing.T) {
	var body string
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}))
	defer web.Close()
	metrics, err := sd.CreateAndRegisterSDMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c := &sdhttp.SDConfig{URL: web.URL, RefreshInterval: model.Duration(time.Minute), HTTPClientConfig: config.DefaultHTTPClientConfig}
	c.HTTPClientConfig.TLSConfig.InsecureSkipVerify = true
	d, err := newSource(c, memory.Limited(240<<20)).NewDiscoverer(sd.DiscovererOptions{
		Logger: slog.New(slog.DiscardHandler), Metrics: metrics.MechanismMetrics["http"], SetName: "job",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.(*listener).web.close()
	refresh := func() (targets int, err error) {
		groups, err := d.(*listener).Discoverer.(*sdhttp.Discovery).Refresh(context.Background())
		for _, g := range groups {
			targets += len(g.Targets)
		}
		return targets, err
	}
	list := func(n int) string { return `[{"targets": ["` + strings.Repeat(`x","`, n-1) + `x"]}]` }
	for what, long := range map[string]string{
		"targets": list(300_000),
		"groups":  "[" + strings.Repeat("{},", 300_000) + "{}]",
		"labels":  `[{"labels": {"a": ""` + strings.Repeat(`,"a":""`, 1_500_000) + "}}]",
		"a text":  `[{"targets": ["` + strings.Repeat("x", 34<<20) + `"]}]`,
	} {
		body = long
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := refresh()
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "the answer is too large: reading it takes ") {
			t.Errorf("%s: %v", what, err)
		}
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 160 { // in all, also what is collected again
			t.Errorf("%s: %d MiB to refuse it", what, took)
		}
	}
	for range 3 {
		body = list(20_000)
		if n, err := refresh(); n != 20_000 || err != nil {
			t.Errorf("%d targets, %v", n, err)
		}
	}
}

// What is a target, a group or a label is counted, and what stands in a text is none.
func TestAnswerCounted(t *testing.T) {
	for text, want := range map[string]int64{
		`[]`:                     perGroup,
		`[{"targets": ["a:1"]}]`: perGroup + perTarget,
		`[{"targets": ["a,\"[{,:1", "b"], "labels": {"k": "v,,", "l": "w"}}, {}]`:          2*perGroup + 2*perTarget + 2*perLabel,
		`[{"labels": {"k": "v"}, "targets": ["a", "b", "c"]}, {"targets": [], "x": [[]]}]`: 2*perGroup + 5*perTarget + perLabel,
	} {
		a := new(answer)
		for _, c := range []byte(text) {
			a.count(c)
		}
		if got := a.cost - perOctet*int64(len(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
