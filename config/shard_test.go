package config

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// addresses are n targets as people number them.
func addresses(n int) []Target {
	ts := make([]Target, n)
	for i := range ts {
		ts[i].Address = fmt.Sprintf("198.18.%d.%d:443", i>>8, i&0xff)
		if i%3 == 1 {
			ts[i].Address = fmt.Sprintf("db-%05d.example.net:5432", i)
		}
		if i%3 == 2 {
			ts[i].Address = fmt.Sprintf("[2001:db8::%x]:443", i)
		}
	}
	return ts
}

// shardOf returns the only shard that owns a target.
func shardOf(t *testing.T, x *Target, count int, h ShardHash) int {
	t.Helper()
	owner, owners := -1, 0
	for i := range count {
		if (Shard{i, count, h}).Owns(x) {
			owner, owners = i, owners+1
		}
	}
	if owners != 1 {
		t.Fatalf("%d of %d shards own %s", owners, count, x.Address)
	}
	return owner
}

func TestShardsDivideTargets(t *testing.T) {
	ts := addresses(10_000)
	for _, h := range []ShardHash{Hashmod, Rendezvous} {
		sizes := make([]int, 3)
		for i := range ts {
			sizes[shardOf(t, &ts[i], 3, h)]++
		}
		t.Logf("%s: 10,000 targets over 3 shards: %d", h, sizes)
		for i, n := range sizes {
			if off := float64(n)/(10_000.0/3) - 1; off < -0.05 || off > 0.05 {
				t.Errorf("%s: shard %d has %d targets, %+.1f %%", h, i, n, 100*off)
			}
		}
	}
	if !(Shard{}).Owns(&ts[0]) || !(Shard{0, 1, Rendezvous}).Owns(&ts[0]) {
		t.Error("a target is in no shard though there is but one")
	}
}

// TestShardIsHashmod holds the shards against Prometheus's own relabelling.
func TestShardIsHashmod(t *testing.T) {
	ts := addresses(10_000)
	for _, count := range []int{1, 2, 3, 7, 64, 1000} {
		rules := []*relabel.Config{
			{Action: relabel.HashMod, SourceLabels: model.LabelNames{"__address__"}, Separator: ";", Modulus: uint64(count), TargetLabel: "__tmp_hash", Regex: relabel.DefaultRelabelConfig.Regex, Replacement: "$1"},
			{Action: relabel.Replace, SourceLabels: model.LabelNames{"__tmp_hash"}, Separator: ";", TargetLabel: "shard", Regex: relabel.DefaultRelabelConfig.Regex, Replacement: "$1"},
		}
		for _, r := range rules {
			if err := r.Validate(model.LegacyValidation); err != nil {
				t.Fatal(err)
			}
		}
		for i := range ts {
			lb := promlabels.NewBuilder(promlabels.FromStrings("__address__", ts[i].Address))
			keep := relabel.ProcessBuilder(lb, rules...)
			want, err := strconv.Atoi(lb.Get("shard"))
			if !keep || err != nil {
				t.Fatal(lb.Labels(), err)
			}
			if !(Shard{Index: want, Count: count}).Owns(&ts[i]) {
				t.Fatalf("%s is not in shard %d of %d", ts[i].Address, want, count)
			}
		}
	}
}

// TestShardsMove counts how many targets change hands when a shard is added, and
// asserts that no more do than must.
func TestShardsMove(t *testing.T) {
	ts := addresses(10_000)
	for _, n := range []int{3, 4, 9} {
		for _, h := range []ShardHash{Hashmod, Rendezvous} {
			moved, elsewhere := 0, 0
			for i := range ts {
				before, after := shardOf(t, &ts[i], n, h), shardOf(t, &ts[i], n+1, h)
				if before == after {
					continue
				}
				moved++
				if after != n {
					elsewhere++
				}
				if x := hash(ts[i].Address); h == Hashmod && x%uint64(n) == x%uint64(n+1) {
					t.Fatalf("%s moved though its remainder is the same", ts[i].Address)
				}
			}
			share, least := float64(moved)/float64(len(ts)), 1/float64(n+1)
			t.Logf("%s, from %d shards to %d: %.1f %% of the targets move, %d to a shard that was there already; the least is %.1f %%",
				h, n, n+1, 100*share, elsewhere, 100*least)
			switch {
			case h == Rendezvous && (elsewhere > 0 || share > least*1.1 || share < least*0.9):
				t.Errorf("rendezvous moves more, or less, than it must")
			case h == Hashmod && (share < 0.9-1/float64(n) || share > 1):
				t.Errorf("hashmod moves another share than it should")
			}
		}
	}
}

// TestShardsStay pins which shard has a target: an update of probed must not move it.
func TestShardsStay(t *testing.T) {
	var got strings.Builder
	for _, x := range addresses(12) {
		fmt.Fprintf(&got, "%s %d %d\n", x.Address, shardOf(t, &x, 5, Hashmod), shardOf(t, &x, 5, Rendezvous))
	}
	golden(t, "testdata/shards.txt", got.String())
}

// TestShardBeforeLimits asserts that what a shard does not probe counts for none of
// its limits.
func TestShardBeforeLimits(t *testing.T) {
	file := append([]byte("global: {limits: {packets_per_second: 2000}}\n"), many(1200, "198.18.%d.%d:443")...) // which are 2,400
	if _, err := Parse("f", file); err == nil {
		t.Fatal("the limit is not exceeded")
	}
	all := 0
	for i := range 3 {
		c, err := Options{Shard: Shard{Index: i, Count: 3}}.Parse("f", file)
		if err != nil {
			t.Fatal(err)
		}
		x := c.Expand(nil)
		all += len(x.Targets)
		if x.Jobs[0].Elsewhere != 1200-len(x.Targets) {
			t.Errorf("%+v", x.Jobs[0])
		}
	}
	if all != 1200 {
		t.Errorf("the shards have %d targets together", all)
	}
	// The place of an error is that of the target that it is about.
	file = []byte("global: {limits: {packets_per_second_per_address: 3}}\njobs:\n- name: a\n  targets:\n  - a:1\n  - b:1\n  - c:1\n  - c:2\n  - d:1\n")
	for i := range 2 {
		_, err := Options{Shard: Shard{Index: i, Count: 2}}.Parse("f", file)
		both := shardOf(t, &Target{Endpoint: Endpoint{Address: "c:1"}}, 2, Hashmod) == i && shardOf(t, &Target{Endpoint: Endpoint{Address: "c:2"}}, 2, Hashmod) == i
		if both != (err != nil) || both && !strings.HasPrefix(err.Error(), "f:8:5: jobs[0].targets[3]: ") {
			t.Errorf("shard %d: %v", i, err)
		}
	}
}

func TestParseShard(t *testing.T) {
	for s, want := range map[string]Shard{"0/1": {0, 1, Hashmod}, "2/3": {2, 3, Hashmod}, "9999/10000": {9999, 10000, Hashmod}} {
		if got, err := ParseShard(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"3/3":     "there is no shard 3 of 3: the first is 0/3, the last 2/3",
		"":        `"" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
		"1":       `"1" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
		"0/0":     `"0/0" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
		"-1/3":    `"-1/3" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
		"0/3/4":   `"0/3/4" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
		"0/10001": `"0/10001" is not a shard; write I/N, such as 0/3, with N up to 10,000`,
	} {
		if _, err := ParseShard(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, name := range shardHashNames {
		if h, err := ParseShardHash(name); err != nil || h.String() != name {
			t.Errorf("%s: %v, %v", name, h, err)
		}
	}
	if _, err := ParseShardHash("md5"); err == nil || err.Error() != `"md5" is not known; allowed: hashmod, rendezvous` {
		t.Error(err)
	}
}
