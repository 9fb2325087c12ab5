package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// TestFlowsFailing: routers spread flows over 16 paths by their five-tuple, all lose
// 1 %, and one of them dies. Within 30 s it is told which part of the flows fails, and
// no other is ever told to. Another one is 40 ms longer, and its flows' round trips say so.
func TestFlowsFailing(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	lossy := lab.Direction{Impairment: lab.Impairment{Delay: 5 * time.Millisecond, Loss: 0.01}, Seed: 5}
	link := l.Link(a, b, lossy, lab.Direction{Impairment: lab.Impairment{Delay: 5 * time.Millisecond}})
	b.Listen("tcp", "[::]:80")
	to := netip.AddrPortFrom(b.Addr4(), 80)
	p := start(t, a, fmt.Sprintf(`
modules: {fan: {probe: half_open, flows: 16, interval: 100ms}}
jobs: [{name: edge, module: fan, targets: ["%s"]}]
`, to))
	failing := func() float64 { return p.scrape().sum("probed_flows_failing", nil) }
	p.awaitProbes(to.String(), 30)
	ports := sourcePorts(t, link.AtoB.Records(), to)
	if len(ports) != 16 {
		t.Fatalf("source ports %v", ports)
	}
	if n := failing(); n != 0 {
		t.Errorf("%v flows fail before any path has died", n)
	}

	seed, dead := seedFor(netip.AddrPortFrom(a.Addr4(), 0), to, ports)
	paths := slices.Repeat([]lab.Impairment{lossy.Impairment}, 16)
	paths[0].Loss = 1
	paths[1].Delay += 40 * time.Millisecond
	died := time.Now()
	link.AtoB.Set(lab.Direction{Impairment: lossy.Impairment, PerFlow: lab.Paths(seed, paths...)})
	lab.Eventually(t, 30*time.Second, func() error {
		if n := failing(); n != 1 {
			return fmt.Errorf("%v flows fail", n)
		}
		return nil
	})
	t.Logf("port %d is found after %.1f s", dead, time.Since(died).Seconds())
	for range 20 {
		if n := failing(); n != 1 {
			t.Fatalf("%v flows fail", n)
		}
		time.Sleep(50 * time.Millisecond)
	}
	longer := func(port uint16) bool { return pathOf(netip.AddrPortFrom(a.Addr4(), port), to, seed) == 1 }
	lab.Eventually(t, 30*time.Second, func() error { // an SRTT is near after some 16 round trips
		flows := p.flows()
		if len(flows) != 16 {
			return fmt.Errorf("%d flows", len(flows))
		}
		for _, f := range flows {
			rtt := 10 * time.Millisecond
			if longer(f.Port) {
				rtt += 40 * time.Millisecond
			}
			if off := time.Duration(f.SRTT*1e9) - rtt; f.Failing != (f.Port == dead) || f.Port != dead && off.Abs() > 8*time.Millisecond {
				return fmt.Errorf("port %d (longer: %t): %+v", f.Port, longer(f.Port), f)
			}
		}
		return nil
	})
}

// A flow is one of a target's as the API has it.
type flow struct {
	Port    uint16  `json:"port"`
	Probes  int     `json:"probes"`
	Failed  int     `json:"failed"`
	Failing bool    `json:"failing"`
	SRTT    float64 `json:"srtt_seconds"`
}

// flows asks the API for those of the only target.
func (p *process) flows() []flow {
	p.t.Helper()
	var list struct{ Targets []struct{ ID string } }
	var detail struct {
		ByFlow []flow `json:"by_flow"`
	}
	_, body := p.do("GET", "/api/v1/targets")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Targets) != 1 {
		p.t.Fatalf("%v: %s", err, body)
	}
	_, body = p.do("GET", "/api/v1/targets/"+list.Targets[0].ID)
	if err := json.Unmarshal([]byte(body), &detail); err != nil {
		p.t.Fatalf("%v: %s", err, body)
	}
	return detail.ByFlow
}

// pathOf is which of 16 paths a flow takes.
func pathOf(from, to netip.AddrPort, seed uint64) uint64 {
	f := lab.Flow{Src: from, Dst: to, Protocol: unix.IPPROTO_TCP}
	return f.Hash(seed) % 16
}

// sourcePorts are the ports that SYNs to a target have left from.
func sourcePorts(t *testing.T, records []lab.Record, to netip.AddrPort) (ports []uint16) {
	t.Helper()
	for i := range records {
		packet, err := records[i].Packet()
		if err != nil {
			t.Fatal(err)
		}
		if packet.Dst == to.Addr() && packet.DstPort == to.Port() && !slices.Contains(ports, packet.SrcPort) {
			ports = append(ports, packet.SrcPort)
		}
	}
	return ports
}

// seedFor returns a seed by which the first of 16 paths has exactly one of the flows,
// and which, and the second has any.
func seedFor(from, to netip.AddrPort, ports []uint16) (seed uint64, port uint16) {
	for {
		var first []uint16
		second := 0
		for _, p := range ports {
			switch pathOf(netip.AddrPortFrom(from.Addr(), p), to, seed) {
			case 0:
				first = append(first, p)
			case 1:
				second++
			}
		}
		if len(first) == 1 && second > 0 {
			return seed, first[0]
		}
		seed++
	}
}
