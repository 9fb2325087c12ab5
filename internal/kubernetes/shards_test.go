package kubernetes

import (
	"fmt"
	"slices"
	"testing"
)

// TestShards changes the number of replicas, and nothing else, as an overlay does:
// each pod must know its number and the new number of all.
func TestShards(t *testing.T) {
	for _, n := range []int{1, 3, 7} {
		built := overlay(t, fmt.Sprintf(`
resources: [$MANIFESTS/base/sharded]
replicas: [{name: probed, count: %d}]
transformers: [$MANIFESTS/shards]`, n))
		if got := at[int](t, objects(t, built)["StatefulSet/probed"], "spec", "replicas"); got != n {
			t.Fatalf("%d replicas, expected %d", got, n)
		}
		for i := range n {
			want := []string{fmt.Sprintf("--shard=%d/%d", i, n), "--shard.hash=rendezvous"}
			if got := node(t, built, "StatefulSet/probed", i).Args; !slices.Equal(got, want) {
				t.Errorf("pod %d of %d has the arguments %q, expected %q", i, n, got, want)
			}
		}
	}
}

// TestShardsBefore128 are shards that are told their number.
func TestShardsBefore128(t *testing.T) {
	built := build(t, "examples/before-1.28")
	for i := range 3 {
		want := []string{fmt.Sprintf("--shard=%d/3", i), "--shard.hash=rendezvous"}
		name := fmt.Sprintf("StatefulSet/probed-%d", i)
		if got := node(t, built, name, 0).Args; !slices.Equal(got, want) {
			t.Errorf("%s has the arguments %q, expected %q", name, got, want)
		}
	}
}
