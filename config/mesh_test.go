package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// nodes are the targets of a mesh of n nodes, from the first on.
func nodes(first, n int) (addrs []netip.Addr) {
	for i := range n {
		addrs = append(addrs, netip.AddrFrom4([4]byte{198, 18, byte((first + i) >> 8), byte(first + i)}))
	}
	return addrs
}

// meshConfig is what a mesh of nodes reads on the node with an address.
func meshConfig(t testing.TB, peers int, addrs []netip.Addr, us ...netip.Addr) *Config {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "jobs: [{name: nodes, interval: 1m, mesh: {peers: %d}, targets: [", peers)
	for _, a := range addrs {
		fmt.Fprintf(&b, "%q, ", netip.AddrPortFrom(a, 10965))
	}
	b.WriteString("]}]")
	c, err := Options{Own: func(a netip.Addr) bool { return slices.Contains(us, a) }}.Parse("f", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pair is that one node probes another.
type pair struct{ from, to netip.Addr }

// meshOf returns who probes whom.
func meshOf(t *testing.T, peers int, addrs []netip.Addr) map[pair]bool {
	t.Helper()
	all := make(map[pair]bool)
	for _, from := range addrs {
		x := meshConfig(t, peers, addrs, from).Expand(nil)
		if tally := x.Jobs[0]; !tally.Member || tally.Nodes != len(addrs) || tally.Elsewhere != len(addrs)-len(x.Targets) {
			t.Fatalf("%+v", tally)
		}
		for _, to := range x.Targets {
			if all[pair{from, to.IP}] = true; from == to.IP {
				t.Fatalf("%v probes itself", from)
			}
		}
	}
	return all
}

// TestMesh asserts that each node is probed by exactly so many others.
func TestMesh(t *testing.T) {
	for _, c := range []struct{ nodes, peers, each int }{
		{100, 3, 3}, {100, 1, 1}, {7, 5, 5}, {4, 3, 3}, {3, 3, 2}, {2, 1, 1}, {2, 9, 1}, {1, 3, 0},
	} {
		in, out := make(map[netip.Addr]int), make(map[netip.Addr]int)
		addrs := nodes(1, c.nodes)
		for p := range meshOf(t, c.peers, addrs) {
			out[p.from]++
			in[p.to]++
		}
		most := 0
		for _, a := range addrs {
			most = max(most, out[a])
			if in[a] != c.each {
				t.Errorf("%d nodes, %d peers: %d probe %v", c.nodes, c.peers, in[a], a)
			}
		}
		t.Logf("%d nodes, peers: %d: each is probed by %d; the busiest probes %d", c.nodes, c.peers, c.each, most)
	}
}

// TestMeshChange asserts that a node that comes or goes changes nothing but its own
// part: whom it probes, who probes it, and who takes or gives that up in its place.
func TestMeshChange(t *testing.T) {
	const n, peers = 60, 3
	addrs := nodes(1, n+1)
	who := addrs[n]
	without, with := meshOf(t, peers, addrs[:n]), meshOf(t, peers, addrs)
	came, gone := 0, 0
	lost := make(map[netip.Addr]int)
	for p := range with {
		if !without[p] {
			if came++; p.from != who && p.to != who {
				t.Errorf("%v begins to probe %v because of %v", p.from, p.to, who)
			}
		}
	}
	for p := range without {
		if !with[p] {
			gone++
			if lost[p.to]++; !with[pair{who, p.to}] || lost[p.to] > 1 {
				t.Errorf("%v stops probing %v, which %v does not", p.from, p.to, who)
			}
		}
	}
	t.Logf("%d nodes of %d pairs: one more adds %d and takes %d away", n, n*peers, came, gone)
	if came != gone+peers {
		t.Errorf("%d pairs came, %d went", came, gone)
	}
}

func TestMeshFindsItself(t *testing.T) {
	addrs := nodes(1, 9)
	if x := meshConfig(t, 3, addrs, netip.MustParseAddr("192.0.2.1")).Expand(nil); len(x.Targets) != 0 || x.Jobs[0].Member {
		t.Errorf("a host that is no node probes %d of them", len(x.Targets))
	}
	c := meshConfig(t, 3, addrs)
	c.options.Own = nil
	if x := c.Expand(nil); len(x.Targets) != 0 || x.Jobs[0].Nodes != 9 {
		t.Errorf("a host without addresses: %+v", x.Jobs[0])
	}
	// Several addresses of one host are one node's: it probes for each of them.
	both := meshConfig(t, 3, addrs, addrs[0], addrs[4]).Expand(nil)
	one, other := meshConfig(t, 3, addrs, addrs[0]).Expand(nil), meshConfig(t, 3, addrs, addrs[4]).Expand(nil)
	for _, x := range slices.Concat(one.Targets, other.Targets) {
		is := slices.ContainsFunc(both.Targets, func(y Target) bool { return x.IP == y.IP })
		if us := x.IP == addrs[0] || x.IP == addrs[4]; is == us {
			t.Errorf("%v: probed %v, ours %v", x.IP, is, us)
		}
	}
}

// TestMeshFamilies asserts that a node is probed by as many over IPv6 as over IPv4,
// and on all its ports by the same.
func TestMeshFamilies(t *testing.T) {
	const n = 12
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "\"198.18.0.%d:80\", \"198.18.0.%d:443\", \"[2001:db8::%x]:80\", ", i+1, i+1, i+1)
	}
	probed := make(map[string]int)
	for i := range n {
		c, err := Options{Own: func(a netip.Addr) bool {
			b := a.AsSlice()
			return int(b[len(b)-1]) == i+1
		}, Shard: Shard{Index: 1, Count: 2}}.Parse("f", []byte("jobs: [{name: nodes, mesh: {peers: 4}, targets: ["+list.String()+"]}]"))
		if err != nil {
			t.Fatal(err)
		}
		x := c.Expand(nil)
		for _, y := range x.Targets {
			probed[y.Address]++
			if y.Port == 443 && !slices.ContainsFunc(x.Targets, func(z Target) bool { return z.IP == y.IP && z.Port == 80 }) {
				t.Errorf("%v probes one port of %v", i, y.IP)
			}
		}
	}
	if len(probed) != 3*n {
		t.Errorf("%d addresses and ports are probed, of %d", len(probed), 3*n)
	}
	for address, k := range probed {
		if k != 4 {
			t.Errorf("%s is probed by %d", address, k)
		}
	}
}

func BenchmarkMesh(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			addrs := nodes(1, n)
			c := meshConfig(b, 3, addrs, addrs[n/2])
			for b.Loop() {
				if x := c.Expand(nil); x.Jobs[0].Nodes != n {
					b.Fatal(x.Jobs)
				}
			}
		})
	}
}

// TestMeshNodesAreOneHosts asserts that an address which many hosts have is no node.
func TestMeshNodesAreOneHosts(t *testing.T) {
	own := Options{Own: func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() }}
	const mesh = "modules: {lan: {probe: half_open, interface: eth0}}\njobs: [{name: j, module: %s, mesh: {peers: 1}, file_sd_configs: [{files: [x.yml]}], targets: [%q]}]"
	c, err := own.Parse("f", fmt.Appendf(nil, mesh, "half_open", "198.18.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	for address, says := range map[string]string{
		"127.0.0.1:80":      "127.0.0.1:80 is a loopback address, which every host has",
		"127.1.2.3:80":      "127.1.2.3:80 is a loopback address, which every host has",
		"[::1]:80":          "[::1]:80 is a loopback address, which every host has",
		"[fe80::1%eth0]:80": "[fe80::1%eth0]:80 is a link-local address, which a host on another link can have too",
		"[fe80::1]:80":      "[fe80::1]:80 is a link-local address, which a host on another link can have too",
	} {
		says += ", so that it is no node of a mesh; write the address that the other nodes reach it by"
		x := c.Expand(found(group("s", nil, []string{address}, []string{"198.18.0.2:1"})))
		if n := x.Jobs[0]; len(x.Problems) != 1 || x.Problems[0].Reason != says || n.Nodes != 2 || n.Member || len(x.Targets) != 0 {
			t.Errorf("%s: %+v %v", address, n, x.Problems)
		}
		for _, module := range []string{"half_open", "lan"} {
			_, err := own.Parse("f", fmt.Appendf(nil, mesh, module, address))
			if err == nil || !strings.HasSuffix(err.Error(), says) || !strings.Contains(err.Error(), "jobs[0].targets[0]") {
				t.Errorf("%s: %v", address, err)
			}
		}
	}
}
