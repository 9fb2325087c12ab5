package main

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// A peerKind is one way for a target to answer and what is to become of it.
type peerKind struct {
	name   string
	port   uint16
	how    lab.Refusal
	reason string // of every probe's failure; empty: success
}

var peerKinds = []peerKind{
	{"listening", 80, "", ""},
	{"closed", 81, "", "refused"},
	{"full", 82, "", "timeout"},
	{"drop", 90, lab.Drop, "timeout"},
	{"reset", 91, lab.TCPReset, "refused"},
	{"port-unreachable", 92, lab.PortUnreachable, "unreachable"},
	{"host-unreachable", 93, lab.HostUnreachable, "unreachable"},
	{"no-route", 94, lab.NoRoute, "unreachable"},
	{"admin-prohibited", 95, lab.AdminProhibited, "prohibited"},
	{"host-prohibited", 96, lab.HostProhibited, "prohibited"},
	{"net-prohibited", 97, lab.NetProhibited, "prohibited"},
}

// outcomesConfig is probed's configuration for TestEveryOutcome, at a pace.
func outcomesConfig(interval time.Duration, jobs string) string {
	return fmt.Sprintf(`
global:
  interval: %s
  timeout: 200ms
  resolve_interval: 1s
  limits: {packets_per_second: 2000, packets_per_second_per_address: 500}
modules:
  every: {probe: half_open, resolve: all}
  v6: {probe: half_open, ip_protocol: ip6}
  fancy:
    probe: half_open
    dscp: ef
    ttl: 33
    mss: 1220
    window: 4096
    flows: 3
    tcp_options: {sack: false, timestamps: false, window_scale: off, ecn: true}
jobs:
%s`, interval, jobs)
}

// TestEveryOutcome has one configuration probe every kind of peer over IPv4 and
// IPv6, and holds /metrics against a capture beside it.
func TestEveryOutcome(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	l.Join(a, b)
	l.Join(a, c)
	b.AllICMP()
	b.Sysctl("net.ipv4.tcp_syncookies", "0")
	c.Sysctl("net.ipv4.tcp_syncookies", "2")
	b.Listen("tcp", "[::]:80")
	c.Listen("tcp", "[::]:80")
	serveDNS(t, a, map[string][]netip.Addr{
		"one.test":  {b.Addr4()},
		"many.test": {b.Addr4(), b.Addr6(), c.Addr4()},
		"both.test": {b.Addr4(), b.Addr6()},
	})

	expect := make(map[string]string) // target → reason
	var jobs strings.Builder
	for _, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		b.Backlog(netip.AddrPortFrom(addr, 82), 0).Fill(0)
		family := map[bool]string{true: "ip4", false: "ip6"}[addr.Is4()]
		fmt.Fprintf(&jobs, "- name: %s\n  labels: {family: %s}\n  static_configs:\n", family, family)
		for _, k := range peerKinds {
			target := netip.AddrPortFrom(addr, k.port).String()
			expect[target] = k.reason
			fmt.Fprintf(&jobs, "  - {targets: [%q], labels: {kind: %s}}\n", target, k.name)
		}
	}
	for _, k := range peerKinds {
		if k.how != "" {
			b.Refuse(k.port, k.how)
		}
	}
	more := map[string]string{
		netip.AddrPortFrom(c.Addr4(), 80).String(): "", // SYN cookies
		netip.AddrPortFrom(c.Addr6(), 80).String(): "", //
		"198.18.0.77:80":        "unreachable", // nobody answers ARP
		"[2001:db8::77]:80":     "unreachable", // nor neighbour solicitations
		"198.19.0.1:80":         "send_error",  // no route
		"[2001:db8:ffff::1]:80": "send_error",
		"one.test:80":           "",
		"gone.test:80":          "not_resolved",
	}
	fmt.Fprintf(&jobs, "- name: more\n  targets:\n")
	for target, reason := range more {
		expect[target] = reason
		fmt.Fprintf(&jobs, "  - %q\n", target)
	}
	jobs.WriteString("- {name: every, module: every, targets: [\"many.test:80\"]}\n")
	jobs.WriteString("- {name: v6, module: v6, targets: [\"both.test:80\"]}\n")
	fmt.Fprintf(&jobs, "- {name: fancy, module: fancy, targets: [\"%s:80\", \"[%s]:80\"]}\n", b.Addr4(), b.Addr6())

	captures := []*lab.Capture{a.Capture(t, a.End(0).Iface, ourPorts, lab.Immediate), a.Capture(t, a.End(1).Iface, ourPorts, lab.Immediate)}
	file := t.TempDir() + "/probed.yml"
	write(t, file, outcomesConfig(250*time.Millisecond, jobs.String()))
	p := launchFile(t, a, file, withDNS(t, "127.0.0.1"))
	p.awaitReady()

	// Enough of everything, the dead neighbours' included, which take 3 s.
	lab.Eventually(t, 20*time.Second, func() error {
		s := p.scrape()
		for target, reason := range expect {
			n := s.sum("probed_probes_total", labels{"target": target})
			if reason == "send_error" {
				n = s.sum("probed_probes_discarded_total", labels{"target": target})
			}
			if n < 16 {
				return fmt.Errorf("%s: %v probes", target, n)
			}
		}
		return nil
	})
	// The same targets at rest keep their counters.
	write(t, file, outcomesConfig(24*time.Hour, jobs.String()))
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	var s scrape
	lab.Eventually(t, 10*time.Second, func() error {
		if s = p.scrape(); s.sum("probed_conversations", nil) > 0 {
			return fmt.Errorf("%v conversations are open", s.sum("probed_conversations", nil))
		}
		return nil
	})
	_, exposition := p.do("GET", "/metrics")
	promtool(t, exposition)

	var all []segment
	for _, c := range captures {
		all = append(all, segments(t, c.Packets())...)
	}
	slices.SortStableFunc(all, func(x, y segment) int { return int(x.wall - y.wall) })
	seen := exchanges(t, all)

	for target, reason := range expect {
		with := labels{"target": target, "module": "half_open"}
		checkOutcome(t, s, with, reason)
		if k := slices.IndexFunc(peerKinds, func(k peerKind) bool { return strings.HasSuffix(target, fmt.Sprintf(":%d", k.port)) }); k > 0 {
			if n := len(s.find("probed_probes_total", labels{"target": target, "kind": peerKinds[k].name})); n != 1 {
				t.Errorf("%s: %d series with the label kind=%q", target, n, peerKinds[k].name)
			}
		}
	}
	for _, ip := range []netip.Addr{b.Addr4(), b.Addr6(), c.Addr4()} {
		checkOutcome(t, s, labels{"target": "many.test:80", "ip": ip.String()}, "")
	}
	if n := len(s.find("probed_probes_total", labels{"target": "many.test:80"})); n != 3 {
		t.Errorf("many.test has %d series", n)
	}
	checkOutcome(t, s, labels{"job_name": "v6"}, "")
	checkOutcome(t, s, labels{"job_name": "fancy", "target": b.Addr4().String() + ":80"}, "")
	if got := s.sum("probed_flows", labels{"job_name": "fancy"}); got != 6 {
		t.Errorf("probed_flows: %v together, want 3 each of two targets", got)
	}

	checkAgainstWire(t, s, seen, b)
	checkFancy(t, seen)
	for _, b := range []*lab.Host{b, c} {
		if left := lab.SS(b, "syn-recv"); len(left) > 0 {
			t.Errorf("half-open state left on %s: %v", b.Name, left)
		}
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// checkOutcome checks the series of one target whose probes all ended so.
func checkOutcome(t *testing.T, s scrape, with labels, reason string) {
	t.Helper()
	probes := s.sum("probed_probes_total", with)
	failures := s.reasons("probed_probe_failures_total", with)
	discards := s.reasons("probed_probes_discarded_total", with)
	rtts := s.sum("probed_handshake_rtt_seconds", with)
	want, wantDiscards, wantRTTs := map[string]float64{}, map[string]float64{}, 0.0
	switch reason {
	case "":
		wantRTTs = probes
	case "send_error":
		wantDiscards = map[string]float64{reason: discards[reason]}
	default:
		want[reason] = probes
	}
	if !maps.Equal(failures, want) || !maps.Equal(discards, wantDiscards) || rtts != wantRTTs {
		t.Errorf("%v: %v probes, failures %v, discards %v, %v RTTs; want all %q", with, probes, failures, discards, rtts, reason)
	}
	if (reason == "send_error") != (probes == 0) {
		t.Errorf("%v: %v probes", with, probes)
	}
	if reason != "send_error" {
		if got := s.sum("probed_probe_success", with) > 0; got != (reason == "") {
			t.Errorf("%v: probed_probe_success says %v", with, got)
		}
	}
}

// checkAgainstWire holds the sums over each address and port against what the
// capture shows of it.
func checkAgainstWire(t *testing.T, s scrape, seen []*exchange, b *lab.Host) {
	t.Helper()
	type tally struct {
		syns, answered, resets int
		seconds                float64
	}
	wired := make(map[netip.AddrPort]*tally)
	for _, x := range seen {
		at := wired[x.syn.to()]
		if at == nil {
			at = new(tally)
			wired[x.syn.to()] = at
		}
		at.syns++
		at.resets += len(x.resets)
		if len(x.synAcks) > 0 {
			at.answered++
			at.seconds += float64(x.synAcks[0].wall-x.syn.wall) / 1e9
		}
		if len(x.resets) != len(x.synAcks) {
			t.Errorf("%v > %v: %d SYN-ACKs, %d RSTs", x.syn.SrcPort, x.syn.to(), len(x.synAcks), len(x.resets))
		}
		if x.syn.SrcPort > reservedLast {
			t.Errorf("a SYN left from %d, outside the reserved half", x.syn.SrcPort)
		}
	}
	booked := make(map[netip.AddrPort]*tally)
	book := func(to netip.AddrPort, with labels) {
		at := booked[to]
		if at == nil {
			at = new(tally)
			booked[to] = at
		}
		at.syns += int(s.sum("probed_probes_total", with) + s.sum("probed_probes_discarded_total", with))
		at.answered += int(s.sum("probed_handshake_rtt_seconds", with))
		at.seconds += s.seconds("probed_handshake_rtt_seconds", with)
	}
	for _, m := range s["probed_probes_total"].GetMetric() {
		with := labelsOf(m)
		to, err := netip.ParseAddrPort(with["target"])
		switch {
		case with["target"] == "gone.test:80", strings.HasSuffix(with["target"], "::77]:80"), with["target"] == "198.18.0.77:80":
			continue // nothing of theirs reaches the wire
		case s.sum("probed_probes_discarded_total", with) > 0:
			continue // nor of these
		case with["target"] == "one.test:80":
			to = netip.AddrPortFrom(b.Addr4(), 80)
		case with["target"] == "both.test:80":
			to = netip.AddrPortFrom(b.Addr6(), 80)
		case with["ip"] != "":
			to = netip.AddrPortFrom(netip.MustParseAddr(with["ip"]), 80)
		case err != nil:
			t.Errorf("unexpected series %v", with)
			continue
		}
		book(to, with)
	}
	for to, want := range wired {
		got := booked[to]
		if got == nil {
			t.Errorf("%v: %d SYNs on the wire and none in /metrics", to, want.syns)
			continue
		}
		if got.syns != want.syns || got.answered != want.answered {
			t.Errorf("%v: %d probes and %d RTTs in /metrics, %d SYNs and %d SYN-ACKs on the wire", to, got.syns, got.answered, want.syns, want.answered)
		}
		// The accuracy itself is another test's; this is the whole way to /metrics.
		if off := math.Abs(got.seconds-want.seconds) / max(1, float64(want.answered)); off > 20e-6 {
			t.Errorf("%v: mean RTT off by %.1f µs", to, off*1e6)
		}
	}
	for to, got := range booked {
		if wired[to] == nil && got.syns > 0 {
			t.Errorf("%v: %d probes in /metrics, none on the wire", to, got.syns)
		}
	}
}

// checkFancy looks for the SYNs of the module with options of its own.
func checkFancy(t *testing.T, seen []*exchange) {
	t.Helper()
	ports := map[bool]map[uint16]int{true: {}, false: {}}
	for _, x := range seen {
		s := &x.syn.Segment
		if s.TTL != 33 {
			continue
		}
		ports[x.syn.Dst.Is4()][x.syn.SrcPort]++
		if s.TOS != 46<<2 || s.Window != 4096 || s.Options.Set != probe.OptMSS || s.Options.MSS != 1220 || !s.Flags.Has(probe.ECE|probe.CWR) {
			t.Errorf("SYN of module fancy: %+v", s)
		}
	}
	for v4, by := range ports {
		if len(by) != 3 {
			t.Errorf("flows: 3, and source ports %v (IPv4: %v)", by, v4)
		}
	}
}

// stop ends probed by SIGTERM and returns its exit code.
func stop(p *process) int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.end(2500 * time.Millisecond)
}

// TestInterfaces probes link-local addresses, which need an interface, and
// others through an interface that routing would not choose.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	l.Join(a, b)
	l.Join(a, c)
	b.Listen("tcp", "[::]:80")
	c.Listen("tcp", "[::]:80")
	toB, toC := a.End(0).Iface, a.End(1).Iface
	local := linkLocal(t, b)
	onC := a.Capture(t, toC, ourPorts, lab.Immediate)
	p := start(t, a, fmt.Sprintf(`
global: {interval: 20ms, timeout: 900ms}
modules:
  b: {probe: half_open, interface: %[1]s}
  c: {probe: half_open, interface: %[2]s}
jobs:
- {name: zone, targets: ["[%[3]s%%%[1]s]:80"]}
- {name: device, module: b, targets: ["[%[3]s]:80", "%[4]s:80", "[%[5]s]:80"]}
- {name: astray, module: c, timeout: 100ms, targets: ["%[4]s:80", "[%[5]s]:80"]}
`, toB, toC, local, b.Addr4(), b.Addr6()))
	var s scrape
	lab.Eventually(t, 10*time.Second, func() error {
		s = p.scrape()
		for job, n := range map[string]float64{"zone": 20, "device": 60} {
			if got := s.sum("probed_handshake_rtt_seconds", labels{"job_name": job}); got < n {
				return fmt.Errorf("%s: %v handshakes", job, got)
			}
		}
		return nil
	})
	for _, job := range []string{"zone", "device"} {
		if with := (labels{"job_name": job}); len(s.reasons("probed_probe_failures_total", with))+len(s.reasons("probed_probes_discarded_total", with)) > 0 {
			t.Errorf("%s: failures %v, discards %v", job, s.reasons("probed_probe_failures_total", with), s.reasons("probed_probes_discarded_total", with))
		}
	}
	if n := s.sum("probed_handshake_rtt_seconds", labels{"job_name": "astray"}); n > 0 {
		t.Errorf("%v handshakes with b through the interface to c", n)
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, s := range segments(t, onC.Packets()) {
		if s.Dst == local {
			t.Errorf("a segment to %v left through %s", s.Dst, toC)
		}
	}
}

// linkLocal returns the link-local address of a host's first interface.
func linkLocal(t *testing.T, h *lab.Host) netip.Addr {
	t.Helper()
	var found netip.Addr
	h.Do(func() {
		dev, err := net.InterfaceByName(h.Iface())
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := dev.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if p := netip.MustParsePrefix(a.String()); p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
				found = p.Addr()
			}
		}
	})
	if !found.IsValid() {
		t.Fatalf("host %s has no link-local address", h.Name)
	}
	return found
}
