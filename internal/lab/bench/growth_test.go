package bench

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A size is what probed has to do; all sizes of a kind make the same number of probes
// a second.
type size struct {
	module  string
	targets int
	rate    int    // probes a second
	counter string // the targets' kernel's, which counts them
}

func sizes() []size {
	return []size{
		{"half_open", 100, 10_000, reset}, {"half_open", 1000, 10_000, reset},
		{"half_open", 10_000, 10_000, reset}, {"half_open", 100_000, 10_000, reset},
		{"active_close", 100, 1000, accepted}, {"active_close", 1000, 1000, accepted}, {"active_close", 10_000, 1000, accepted},
	}
}

// TestGrowth has probed make the same number of probes a second to ever more
// targets, and asks what one takes of a processor, what memory all take, and how
// long a scrape lasts and is.
func TestGrowth(t *testing.T) {
	b := open(t)
	for range min(rounds(t), 3) {
		for _, s := range sizes() {
			name := fmt.Sprintf("Growth/probe=%s/targets=%d", s.module, s.targets)
			if rounds(t) == 1 {
				if s.targets > 100 {
					continue
				}
				s.targets, s.rate = 20, 200
			}
			l := s.measure(t)
			l.Name = name
			b.add(l)
		}
	}
}

// measure runs the daemon once.
func (s size) measure(t *testing.T) (l Line) {
	t.Helper()
	ok := t.Run(fmt.Sprintf("%s-%d", s.module, s.targets), func(t *testing.T) {
		w := newWorld(t)
		w.steer(w.there, theirs)
		for port := range 2 { // there are fewer addresses than targets
			w.there.Serve("tcp4", fmt.Sprintf("0.0.0.0:%d", firstPort+port), lab.Discard)
		}
		interval := time.Second * time.Duration(s.targets) / time.Duration(s.rate)
		r := w.run(w.probed(asked{module: "probe: " + s.module, targets: s.targets, interval: interval}))
		lab.Eventually(t, 30*time.Second, func() error {
			if got := w.there.Counters()[s.counter]; got < int64(s.targets) {
				return fmt.Errorf("%d probes of %d targets", got, s.targets)
			}
			return nil
		})
		time.Sleep(2 * window(t))
		from := w.take(r.pid)
		time.Sleep(2 * window(t))
		span := from.until(w.take(r.pid))
		done := float64(span.peer[s.counter])
		memory := lab.Resident(t, r.pid)
		l.Figures = []Figure{
			{float64(span.process) / done, "cpu-ns/probe"}, {done / span.length.Seconds(), "probes/s"},
			{memory, "rss-MiB"}, {memory * (1 << 20) / float64(s.targets), "rss-B/target"},
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
			return samples(body, func(m sample) { lapses[m.name] += m.value })
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
