package main

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/probed/probed/internal/lab"
)

// TestShards has three probed divide a list that grows: each target is probed by
// one of them, and by its packets no other.
func TestShards(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp4", "0.0.0.0:80")
	capture := h.Capture(t, "lo", "tcp dst port 80 and tcp[tcpflags] == tcp-syn", lab.Immediate)
	dir := t.TempDir()
	var all []string
	grow := func(n int) {
		for i := len(all); i < n; i++ {
			all = append(all, fmt.Sprintf("127.0.%d.%d:80", 1+i/200, 1+i%200))
		}
		place(t, filepath.Join(dir, "list.json"), `[{"targets": ["`+strings.Join(all, `", "`)+`"]}]`)
		slices.Sort(all)
	}
	grow(60)
	shards := make([]*process, 3)
	for i := range shards {
		base := fmt.Sprintf("127.0.0.1:%d", 10970+i)
		shards[i] = launch(t, h, fmt.Sprintf(`
global: {interval: 50ms, timeout: 20ms, source_ports: %d000-%[1]d999}
jobs:
- name: shared
  file_sd_configs: [{files: [%q]}]
`, 61+i, filepath.Join(dir, "*.json")), withArgs(fmt.Sprintf("--shard=%d/3", i), "--web.listen-address="+base))
		shards[i].base = "http://" + base
	}
	for _, p := range shards {
		p.awaitReady()
	}
	owner := make(map[string]int)
	for _, n := range []int{60, 100} {
		if n > len(all) {
			grow(n)
		}
		parts := make([][]string, len(shards))
		lab.Eventually(t, 10e9, func() error {
			var together []string
			for i, p := range shards {
				parts[i] = p.scrape().targets()
				together = append(together, parts[i]...)
			}
			slices.Sort(together)
			if !slices.Equal(together, all) {
				return fmt.Errorf("%d of %d targets: not each once", len(together), len(all))
			}
			return nil
		})
		for i, part := range parts {
			if len(part) < n/6 {
				t.Errorf("shard %d has %d of %d targets", i, len(part), n)
			}
			shards[i].awaitProbes(part[len(part)-1], 3)
			for _, target := range part {
				if was, known := owner[target]; known && was != i {
					t.Errorf("%s has moved from shard %d to %d", target, was, i)
				}
				owner[target] = i
			}
		}
		t.Logf("%d targets: %d, %d, %d", n, len(parts[0]), len(parts[1]), len(parts[2]))
	}
	for i, p := range shards {
		s := p.scrape()
		for _, target := range s.targets() {
			if s.sum("probed_probe_success", labels{"target": target}) != 1 {
				t.Errorf("shard %d does not reach %s", i, target)
			}
		}
		if code := stop(p); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	seen := make(map[string]bool)
	for _, s := range segments(t, capture.Packets()) {
		target := s.to().String()
		if i := int(s.SrcPort/1000) - 61; i != owner[target] {
			t.Fatalf("a SYN to %s from port %d: it is shard %d's", target, s.SrcPort, owner[target])
		}
		seen[target] = true
	}
	if len(seen) != len(all) {
		t.Errorf("SYNs to %d of %d targets", len(seen), len(all))
	}
}

// TestMesh has four hosts behind a router probe one another, each probed by two
// others; then one leaves, and one gets another address.
func TestMesh(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	router := l.Host("router")
	router.Forward()
	list := filepath.Join(t.TempDir(), "nodes.yml")
	var nodes []*process
	var addrs []netip.Addr
	for i := range 4 {
		n := l.Host(fmt.Sprint("node", i))
		l.Join(n, router)
		n.Route("198.18.0.0/16", router.End(i).Addr4)
		n.Listen("tcp4", "0.0.0.0:80")
		addrs = append(addrs, n.Addr4())
		nodes = append(nodes, launch(t, n, `
global: {interval: 50ms, timeout: 40ms}
jobs:
- name: mesh
  mesh: {peers: 2}
  file_sd_configs: [{files: ["`+list+`"]}]
`))
	}
	put := func(addrs ...netip.Addr) {
		var b strings.Builder
		for _, a := range addrs {
			fmt.Fprintf(&b, "- targets: [%q]\n", netip.AddrPortFrom(a, 80))
		}
		place(t, list, b.String())
	}
	// await waits until each of the addresses is probed by two of the nodes, its own
	// not among them.
	await := func(addrs map[int]netip.Addr) {
		t.Helper()
		lab.Eventually(t, 10e9, func() error {
			by := make(map[string][]int)
			for i, p := range nodes {
				s := p.scrape()
				for _, target := range s.targets() {
					if own, is := addrs[i]; is && netip.AddrPortFrom(own, 80).String() == target {
						return fmt.Errorf("node %d probes itself", i)
					}
					if s.sum("probed_probe_success", labels{"target": target}) != 1 {
						return fmt.Errorf("node %d does not reach %s", i, target)
					}
					by[target] = append(by[target], i)
				}
			}
			for _, a := range addrs {
				if n := len(by[netip.AddrPortFrom(a, 80).String()]); n != 2 {
					return fmt.Errorf("%v is probed by %d: %v", a, n, by)
				}
			}
			if len(by) != len(addrs) {
				return fmt.Errorf("%v is probed", by)
			}
			return nil
		})
	}
	for _, p := range nodes {
		p.awaitReady()
	}
	put(addrs...)
	four := map[int]netip.Addr{0: addrs[0], 1: addrs[1], 2: addrs[2], 3: addrs[3]}
	await(four)

	put(addrs[:3]...)
	three := maps.Clone(four)
	delete(three, 3)
	await(three)

	// A node's address changes, and nobody tells: it is looked at again.
	moved := netip.MustParseAddr("198.18.100.1")
	put(addrs[0], addrs[1], addrs[2], moved)
	// Until then it is none of the nodes and probes none of them: how many pairs that
	// leaves depends on the addresses.
	lab.Eventually(t, 10e9, func() error {
		if probed := nodes[3].scrape().targets(); len(probed) != 0 {
			return fmt.Errorf("the fourth probes %v", probed)
		}
		by := 0
		for _, p := range nodes[:3] {
			if slices.Contains(p.scrape().targets(), netip.AddrPortFrom(moved, 80).String()) {
				by++
			}
		}
		if by != 2 {
			return fmt.Errorf("the new address is probed by %d", by)
		}
		return nil
	})
	if said, want := nodes[3].said(), `msg="no address of this host is among the nodes: it probes none of them" jobs=mesh`; strings.Count(said, want) != 1 {
		t.Errorf("the fourth is not one of the nodes, and said\n%s", said)
	}
	nodes[3].awaitTargets()
	router.Route("198.18.100.1/32", addrs[3])
	nodes[3].host.AnyIP("198.18.100.1/32")
	if out, err := nodes[3].host.Command(t.Context(), "ip", "address", "add", moved.String()+"/32", "dev", nodes[3].host.Iface()).CombinedOutput(); err != nil {
		t.Fatalf("ip address: %v\n%s", err, out)
	}
	four[3] = moved
	await(four)
}
