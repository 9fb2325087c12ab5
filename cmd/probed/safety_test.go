package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// anyOfOurs is the capture filter for whatever carries our ports, UDP too.
const anyOfOurs = "portrange 61000-61255"

// TestOnlyUnicast has hostile names and addresses in the configuration, and a
// capture of the whole host.
func TestOnlyUnicast(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	v4, v6 := b.Addr4().String(), b.Addr6().String()
	hostile := map[string][]string{
		"multicast4.test": {"224.0.0.1"},
		"multicast6.test": {"ff02::1"},
		"ssm.test":        {"232.1.2.3", "ff3e::8000:1"},
		"limited.test":    {"255.255.255.255"},
		"subnet.test":     {"198.18.0.255"},
		"network.test":    {"198.18.0.0"},
		"loopback.test":   {"127.255.255.255"},
		"zero4.test":      {"0.0.0.0"},
		"zero6.test":      {"::"},
		"zeronet.test":    {"0.1.2.3"},
		"reserved.test":   {"240.0.0.1"},
		"linklocal.test":  {"fe80::1"},
		"mixed.test":      {"224.0.0.251", v4, "255.255.255.255", "::", v6, "ff02::fb", "198.18.0.255"},
	}
	names := make(map[string][]netip.Addr)
	yaml := `
global: {interval: 50ms, timeout: 40ms, resolve_interval: 1s}
modules: {every: {probe: half_open, resolve: all}}
jobs:
- name: every
  module: every
  targets:
`
	for name, addrs := range hostile {
		names[name] = parseAddrs(addrs...)
		yaml += fmt.Sprintf("  - %s:80\n", name)
	}
	yaml += "- {name: literal, targets: [\"198.18.0.255:80\", \"127.255.255.255:80\"]}\n"
	serveDNS(t, a, names)
	veth, lo := a.Capture(t, a.Iface(), anyOfOurs, lab.Immediate), a.Capture(t, "lo", anyOfOurs, lab.Immediate)
	p := start(t, a, yaml, withDNS(t, "127.0.0.1"))
	lab.Eventually(t, 10*time.Second, func() error {
		s := p.scrape()
		for _, ip := range []string{v4, v6} {
			if n := s.sum("probed_handshake_rtt_seconds", labels{"ip": ip}); n < 30 {
				return fmt.Errorf("%s: %v handshakes", ip, n)
			}
		}
		for name := range hostile {
			with, want := labels{"target": name + ":80"}, 30.0
			if name == "network.test" {
				want = 1 // nobody has it: the SYNs wait in this host, and few at a time
			}
			if n := s.sum("probed_probes_total", with) + s.sum("probed_probes_discarded_total", with); n < want {
				return fmt.Errorf("%s: %v probes", name, n)
			}
		}
		return nil
	})
	s := p.scrape()
	for name := range hostile {
		with := labels{"target": name + ":80"}
		failures, discards := s.reasons("probed_probe_failures_total", with), s.reasons("probed_probes_discarded_total", with)
		switch name {
		case "mixed.test", "network.test": // the latter is unicast since Linux 5.14
			continue
		case "subnet.test", "loopback.test":
			// Only the host's routing knows: our send failed.
			if len(failures) > 0 || discards["send_error"] == 0 {
				t.Errorf("%s: failures %v, discards %v", name, failures, discards)
			}
		default:
			if len(discards) > 0 || !about(failures["not_resolved"], s.sum("probed_probes_total", with)) {
				t.Errorf("%s: failures %v, discards %v", name, failures, discards)
			}
		}
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sent := make(map[string]int)
	for _, s := range slices.Concat(segments(t, veth.Packets()), segments(t, lo.Packets())) {
		if s.ours() && !selfTest(&s) {
			sent[s.Src.String()+" > "+s.Dst.String()]++
		}
	}
	for pair := range sent {
		if pair != a.Addr4().String()+" > "+v4 && pair != a.Addr6().String()+" > "+v6 {
			t.Errorf("%d segments %s", sent[pair], pair)
		}
	}
	if len(sent) != 2 {
		t.Errorf("segments %v", sent)
	}
}

// TestSourceThatGoes takes addresses from the interface while probed sends from
// them, because it must or because routing says so, and gives them back.
func TestSourceThatGoes(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	extra := []string{"198.18.0.5/24", "2001:db8::5/64"}
	ip := func(args ...string) {
		t.Helper()
		if out, err := a.Command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
	}
	addresses := func(what string, all ...string) {
		for _, addr := range all {
			args := []string{"address", what, addr, "dev", a.Iface()}
			if strings.Contains(addr, ":") && what == "add" {
				args = append(args, "nodad")
			}
			ip(args...)
		}
	}
	addresses("add", extra...)
	// As where a VIP comes and goes: that bind(2) takes an address says nothing.
	for _, family := range []string{"ipv4", "ipv6"} {
		a.Do(func() {
			if err := os.WriteFile("/proc/sys/net/"+family+"/ip_nonlocal_bind", []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		})
	}
	p := start(t, a, fmt.Sprintf(`
global: {interval: 20ms, timeout: 10ms}
modules:
  pin4: {probe: half_open, source_address: 198.18.0.5}
  pin6: {probe: half_open, source_address: "2001:db8::5"}
jobs:
- {name: pin4, module: pin4, targets: ["%[1]s:80"]}
- {name: pin6, module: pin6, targets: ["[%[2]s]:80"]}
- {name: free, targets: ["%[1]s:80", "[%[2]s]:80"]}
`, b.Addr4(), b.Addr6()))
	moving := func(jobs ...string) {
		t.Helper()
		before := p.scrape()
		lab.Eventually(t, 5*time.Second, func() error {
			s := p.scrape()
			for _, job := range jobs {
				for _, m := range before.find("probed_handshake_rtt_seconds", labels{"job_name": job}) {
					with := labelsOf(m)
					if n := s.sum("probed_handshake_rtt_seconds", with) - before.sum("probed_handshake_rtt_seconds", with); n < 10 {
						return fmt.Errorf("%v: %v handshakes", with, n)
					}
				}
			}
			return nil
		})
	}
	failing := func(jobs ...string) {
		t.Helper()
		before := p.scrape()
		lab.Eventually(t, 5*time.Second, func() error {
			s := p.scrape()
			for _, job := range jobs {
				with := labels{"job_name": job}
				if n := s.reasons("probed_probes_discarded_total", with)["send_error"] - before.reasons("probed_probes_discarded_total", with)["send_error"]; n < 10 {
					return fmt.Errorf("%s: %v discarded", job, n)
				}
			}
			return nil
		})
	}
	moving("pin4", "pin6", "free")

	addresses("del", extra...)
	capture := a.Capture(t, a.Iface(), ourPorts, lab.Immediate)
	failing("pin4", "pin6")
	moving("free")
	for _, s := range segments(t, capture.Packets()) {
		if s.ours() && s.Src != a.Addr4() && s.Src != a.Addr6() {
			t.Errorf("%v from %v, which is no longer the host's", s.Segment.Flags, s.Src)
		}
	}
	addresses("add", extra...)
	moving("pin4", "pin6", "free")

	// The addresses that routing chose go, and their routes with them.
	own := []string{a.Addr4().String() + "/24", a.Addr6().String() + "/64"}
	addresses("del", extra...)
	addresses("del", own...)
	capture = a.Capture(t, a.Iface(), ourPorts, lab.Immediate)
	failing("pin4", "pin6", "free")
	for _, s := range segments(t, capture.Packets()) {
		if s.ours() {
			t.Errorf("%v from %v of a host without addresses", s.Segment.Flags, s.Src)
		}
	}
	addresses("add", own...)
	addresses("add", extra...)
	moving("pin4", "pin6", "free")
	if lost := p.scrape().sum("probed_probe_failures_total", nil); lost > 8 {
		// Those whose answer came while their address was gone.
		t.Errorf("%v probes failed: %v", lost, p.scrape().reasons("probed_probe_failures_total", nil))
	}
}

// TestLimitsOnTheWire asks for more than the limits, in the ways that no check
// of the configuration can see: names that turn out to be one address, names
// with many addresses, and reloads on top.
func TestLimitsOnTheWire(t *testing.T) {
	t.Parallel()
	const global, perAddress = 600, 40
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/24")
	b.Listen("tcp", "[::]:80")
	names := make(map[string][]netip.Addr)
	yaml := fmt.Sprintf(`
global: {interval: 200ms, timeout: 150ms, limits: {packets_per_second: %d, packets_per_second_per_address: %d}}
modules: {every: {probe: half_open, resolve: all}}
jobs:
- name: same
  labels: {round: "ROUND"}
  targets:
`, global, perAddress)
	for i := range 30 { // 300 packets/s to one address
		name := fmt.Sprintf("same%d.test", i)
		names[name] = []netip.Addr{b.Addr4()}
		yaml += fmt.Sprintf("  - %s:80\n", name)
	}
	yaml += "- name: every\n  module: every\n  targets:\n"
	for i := range 10 { // 2,000 packets/s to 200 addresses
		name := fmt.Sprintf("every%d.test", i)
		for j := range 20 {
			names[name] = append(names[name], netip.AddrFrom4([4]byte{198, 18, 64, byte(20*i + j)}))
		}
		yaml += fmt.Sprintf("  - %s:80\n", name)
	}
	serveDNS(t, a, names)
	capture := a.Capture(t, a.Iface(), ourPorts, lab.Immediate)
	file := filepath.Join(t.TempDir(), "probed.yml")
	write(t, file, strings.ReplaceAll(yaml, "ROUND", "0"))
	p := launchFile(t, a, file, withDNS(t, "127.0.0.1"))
	p.awaitReady()
	sent := func(n float64) {
		t.Helper()
		before := p.scrape().sum("probed_segments_sent_total", nil)
		lab.Eventually(t, 10*time.Second, func() error {
			if now := p.scrape().sum("probed_segments_sent_total", nil); now < before+n {
				return fmt.Errorf("%v segments sent", now-before)
			}
			return nil
		})
	}
	sent(2 * global)
	for round := range 8 {
		write(t, file, strings.ReplaceAll(yaml, "ROUND", fmt.Sprint(round)))
		if code, body := p.do("POST", "/-/reload"); code != 200 {
			t.Fatalf("reload: %d %s", code, body)
		}
		sent(global / 4)
	}
	if n := p.scrape().reasons("probed_probes_skipped_total", nil)["rate_limit"]; n < 100 {
		t.Errorf("%v probes skipped for the limits: nothing is shown", n)
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var all []int64
	to := make(map[netip.Addr][]int64)
	for _, s := range segments(t, capture.Packets()) {
		if s.ours() {
			all = append(all, s.wall)
			to[s.Dst] = append(to[s.Dst], s.wall)
		}
	}
	most := busiestSecond(all)
	if most > global {
		t.Errorf("%d packets in one second, the limit is %d", most, global)
	}
	if most < global*9/10 {
		t.Errorf("at most %d packets in one second, under a limit of %d that was asked for: nothing is shown", most, global)
	}
	worst := 0
	for addr, stamps := range to {
		n := busiestSecond(stamps)
		worst = max(worst, n)
		if n > perAddress {
			t.Errorf("%d packets to %v in one second, the limit is %d", n, addr, perAddress)
		}
	}
	if n := busiestSecond(to[b.Addr4()]); n < perAddress*9/10 {
		t.Errorf("at most %d packets in one second to an address of which 300 were asked: nothing is shown", n)
	}
	t.Logf("busiest second: %d packets of %d, to one address %d of %d", most, global, worst, perAddress)
	for _, x := range exchanges(t, segments(t, capture.Packets())) {
		if len(x.synAcks) != len(x.resets) || !x.syn.is(probe.SYN) {
			t.Errorf("%v: %d SYN-ACKs, %d RSTs", x.syn.to(), len(x.synAcks), len(x.resets))
		}
	}
}

// busiestSecond is the most stamps, in ns, within one second, wherever it
// begins.
func busiestSecond(stamps []int64) int {
	slices.Sort(stamps)
	most, from := 0, 0
	for i, at := range stamps {
		for at-stamps[from] >= int64(time.Second) {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
