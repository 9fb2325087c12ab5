package targets

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

const threeTargets = `
modules: {m: {probe: half_open, resolve: all}}
jobs:
- {name: j, module: m, labels: {team: core}, targets: ["198.18.0.1:80", "db.test:80"]}
- {name: k, module: half_open, targets: ["[2001:db8::1]:80"]}
`

// snapshot is the engine's targets as they are.
func (b *books) snapshot() map[uint64]*engine.Target {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.probed)
}

func TestReloadOfTheSame(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "198.18.0.2", "198.18.0.3")
		w.load(threeTargets)
		w.settle()
		w.wantAddresses("198.18.0.1:80 198.18.0.2:80 198.18.0.3:80 [2001:db8::1]:80")
		for _, x := range w.engine.targets() {
			x.Sink.Observe(&probe.Observation{Kind: probe.Verdict, Reason: probe.Timeout})
		}
		before, calls, text := w.engine.snapshot(), w.engine.updates(), w.text()
		w.load(threeTargets)
		w.settle()
		if !maps.Equal(before, w.engine.snapshot()) || w.engine.updates() != calls {
			t.Error("the engine's targets were touched")
		}
		if after := w.text(); after != text {
			t.Errorf("the metrics were\n%s\nand are\n%s", text, after)
		}
		if n := w.dns.times("ip db.test"); n != 1 {
			t.Errorf("the reload had the name looked up again: %d times", n)
		}
	})
}

// text is the exposition.
func (w *world) text() string {
	w.Helper()
	var b strings.Builder
	if err := w.metrics.WriteText(&b); err != nil {
		w.Fatal(err)
	}
	return b.String()
}

// What the engine needs to know replaces its target, under the same ID, for the
// same metrics.
func TestReloadOfChanges(t *testing.T) {
	yaml := func(module string) string {
		return "modules: {m: {probe: half_open, timeout: 500ms, " + module + `}}
jobs: [{name: j, module: m, targets: ["198.18.0.1:80"]}]`
	}
	for _, module := range []string{
		"interval: 2s", "jitter: 10ms", "flows: 4", "ttl: 3", "tos: 8", "mss: 536", "window: 1024",
		"source_address: 198.18.0.9", "interface: lo", "tcp_options: {timestamps: false}", "tcp_options: {ecn: true}",
		"detect_syn_cookies: true", "timeout: 400ms",
	} {
		w := newWorld(t)
		w.load(yaml("buckets: [1]"))
		before := w.engine.only()
		before.Sink.Observe(&probe.Observation{Kind: probe.Verdict})
		changed := yaml("buckets: [1], " + module)
		if strings.HasPrefix(module, "timeout") {
			changed = strings.Replace(changed, "timeout: 500ms, ", "", 1)
		}
		w.load(changed)
		after := w.engine.only()
		if after == before || *after == *before {
			t.Errorf("%s does not reach the engine", module)
		}
		if after.ID != before.ID || after.Sink != before.Sink {
			t.Errorf("%s makes it another target", module)
		}
		if !strings.Contains(w.text(), `probed_probes_total{job_name="j",module="m",target="198.18.0.1:80"} 1`) {
			t.Errorf("%s loses the counters", module)
		}
		if strings.HasPrefix(module, "flows") != strings.Contains(w.text(), "probed_flows{") {
			t.Errorf("%s: probed_flows is wrong", module)
		}
	}
}

func TestReloadOfBuckets(t *testing.T) {
	yaml := func(buckets string) string {
		return "modules: {m: {probe: half_open, buckets: " + buckets + `}}
jobs: [{name: j, module: m, targets: ["198.18.0.1:80"]}]`
	}
	w := newWorld(t)
	want := func(want string) {
		t.Helper()
		if got := w.buckets(); got != want {
			t.Errorf("buckets %q, want %q", got, want)
		}
	}
	w.load(yaml("[0.1, 1]"))
	before := w.engine.only()
	before.Sink.Observe(&probe.Observation{Kind: probe.Verdict})
	before.Sink.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: time.Millisecond})
	w.load(yaml("[0.1, 1]"))
	want("0.1:1 1:1 +Inf:1")
	w.load(yaml("[0.2, 1]"))
	want("0.2:0 1:0 +Inf:0")
	before.Sink.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: time.Millisecond})
	want("0.2:1 1:1 +Inf:1")
	w.load(yaml("[]"))
	want("+Inf:0")
	if !strings.Contains(w.text(), `probed_probes_total{job_name="j",module="m",target="198.18.0.1:80"} 1`) {
		t.Error("the counter is gone")
	}
	if w.engine.only() != before {
		t.Error("buckets are nothing to the engine")
	}
}

// buckets are the classic ones of the only target's histogram, with their counts.
func (w *world) buckets() string {
	w.Helper()
	var all []string
	for line := range strings.Lines(w.text()) {
		if rest, ok := strings.CutPrefix(line, "probed_handshake_rtt_seconds_bucket{"); ok {
			_, rest, _ = strings.Cut(rest, `,le="`)
			all = append(all, strings.Replace(strings.TrimSpace(rest), `"} `, ":", 1))
		}
	}
	return strings.Join(all, " ")
}

func TestReloadOfLabelsAndTargets(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "198.18.0.2", "198.18.0.3")
		w.load(threeTargets)
		w.settle()
		stays := w.find("[2001:db8::1]:80")
		w.load(strings.Replace(threeTargets, "core", "edge", 1))
		if s := w.series(); strings.Contains(s, "core") || strings.Count(s, "edge") != 3 {
			t.Errorf("series\n%s", s)
		}
		w.wantAddresses("198.18.0.1:80 198.18.0.2:80 198.18.0.3:80 [2001:db8::1]:80")
		w.load(`jobs: [{name: k, module: half_open, targets: ["[2001:db8::1]:80", "198.18.0.4:80"]}]`)
		w.wantAddresses("198.18.0.4:80 [2001:db8::1]:80")
		if w.find("[2001:db8::1]:80") != stays {
			t.Error("a target that stays was touched")
		}
		if n := len(w.ips()); n != 2 {
			t.Errorf("series\n%s", w.series())
		}
		w.pass(time.Hour)
		if n := w.dns.times("ip db.test"); n != 1 {
			t.Errorf("a name that nobody has was looked up %d times", n)
		}
	})
}

// resolve: changes the series, and needs no look-up.
func TestReloadOfResolve(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "198.18.0.1", "198.18.0.2")
		w.load(oneName("resolve: first"))
		w.settle()
		w.load(oneName("resolve: all"))
		w.wantAddresses("198.18.0.1:80 198.18.0.2:80")
		w.wantIPs("198.18.0.1", "198.18.0.2")
		w.load(oneName("resolve: first"))
		w.wantAddresses("198.18.0.1:80")
		w.wantIPs("")
		if n := w.dns.times("ip db.test"); n != 1 {
			t.Errorf("looked up %d times", n)
		}
	})
}

// Another ip_protocol is another question. Until it is answered the target goes
// on as it was, and never as a mixture: IPv6's source with IPv4's address.
func TestReloadOfIPProtocol(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.reply("db.test", reply{
			addrs: []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1")},
			delay: time.Second,
		})
		w.load(oneName("source_address: 198.18.0.9"))
		w.pass(time.Second)
		w.wantAddresses("198.18.0.1:80")
		before := w.engine.only()
		w.load(oneName("source_address: '2001:db8::9'"))
		w.settle()
		if w.engine.only() != before {
			t.Error("it was changed before its name was looked up")
		}
		w.pass(time.Second)
		w.wantAddresses("[2001:db8::1]:80")
		after := w.engine.only()
		if after.ID != before.ID || after.Sink != before.Sink || !after.Source.Is6() {
			t.Errorf("it is now %+v", after)
		}
		w.wantIPs("")
	})
}

// A reload does not start a look-up again that is under way: reloads that come
// faster than answers would keep every name from resolving.
func TestReloadDuringLookup(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.reply("db.test", reply{addrs: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, delay: 3 * time.Second})
		for range 50 {
			w.load(oneName("flows: 1"))
			w.pass(100 * time.Millisecond)
		}
		w.wantAddresses("198.18.0.1:80")
		if n := w.dns.times("ip db.test"); n != 1 {
			t.Errorf("looked up %d times", n)
		}

		w.dns.reply("db.test", reply{addrs: []netip.Addr{netip.MustParseAddr("198.18.0.2")}, delay: 3 * time.Second})
		w.pass(26 * time.Second) // the next look-up is under way
		w.load(strings.Replace(oneName("flows: 2"), "30s", "40s", 1))
		w.wantAddresses("198.18.0.1:80")
		w.pass(2 * time.Second)
		w.wantAddresses("198.18.0.2:80")
		if n := w.dns.times("ip db.test"); n != 2 {
			t.Errorf("looked up %d times", n)
		}
	})
}

// A name that goes and comes back while a look-up is under way is not given an
// answer twice, and none is given to nobody.
func TestReloadWithoutTheName(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.reply("db.test", reply{addrs: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, delay: 3 * time.Second})
		w.load(oneName("flows: 1"))
		w.pass(time.Second)
		w.load(`jobs: []`)
		w.pass(time.Second)
		w.load(oneName("flows: 1"))
		w.pass(1500 * time.Millisecond)
		w.wantAddresses("")
		w.pass(1500 * time.Millisecond)
		w.wantAddresses("198.18.0.1:80")
		w.load(`jobs: []`)
		w.pass(time.Hour)
		w.wantAddresses("")
		if s := w.series(); s != "" {
			t.Errorf("left behind: %s", s)
		}
	})
}

// A target whose series cannot be is left out, and the others are probed. Once it
// can be, it is.
func TestTargetLeftOut(t *testing.T) {
	w := newWorld(t)
	list := parse(t, threeTargets).Targets()[:1]
	add := func(address string, labels ...config.Label) {
		more := list[0]
		more.Address, more.IP, more.Labels = address, netip.MustParseAddrPort(address).Addr(), labels
		list = append(list, more)
	}
	add("198.18.0.6:80", config.Label{Name: "not a name", Value: "y"})
	// Discovery may come up with both of these: they are exported alike.
	add("198.18.0.7:80", config.Label{Name: "ip", Value: "x"})
	add("198.18.0.7:80", config.Label{Name: "exported_ip", Value: "x"})
	add("198.18.0.8:80")
	add("198.18.0.8:80")
	said := func() (all []string) {
		for _, err := range w.Apply(list, time.Minute) {
			all = append(all, err.Error())
		}
		return all
	}
	for range 2 {
		if got := said(); len(got) != 3 || !strings.Contains(got[0], "not a name") || !strings.Contains(got[1], "198.18.0.7:80: a target with the same labels") ||
			!strings.Contains(got[2], "198.18.0.8:80: a target with the same labels") {
			t.Fatalf("left out: %q", got)
		}
		w.wantAddresses("198.18.0.1:80 198.18.0.7:80 198.18.0.8:80")
	}
	list = slices.Delete(list, 1, 3)
	said() // the series is still the other's
	if got := said(); len(got) != 1 || strings.Count(w.series(), "exported_ip") != 1 {
		t.Errorf("left out: %q\n%s", got, w.series())
	}
	w.wantAddresses("198.18.0.1:80 198.18.0.7:80 198.18.0.8:80")
	if len(w.Views()) != 3 {
		t.Errorf("%d views", len(w.Views()))
	}
}

// An engine that keeps nothing, so that only the roster's memory is measured.
type nobody struct{ calls, changes int }

func (n *nobody) Update(add, remove []*engine.Target) {
	n.calls++
	n.changes += len(add) + len(remove)
}

// Ten thousand targets survive a hundred reloads, of the same and of another
// configuration, without growing.
func TestManyReloads(t *testing.T) {
	const n = 10000
	yaml := func(interval string, first int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "global: {limits: {packets_per_second: 1000000}}\njobs:\n- name: j\n  module: half_open\n  interval: %s\n  targets:\n", interval)
		for i := first; i < first+n; i++ {
			fmt.Fprintf(&b, "  - 198.18.%d.%d:80\n", i>>8, i&0xff)
		}
		return b.String()
	}
	configs := []*config.Config{parse(t, yaml("1s", 0)), parse(t, yaml("1s", 0)), parse(t, yaml("2s", 0)), parse(t, yaml("2s", n/2))}
	e := new(nobody)
	r := New(e, metrics.New(metrics.Options{}), nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	var heap [2]uint64
	for i := range 101 {
		if err := r.put(configs[i%len(configs)]); err != nil {
			t.Fatal(err)
		}
		if i == 20 || i == 100 { // both have the first configuration in force
			heap[i/100] = heapInUse()
		}
	}
	// Of four reloads one changes nothing, one every target, one half of them,
	// and one half of them and all others.
	if want := n + 25*(2*n+n+(n+n)); e.changes != want || e.calls != 76 {
		t.Errorf("%d calls with %d entries, want 76 with %d", e.calls, e.changes, want)
	}
	t.Logf("100 reloads of %d targets: %d octets, then %d", n, heap[0], heap[1])
	if grown := int64(heap[1]) - int64(heap[0]); grown > 1<<20 {
		t.Errorf("80 reloads grew the heap by %d octets", grown)
	}
	if r.targets == nil || len(r.targets) != n {
		t.Errorf("%d targets", len(r.targets))
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // and what finalizers and pools held
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
