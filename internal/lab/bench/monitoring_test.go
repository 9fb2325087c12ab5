package bench

import (
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A monitor probes a number of targets once a second for as long as it runs.
type monitor struct {
	name    string
	targets int // in a run of several rounds
	smoke   int // in a run of one
	// start starts it with n targets, and what drives it.
	start func(w *world, n int) *running
	// metrics is what is scraped; "" where the probe is the scrape, or none can be had.
	metrics string
	// counter is the targets' kernel's, which counts its probes.
	counter string
	// books, at a URL, is the metric by which it counts its results, if that is less.
	books, booksAt string
}

const (
	accepted = "TcpPassiveOpens" // a connection made it to accept
	reset    = "TcpAttemptFails" // a handshake was ended by a RST
	pinged   = "IcmpOutEchoReps"
)

// scrapeInterval is Prometheus's, as its own example has it.
const scrapeInterval = 15 * time.Second

// TestMonitoring has probed and the tools that people monitor with probe many
// targets once a second, and asks what a probe takes of a processor.
func TestMonitoring(t *testing.T) {
	b := open(t)
	daemon := func(module string) func(*world, int) *running {
		return func(w *world, n int) *running {
			return w.run(w.probed(asked{module: module, targets: n, interval: time.Second}))
		}
	}
	// What the kernel takes of that alone: as many SYNs go one behind the other as the daemon takes along,
	// in bursts and with pauses as the daemon's (probe/engine: maxCompany, burst, burstGap).
	bare := func(options ...string) func(*world, int) *running {
		return func(w *world, n int) *running {
			return w.run(w.bare(n, n, append(options, "-together", fmt.Sprint(min(32, max(n/40, 1))), "-burst", "4", "-gap", "50us")...))
		}
	}
	for range rounds(t) {
		for _, m := range []monitor{
			{name: "probed", targets: 10_000, smoke: 100, start: daemon("probe: half_open"), metrics: probedMetrics, counter: reset},
			{name: "probed-packet", targets: 10_000, smoke: 100, start: daemon("probe: half_open, transmit: packet"), metrics: probedMetrics, counter: reset},
			{name: "probed-active_close", targets: 10_000, smoke: 100, start: daemon("probe: active_close"), metrics: probedMetrics, counter: accepted},
			{name: "bare", targets: 10_000, smoke: 100, start: bare(), counter: reset},
			{name: "bare-packet", targets: 10_000, smoke: 100, start: bare("-packet"), counter: reset},
			{name: "net.Dialer", targets: 10_000, smoke: 100, start: func(w *world, n int) *running {
				return w.run(w.dialer(w.here, ours, "-first", fmt.Sprintf("%s:%d", target(0), firstPort), "-n", fmt.Sprint(n)))
			}, metrics: "http://127.0.0.1:9000/metrics", counter: accepted},
			{name: "probed", targets: 2000, smoke: 50, start: daemon("probe: half_open"), metrics: probedMetrics, counter: reset},
			{name: "bare", targets: 2000, smoke: 50, start: bare(), counter: reset},
			{name: "blackbox_exporter", targets: 2000, smoke: 100, start: func(w *world, n int) *running {
				r := w.run(w.blackbox(ours))
				w.await("http://127.0.0.1:9115/metrics")
				w.drive(n, time.Second)
				return r
			}, counter: accepted},
			{name: "probed", targets: 1000, smoke: 50, start: daemon("probe: half_open"), metrics: probedMetrics, counter: reset},
			{name: "bare", targets: 1000, smoke: 50, start: bare(), counter: reset},
			{name: "smokeping_prober", targets: 1000, smoke: 50, start: func(w *world, n int) *running {
				// On every core: one would only hide what it needs.
				return w.run(w.smokeping(-1, n))
			}, counter: pinged, books: "smokeping_response_duration_seconds_count", booksAt: "http://127.0.0.1:9374/metrics"},
		} {
			n := m.targets
			if rounds(t) == 1 {
				n = m.smoke
			}
			l := m.measure(t, n)
			l.Name = fmt.Sprintf("Monitoring/targets=%d/tool=%s", m.targets, m.name)
			b.add(l)
		}
	}
}

// measure runs a monitor once: what its probes take, what a scrape does, and both
// together with a scrape every 15 s.
func (m monitor) measure(t *testing.T, n int) (l Line) {
	t.Helper()
	ok := t.Run(fmt.Sprintf("%s-%d", m.name, n), func(t *testing.T) {
		w := newWorld(t)
		w.steer(w.there, theirs)
		w.there.Serve("tcp4", fmt.Sprintf("0.0.0.0:%d", firstPort), lab.Discard)
		w.there.AllICMP()
		r := m.start(w, n)
		lab.Eventually(t, 20*time.Second, func() error {
			if got := w.there.Counters()[m.counter]; got < int64(n) {
				return fmt.Errorf("%d probes of %d targets", got, n)
			}
			return nil
		})
		time.Sleep(2 * window(t))
		from := w.take(r.pid)
		time.Sleep(2 * window(t))
		span := from.until(w.take(r.pid))
		done := float64(span.peer[m.counter])
		if done == 0 {
			t.Fatalf("no probe in %v", span.length)
		}
		each := float64(span.process) / done
		scrape := 0.0
		if m.metrics != "" {
			client := w.client(w.here, 1)
			before := w.take(r.pid)
			err := get(t.Context(), client, m.metrics, nil)
			switch {
			case err == nil:
				during := before.until(w.take(r.pid))
				scrape = math.Max(0, float64(during.process)-each*float64(during.peer[m.counter]))
			case m.metrics == probedMetrics:
				t.Fatal(err)
			default: // on a machine with other work to do; its figure is the better for it
				t.Logf("%s: a scrape: %v", m.name, err)
			}
		}
		perSecond := done / span.length.Seconds()
		l.Figures = []Figure{
			{each + scrape/(perSecond*scrapeInterval.Seconds()), "cpu-ns/probe"},
			{each, "unscraped-cpu-ns/probe"},
			{scrape / 1e6, "cpu-ms/scrape"},
			{perSecond, "probes/s"},
			{lab.Resident(t, r.pid), "rss-MiB"},
			{span.busy[ours].Seconds() / span.length.Seconds(), "core0"},
			{span.busy[theirs].Seconds() / span.length.Seconds(), "core1"},
		}
		if m.books != "" {
			w.await(m.booksAt) // it listens late
			used, booked := lab.CPUTime(t, r.pid), 0.0
			err := get(t.Context(), w.client(w.here, 1), m.booksAt, func(body io.Reader) error {
				return samples(body, func(s sample) {
					if s.name == m.books {
						booked += s.value
					}
				})
			})
			if err != nil || booked == 0 {
				t.Fatalf("%s booked %.0f: %v", m.name, booked, err)
			}
			l.Figures = append(l.Figures, Figure{float64(used) / booked, "cpu-ns/booked"})
		}
	})
	if !ok {
		t.FailNow()
	}
	return l
}

// await waits until something answers at a URL.
func (w *world) await(url string) {
	w.t.Helper()
	client := w.client(w.here, 1)
	lab.Eventually(w.t, 20*time.Second, func() error { return get(w.t.Context(), client, url, nil) })
}
