package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// TestLoops has two loops probe a hundred addresses by two kinds: every target is
// probed and answered, from the ports of one loop alone; a reload changes targets and
// limits; a probe on request and the heartbeat work; and at the end nothing is left
// open.
func TestLoops(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/24")
	b.Serve("tcp", "[::]:80", lab.Discard)
	yaml := func(limit, targets int, kind string) string {
		var text strings.Builder
		fmt.Fprintf(&text, "global: {interval: 500ms, timeout: 450ms, loops: 2, limits: {packets_per_second: %d}}\n"+
			"modules: {active_close: {timeout: 480ms, tcp_options: {sack: true}}}\n"+
			"jobs:\n- name: test\n  module: %s\n  targets:\n", limit, kind)
		for i := range targets {
			fmt.Fprintf(&text, "  - 198.18.64.%d:80\n", i+1)
		}
		return text.String()
	}
	capture := a.Capture(t, a.Iface(), "tcp[tcpflags] == tcp-syn", lab.Immediate)
	n := listenNotify(t)
	file := filepath.Join(t.TempDir(), "probed.yml")
	write(t, file, yaml(2000, 100, "half_open"))
	p := launchFile(t, a, file, n.managed(time.Second))
	p.awaitReady()
	n.await("READY=1", 5*time.Second)
	p.awaitProbes("198.18.64.1:80", 5)
	p.awaitProbes("198.18.64.100:80", 5)
	first := p.scrape()
	if got := first.sum("probed_targets", nil); got != 100 {
		t.Errorf("%v targets", got)
	}
	if code, body := p.onDemand("198.18.64.200:80", "half_open"); code != 200 || !strings.Contains(body, "probe_success 1") {
		t.Errorf("on demand: %d %s", code, body)
	}
	if got := n.beats(2 * time.Second); got < 4 {
		t.Errorf("%d heartbeats in 2 s", got)
	}
	write(t, file, yaml(3000, 50, "active_close"))
	p.signal(syscall.SIGHUP)
	lab.Eventually(t, 20*time.Second, func() error {
		s := p.scrape()
		if s.sum("probed_targets", nil) != 50 || s.sum("probed_teardowns_total", labels{"target": "198.18.64.50:80"}) < 5 {
			return fmt.Errorf("%v targets, %v teardowns", s.sum("probed_targets", nil), s.sum("probed_teardowns_total", nil))
		}
		return nil
	})
	if code, body := p.do("GET", "/-/healthy"); code != 200 {
		t.Errorf("healthy: %d %s", code, body)
	}
	s := p.scrape()
	for _, name := range []string{"probed_probe_failures_total", "probed_tap_drops_total"} {
		if got := s.sum(name, nil); got != 0 {
			t.Errorf("%s is %v", name, got)
		}
	}
	write(t, file, strings.Replace(yaml(3000, 50, "active_close"), "loops: 2", "loops: 3", 1))
	if code, body := p.do("POST", "/-/reload"); code != 500 || !strings.Contains(body, "global.loops: 2 run until probed ends") {
		t.Errorf("a reload with other loops: %d %s", code, body)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(5 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	loops := make(map[netip.Addr]map[int]bool)
	used := make(map[int]int)
	for _, one := range capture.Packets() {
		var packet wire.Packet
		if err := wire.Parse(one.Data, &packet); err != nil || packet.Segment.Flags != probe.SYN || !one.Outgoing {
			continue
		}
		loop := 0
		if packet.SrcPort >= 61128 {
			loop = 1
		}
		if loops[packet.Dst] == nil {
			loops[packet.Dst] = make(map[int]bool)
		}
		loops[packet.Dst][loop] = true
		used[loop]++
	}
	for addr, of := range loops {
		if len(of) != 1 {
			t.Errorf("%v is probed by loops %v", addr, of)
		}
	}
	if len(loops) != 101 || used[0] < 200 || used[1] < 200 {
		t.Errorf("%d addresses, SYNs by loop %v", len(loops), used)
	}
}

// TestTransmitPacket probes by a packet socket as a user who may do no more than that,
// past a firewall of its own, which is said.
func TestTransmitPacket(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	a.NFT("add table inet lab\n" +
		"add chain inet lab input { type filter hook input priority 0; policy drop; }\n" +
		"add rule inet lab input iif lo accept\n" +
		"add rule inet lab input meta l4proto { icmp, icmpv6 } accept\n" +
		"add rule inet lab input ct state established,related accept\n")
	dir := readableDir(t)
	file := filepath.Join(dir, "probed.yml")
	write(t, file, fmt.Sprintf("global: {interval: 300ms, timeout: 250ms}\nmodules: {fast: {probe: half_open, transmit: packet}}\n"+
		"jobs:\n- name: test\n  module: fast\n  targets: [\"%v:80\", \"[%v]:80\"]\n", b.Addr4(), b.Addr6()))
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p := launchFile(t, a, file, unprivileged(unix.CAP_NET_RAW))
	p.awaitReady()
	for _, target := range []string{fmt.Sprintf("%v:80", b.Addr4()), fmt.Sprintf("[%v]:80", b.Addr6())} {
		p.awaitProbes(target, 8)
	}
	s := p.scrape()
	if got := s.sum("probed_probe_failures_total", labels{"reason": "timeout"}); got != 0 {
		t.Errorf("%v timeouts", got)
	}
	if n := strings.Count(p.said(), "goes on with transmit: raw"); n != 1 {
		t.Errorf("said %d times that it goes on with raw sockets", n)
	}
}
