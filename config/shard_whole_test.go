package config

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

const oneFile = "jobs: [{name: j, file_sd_configs: [{files: [x.yml]}]}]"

// sharded reads a configuration as one of some shards does.
func sharded(t testing.TB, text string, s Shard) *Config {
	t.Helper()
	c := good(t, text)
	c.options.Shard = s
	return c
}

// TestMostIsOfAShard asserts that shards divide a list which is longer than one
// host may have targets, and leave none of it out; and what is said of a part that is
// too long itself.
func TestMostIsOfAShard(t *testing.T) {
	const most, shards = 40, 3
	g := &targetgroup.Group{Source: "s"}
	for i := range 90 {
		g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(fmt.Sprintf("h%d:1", i))})
	}
	for _, h := range []ShardHash{Hashmod, Rendezvous} {
		owners := make(map[string]int)
		for i := range shards {
			x, origins := sharded(t, oneFile, Shard{i, shards, h}).expand(found(g), most)
			if n := x.Jobs[0]; len(x.Problems) > 0 || n.Elsewhere != 90-len(x.Targets) || n.Invalid != 0 || len(origins) != len(x.Targets) {
				t.Errorf("%v: %+v %v", h, n, x.Problems)
			}
			for _, y := range x.Targets {
				owners[y.Address]++
			}
		}
		for _, labels := range g.Targets {
			if n := owners[string(labels["__address__"])]; n != 1 {
				t.Errorf("%v: %d shards have %s", h, n, labels)
			}
		}
	}
	x, _ := sharded(t, oneFile, Shard{0, shards, Hashmod}).expand(found(g), 10)
	if n := x.Jobs[0]; len(x.Targets) != 10 || n.Invalid == 0 || n.Invalid+n.Elsewhere != 80 || x.Problems[0].Reason != "there are 10 targets, and that is the most" {
		t.Errorf("%+v %v", n, x.Problems)
	}
	// A mesh is not sharded: it needs all of its nodes.
	mesh := sharded(t, "jobs: [{name: j, mesh: {peers: 2}, file_sd_configs: [{files: [x.yml]}]}]", Shard{0, shards, Hashmod})
	ips := nodes(1, 60)
	mesh.options.Own = func(a netip.Addr) bool { return a == ips[7] }
	all := &targetgroup.Group{Source: "s"}
	for _, ip := range ips {
		all.Targets = append(all.Targets, model.LabelSet{"__address__": model.LabelValue(netip.AddrPortFrom(ip, 80).String())})
	}
	y := mesh.Expand(found(all))
	if n := y.Jobs[0]; n.Nodes != 60 || !n.Member || n.Elsewhere != 60-len(y.Targets) || cap(y.Targets) > len(y.Targets)+len(y.Targets)/4 {
		t.Errorf("%+v, room for %d", n, cap(y.Targets))
	}
}

// TestShardsAgreeOnDuplicates asserts that of two targets which are the same and
// written differently, so that they are in different shards, the first is probed and
// by one shard.
func TestShardsAgreeOnDuplicates(t *testing.T) {
	const shards = 5
	g := &targetgroup.Group{Source: "s"}
	want := make(map[string]bool)
	for i := range 40 {
		ways := []string{fmt.Sprintf("h%d:1", i), fmt.Sprintf("H%d:1", i), fmt.Sprintf("h%d.:1", i)}
		if i%2 == 1 {
			slices.Reverse(ways)
		}
		want[ways[0]] = true
		for _, w := range append(ways, ways[0]) {
			g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(w)})
		}
	}
	got := make(map[string]int)
	for i := range shards {
		x := sharded(t, oneFile, Shard{i, shards, Hashmod}).Expand(found(g))
		if n := x.Jobs[0]; n.Duplicates != 120 || n.Elsewhere != 40-len(x.Targets) {
			t.Errorf("%+v", n)
		}
		for _, y := range x.Targets {
			if got[y.Address]++; !want[y.Address] || got[y.Address] > 1 {
				t.Errorf("shard %d has %s", i, y.Address)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d targets are probed, of %d", len(got), len(want))
	}
}

// heap returns how many octets are in use.
func heap() int64 {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestShardsMemory bounds what a list costs a shard for each of the targets that are
// others'.
func TestShardsMemory(t *testing.T) {
	const n, shards = 60_000, 30
	none := heap()
	gs := longList(n)
	list := heap()
	c := sharded(t, oneFile, Shard{0, shards, Hashmod})
	x := c.Expand(gs)
	kept := heap() - list
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	y := c.Expand(gs)
	runtime.ReadMemStats(&after)
	made := int64(after.TotalAlloc - before.TotalAlloc)
	t.Logf("of %d targets %d are ours: %d octets a target for the list, %d for what is kept of it, %d while it is divided",
		n, len(x.Targets), (list-none)/n, kept/n, made/n)
	if kept/n > 40 {
		t.Errorf("%d octets are kept for each target of the list", kept/n)
	}
	if most := n/shards + n/shards/4; cap(y.Targets) > most {
		t.Errorf("room for %d targets", cap(y.Targets))
	}
	runtime.KeepAlive(gs)
	runtime.KeepAlive(x)
}

// longList is a file of targets as discovery keeps it, two labels for each.
func longList(n int) map[string][]*targetgroup.Group {
	g := &targetgroup.Group{Source: "targets.json:0", Labels: model.LabelSet{"rack": "a1", "__meta_filepath": "targets.json"}}
	for i := range n {
		g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(fmt.Sprintf("198.18.%d.%d:%d", i>>8&0xff, i&0xff, 1+i>>16))})
	}
	return found(g)
}
