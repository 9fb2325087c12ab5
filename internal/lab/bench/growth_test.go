package bench

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// perSecond is the rate at which all sizes are compared.
const perSecond = 10_000

// TestGrowth has probed make the same number of probes a second to ever more
// targets, and asks what one takes of a processor, what memory all take, and how
// long a scrape lasts and is.
func TestGrowth(t *testing.T) {
	b := open(t)
	sizes, rate := []int{100, 1000, 10_000, 100_000}, perSecond
	if rounds(t) == 1 {
		sizes, rate = []int{20, 40}, 200
	}
	for range min(rounds(t), 3) {
		for _, n := range sizes {
			l := grown(t, n, rate)
			l.Name = fmt.Sprintf("Growth/targets=%d", n)
			b.add(l)
		}
	}
}

// grown measures one size.
func grown(t *testing.T, n, rate int) (l Line) {
	t.Helper()
	ok := t.Run(fmt.Sprint(n), func(t *testing.T) {
		w := newWorld(t)
		w.steer(w.there, theirs)
		w.listen()
		interval := time.Second * time.Duration(n) / time.Duration(rate)
		r := w.run(w.probed(asked{module: "probe: half_open", targets: n, interval: interval}))
		lab.Eventually(t, 30*time.Second, func() error {
			if got := w.there.Counters()[reset]; got < int64(n) {
				return fmt.Errorf("%d probes of %d targets", got, n)
			}
			return nil
		})
		time.Sleep(2 * window(t))
		from := w.take(r.pid)
		time.Sleep(2 * window(t))
		span := from.until(w.take(r.pid))
		done := float64(span.peer[reset])
		memory := resident(t, r.pid)
		l.Figures = []Figure{
			{float64(span.process) / done, "cpu-ns/probe"}, {done / span.length.Seconds(), "probes/s"},
			{memory, "rss-MiB"}, {memory * (1 << 20) / float64(n), "rss-B/target"},
		}
		client := w.client(w.here, 1)
		for _, f := range []struct{ name, accept, encoding string }{
			{"text", "text/plain", ""},
			{"gzip", accept, "gzip"},
			{"protobuf-gzip", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "gzip"},
		} {
			took, length := w.timeScrape(client, f.accept, f.encoding)
			l.Figures = append(l.Figures, Figure{float64(took.Microseconds()) / 1e3, f.name + "-ms"}, Figure{float64(length) / 1e6, f.name + "-MB"})
		}
		lapses := make(map[string]float64)
		err := get(t.Context(), client, probedMetrics, func(body io.Reader) error {
			return samples(body, func(s sample) { lapses[s.name] += s.value })
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, none := range []string{"probed_probe_failures_total", "probed_probes_discarded_total", "probed_tap_drops_total"} {
			if lapses[none] != 0 {
				t.Errorf("%s is %v", none, lapses[none])
			}
		}
		total := lapses["probed_probes_total"] + lapses["probed_probes_skipped_total"]
		l.Figures = append(l.Figures, Figure{100 * lapses["probed_probes_skipped_total"] / total, "skipped-%"})
	})
	if !ok {
		t.FailNow()
	}
	return l
}

// timeScrape tells how long a scrape took, and how many octets came.
func (w *world) timeScrape(client *http.Client, accept, encoding string) (time.Duration, int64) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, probedMetrics, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %v", resp.Status, err)
	}
	return time.Since(began), n
}
