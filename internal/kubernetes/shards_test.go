package kubernetes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// TestShardsBefore128 are shards that are told their number. One disruption budget is
// of them all: Kubernetes evicts no pod that has two, and one of a single pod would let
// all of them go at once.
func TestShardsBefore128(t *testing.T) {
	built := build(t, "examples/before-1.28")
	all := objects(t, built)
	var budgets int
	for name := range all {
		if strings.HasPrefix(name, "PodDisruptionBudget/") {
			budgets++
		}
	}
	budget := at[map[string]any](t, all["PodDisruptionBudget/probed"], "spec")
	if _, ok := budget["unhealthyPodEvictionPolicy"]; ok || budgets != 1 {
		t.Errorf("%d budgets; unhealthyPodEvictionPolicy, which 1.26 does not know: %v", budgets, ok)
	}
	together := []any{at[map[string]any](t, budget, "selector", "matchLabels")}
	for i := range 3 {
		want := []string{fmt.Sprintf("--shard=%d/3", i), "--shard.hash=rendezvous"}
		name := fmt.Sprintf("StatefulSet/probed-%d", i)
		if got := node(t, built, name, 0).Args; !slices.Equal(got, want) {
			t.Errorf("%s has the arguments %q, expected %q", name, got, want)
		}
		labels := at[map[string]any](t, all[name], "spec", "template", "metadata", "labels")
		spread := at[[]any](t, all[name], "spec", "template", "spec", "topologySpreadConstraints")
		for _, s := range spread {
			together = append(together, at[map[string]any](t, s, "labelSelector", "matchLabels"))
		}
		for _, selector := range together {
			for k, v := range selector.(map[string]any) {
				if labels[k] != v || k == "probed/shard" {
					t.Errorf("%s: what is over all shards asks for %s: %v", name, k, v)
				}
			}
		}
		for _, own := range []map[string]any{
			at[map[string]any](t, all[name], "spec", "selector", "matchLabels"),
			at[map[string]any](t, all[fmt.Sprintf("Service/probed-%d", i)], "spec", "selector"),
		} {
			if own["probed/shard"] != strconv.Itoa(i) || labels["probed/shard"] != own["probed/shard"] {
				t.Errorf("%s: a selector of its own asks for shard %v", name, own["probed/shard"])
			}
		}
	}
}
