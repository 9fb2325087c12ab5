package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A gauge is a tool that says how long answers took.
type gauge struct {
	name string
	// read has it measure n times or so, and returns what it says by the target's
	// address, in order. mean is its own mean where that is finer than its readings.
	read func(w *world, n int) (says map[netip.Addr][]reading, mean time.Duration)
	// endless tells that it goes on probing after the last reading.
	endless bool
}

// pace is from one probe to the next, where a tool can be told: far more than an
// answer takes.
const pace = 5 * time.Millisecond

// TestAccuracy has every tool that says a round-trip time measure beside a capture
// of the same packets, with nothing else to do and with both cores busy.
func TestAccuracy(t *testing.T) {
	b := open(t)
	n, loads := 200, []string{"idle", "busy"}
	if rounds(t) == 1 {
		n, loads = 20, loads[:1]
	}
	for range rounds(t) {
		for _, load := range loads {
			for _, g := range gauges() {
				l := g.measure(t, load, n)
				l.Name = fmt.Sprintf("Accuracy/load=%s/tool=%s", load, g.name)
				b.add(l)
			}
		}
	}
}

func gauges() []gauge {
	one := target(1)
	to := one.String()
	single := func(all []reading, err error) func(*world) map[netip.Addr][]reading {
		return func(w *world) map[netip.Addr][]reading {
			w.t.Helper()
			if err != nil {
				w.t.Fatal(err)
			}
			return map[netip.Addr][]reading{one: all}
		}
	}
	return []gauge{
		{"probed", readDaemon, true},
		{"probed-ping", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			return single(parseProbedPing(w.read(w.command(-1, w.here, probedPath(w.t), "ping", "--json",
				"-c", fmt.Sprint(n), "-i", (2 * pace).String(), to+":80"))))(w), 0 // it won't do more
		}, false},
		{"nping", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			all, mean, err := parseNping(w.read(w.command(-1, w.here, "nping", "--tcp", "--flags", "syn", "-p", "80",
				"-c", fmt.Sprint(n), "--delay", pace.String(), to)))
			return single(all, err)(w), mean
		}, false},
		{"hping3", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			return single(parseMilliseconds(hpingLine, w.read(w.command(-1, w.here, "hping3", "-S", "-p", "80",
				"-c", fmt.Sprint(n), "-i", fmt.Sprint("u", pace.Microseconds()), "-I", w.here.Iface(), to))))(w), 0
		}, false},
		{"scamper", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			return single(parseMilliseconds(scamperLine, w.read(w.command(-1, w.here, "scamper",
				"-c", fmt.Sprintf("ping -P tcp-syn -d 80 -c %d -i 0.01", n/2), "-i", to))))(w), 0 // takes 0.1 s each; less is a second
		}, false},
		{"net.Dialer", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			return single(parseNanoseconds(w.read(w.dialer(w.here, -1, "-first", to+":80",
				"-once", fmt.Sprint(n), "-interval", pace.String()))))(w), 0
		}, false},
		{"blackbox_exporter", readBlackbox, false},
		{"ping", func(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
			return single(parseMilliseconds(pingLine, w.read(w.command(-1, w.here, "ping",
				"-c", fmt.Sprint(n), "-i", fmt.Sprint(pace.Seconds()), to))))(w), 0
		}, false},
		{"smokeping_prober", readSmokeping, true},
	}
}

// measure runs a tool once beside a capture and sums up how far it was off.
func (g gauge) measure(t *testing.T, load string, n int) (l Line) {
	t.Helper()
	ok := t.Run(load+"-"+g.name, func(t *testing.T) {
		w := newWorld(t)
		w.there.Serve("tcp4", "0.0.0.0:80", lab.Discard)
		w.there.AllICMP()
		if load == "busy" {
			for core := range []int{ours, theirs} {
				w.run(w.command(core, w.here, "sh", "-c", "while :; do :; done"))
			}
		}
		capture := w.here.Capture(t, w.here.Iface(), "tcp[tcpflags] & tcp-syn != 0 or icmp")
		says, mean := g.read(w, n)
		captured, err := exchanges(capture.Packets())
		if err != nil {
			t.Fatal(err)
		}
		var off []time.Duration
		for to, readings := range says {
			seen := captured[to]
			if g.endless && readings[0].port == 0 {
				seen = seen[:min(len(seen), len(readings))]
			}
			d, err := deviations(readings, seen)
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			off = append(off, d...)
		}
		if len(off) < n/2 {
			t.Fatalf("%d readings of %d", len(off), n)
		}
		bias, p99 := sumUp(off)
		if mean > 0 {
			bias = mean - meanOf(captured[target(1)])
		}
		l.Figures = []Figure{
			{float64(bias), "bias-ns"}, {float64(p99), "p99-error-ns"}, {float64(len(off)), "readings"},
		}
	})
	if !ok {
		t.FailNow()
	}
	return l
}

// sumUp returns the median deviation and the 99th percentile of the absolute ones.
func sumUp(off []time.Duration) (median, p99 time.Duration) {
	slices.Sort(off)
	median = off[len(off)/2]
	slices.SortFunc(off, func(x, y time.Duration) int { return cmp.Compare(x.Abs(), y.Abs()) })
	return median, off[(len(off)-1)*99/100].Abs()
}

func meanOf(all []exchange) time.Duration {
	var sum time.Duration
	for _, e := range all {
		sum += e.rtt()
	}
	return sum / time.Duration(max(1, len(all)))
}

// readDaemon has the daemon probe four targets and asks its API for what became of
// each probe.
func readDaemon(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
	const targets = 4
	r := w.run(w.probedOn(-1, asked{module: "probe: half_open", targets: targets, interval: targets * pace}))
	const api = "http://127.0.0.1:10965/api/v1/targets"
	w.await(api)
	client := w.client(w.here, 1)
	var list struct {
		Targets []struct{ ID, Target string }
	}
	w.json(client, api, &list)
	if len(list.Targets) != targets {
		w.t.Fatalf("%d targets", len(list.Targets))
	}
	time.Sleep(time.Duration(n) * pace)
	says := make(map[netip.Addr][]reading)
	for _, of := range list.Targets {
		var page struct {
			Samples []struct {
				Started    time.Time
				Verdict    string
				RTT        float64 `json:"handshake_rtt_seconds"`
				SourcePort uint16  `json:"source_port"`
			}
		}
		w.json(client, api+"/"+of.ID+"/samples", &page)
		to := netip.MustParseAddrPort(of.Target).Addr()
		for _, s := range page.Samples {
			if s.Verdict != "ok" {
				w.t.Errorf("%s: verdict %s", of.Target, s.Verdict)
			}
			says[to] = append(says[to], reading{seconds(s.RTT), s.SourcePort, s.Started})
		}
	}
	r.stop() // the capture catches up with what has an end
	return says, 0
}

// readBlackbox asks for one probe after the other.
func readBlackbox(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
	w.run(w.blackbox(-1))
	w.await("http://127.0.0.1:9115/metrics")
	client := w.client(w.here, 1)
	var all []reading
	for range n {
		time.Sleep(pace)
		err := get(w.t.Context(), client, blackboxURL(target(1).String()+":80"), func(r io.Reader) error {
			return samples(r, func(s sample) {
				if s.name == "probe_duration_seconds" {
					all = append(all, reading{rtt: seconds(s.value)})
				}
			})
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return map[netip.Addr][]reading{target(1): all}, 0
}

// readSmokeping has smokeping_prober ping for some seconds and takes each
// probe from two scrapes: its histogram's sum grows by what it measured.
func readSmokeping(w *world, n int) (map[netip.Addr][]reading, time.Duration) {
	hosts := min(n, 50)
	r := w.run(w.smokeping(-1, hosts))
	const url = "http://127.0.0.1:9374/metrics"
	w.await(url)
	client := w.client(w.here, 1)
	type state struct{ count, sum float64 }
	last := make(map[netip.Addr]state)
	says := make(map[netip.Addr][]reading)
	for deadline := time.Now().Add(time.Duration(n/hosts+2) * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		now := make(map[netip.Addr]state)
		err := get(w.t.Context(), client, url, func(r io.Reader) error {
			return samples(r, func(s sample) {
				if !strings.HasPrefix(s.name, "smokeping_response_duration_seconds_") {
					return
				}
				to, err := netip.ParseAddr(s.label("host"))
				if err != nil {
					w.t.Errorf("%v: %v", s, err)
					return
				}
				state := now[to]
				switch s.name {
				case "smokeping_response_duration_seconds_count":
					state.count = s.value
				case "smokeping_response_duration_seconds_sum":
					state.sum = s.value
				}
				now[to] = state
			})
		})
		if err != nil {
			w.t.Fatal(err)
		}
		for to, s := range now {
			switch s.count - last[to].count {
			case 0:
			case 1:
				says[to] = append(says[to], reading{rtt: seconds(s.sum - last[to].sum)})
			default:
				w.t.Fatalf("%s: %v probes between two scrapes", to, s.count-last[to].count)
			}
			last[to] = s
		}
	}
	r.stop()
	return says, 0
}

// json reads what an API answers.
func (w *world) json(client *http.Client, url string, into any) {
	w.t.Helper()
	err := get(w.t.Context(), client, url, func(r io.Reader) error { return json.NewDecoder(r).Decode(into) })
	if err != nil {
		w.t.Fatal(err)
	}
}
