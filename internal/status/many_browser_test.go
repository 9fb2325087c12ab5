package status

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// many is a world of n targets, of which each has made so many probes.
func many(t testing.TB, n, probes int) *world {
	w := newWorld(t)
	for i := range n {
		tgt := w.add(Target{
			Address: fmt.Sprintf("host-%05d.rack%02d.example.net:443", i, i%40),
			Job:     "fleet",
			Labels:  []Label{{"rack", fmt.Sprintf("rack%02d", i%40)}, {"row", fmt.Sprint(i % 8)}},
		})
		for k := range probes {
			o := outcome{rtt: time.Duration(200+i%977+k%31) * time.Microsecond, ago: time.Duration(probes-k) * time.Second}
			if i%1999 == 7 && k > probes-9 || i%97 == 0 && k%29 == 4 {
				o.rtt = 0
			}
			w.probe(tgt, o)
		}
	}
	return w
}

// heap is what is in use, in MiB.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// Ten thousand targets are a page of a hundred, which comes at once and stays live.
func TestBrowserTenThousand(t *testing.T) {
	const n = 10000
	empty := heap()
	w := many(t, n, 64)
	probed := heap()
	s := w.serve(t)
	begun := time.Now()
	answer, err := http.Get(s.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	size, err := io.Copy(io.Discard, answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	answer.Body.Close()
	t.Logf("the first page took the server %v: %d KiB", time.Since(begun), size>>10)

	b := launch(t)
	p := b.tab(t)
	p.size(wide, high)
	for _, tt := range []struct{ path, first string }{
		{"/", "host-00007."},
		{"/?sort=-p99", ""},
		{"/?sort=target&page=100", "host-09900."},
		{"/?group=rack", ""},
		{"/?q=rack17&sort=target", "host-00017."},
	} {
		p.open(s.URL, tt.path)
		took := time.Duration(eval[float64](p, `performance.timing.loadEventEnd - performance.timing.navigationStart`)) * time.Millisecond
		rows := eval[int](p, `document.querySelectorAll("tr[data-id]").length`)
		nodes := eval[int](p, `document.querySelectorAll("*").length`)
		t.Logf("%-24s %d rows, %d elements, after %v", tt.path, rows, nodes, took)
		if rows != 100 {
			t.Errorf("%s: %d rows", tt.path, rows)
		}
		if took > 3*time.Second {
			t.Errorf("%s: took %v", tt.path, took)
		}
		if first := eval[[]string](p, names)[0]; tt.first != "" && first[:len(tt.first)] != tt.first {
			t.Errorf("%s: the first is %s, want %s", tt.path, first, tt.first)
		}
	}
	p.open(s.URL, "/")
	p.wait(isLive)
	p.screenshot("list-10000")

	// All of them probed once more: the page follows, and the browser's main
	// thread has time to spare. It lays the page out a few times, not once a row.
	call(p, performance.Enable, performance.EnableParams{})
	before := layouts(p)
	p.run(chromedp.Evaluate[chromedp.Void](`window.slow = 0, new PerformanceObserver((l) => l.getEntries().forEach((e) => { window.slow = Math.max(window.slow, e.duration); })).observe({ type: "longtask" })`))
	cell := `document.querySelector("tr[data-id] td.c-loss").textContent`
	loss := eval[string](p, cell)
	for i := range n {
		w.probe(&w.targets[i], outcome{})
	}
	took := p.wait(cell + ` !== "` + loss + `" && document.querySelector('[data-count="down"]').textContent === "10,000"`)
	slow := eval[float64](p, `window.slow`)
	t.Logf("10,000 new probes showed within %v; the page's longest task took %v ms", took, slow)
	if took > 2*time.Second {
		t.Errorf("10,000 new probes showed after %v, want 2 s", took)
	}
	t.Logf("memory: %.0f MiB for the recorders and metrics of %d targets, %.0f MiB more with a viewer", probed-empty, n, heap()-probed)
	if slow > 1000 {
		t.Errorf("the page was busy for %v ms", slow)
	}
	if laid := layouts(p) - before; laid > 50 {
		t.Errorf("the page was laid out %v times for a hundred rows", laid)
	}
}

// layouts is how often a page has been laid out.
func layouts(p *tab) float64 {
	for _, m := range call(p, performance.GetMetrics, cdp.Empty{}).Metrics {
		if m.Name == "LayoutCount" {
			return m.Value
		}
	}
	p.t.Fatal("Chromium does not count layouts")
	return 0
}

// What a viewer costs a second, when every target has something new.
func BenchmarkSnapshot(b *testing.B) {
	w := many(b, 10000, 256)
	q, err := parseQuery(nil, pageSize)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	w.clock = func() time.Time { return now }
	m := snapshots{source: w, clock: w.clock}
	for _, order := range []string{"state", "p99"} {
		q.sort = order
		b.Run(order, func(b *testing.B) {
			b.ReportAllocs()
			v := &viewer{query: q}
			v.look(m.get())
			for range b.N {
				b.StopTimer()
				for i := range w.targets {
					w.probe(&w.targets[i], outcome{rtt: time.Millisecond})
				}
				now = now.Add(snapshotEvery)
				b.StartTimer()
				v.look(m.get())
			}
		})
	}
}
