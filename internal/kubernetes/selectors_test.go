package kubernetes

import (
	"maps"
	"strings"
	"testing"
)

// TestSelectors puts both bases into one namespace. Whatever selects pods must select
// those of its own workload and no others, and a monitor those of both.
func TestSelectors(t *testing.T) {
	all := objects(t, overlay(t, `
resources: [$MANIFESTS/base/sharded, $MANIFESTS/base/mesh]
components:
- $MANIFESTS/components/network-policy-sharded
- $MANIFESTS/components/network-policy-mesh
- $MANIFESTS/components/pod-monitor
- $MANIFESTS/components/service-monitor`))
	labels := func(name string) map[string]any {
		return at[map[string]any](t, all[name], "spec", "template", "metadata", "labels")
	}
	sharded, mesh := labels("StatefulSet/probed"), labels("DaemonSet/probed-mesh")
	selects := func(selector, labels map[string]any) bool {
		for k, v := range selector {
			if labels[k] != v {
				return false
			}
		}
		return len(selector) > 0
	}
	for _, c := range []struct {
		what             string
		selector         map[string]any
		ofShards, ofMesh bool
	}{
		{"the StatefulSet", at[map[string]any](t, all["StatefulSet/probed"], "spec", "selector", "matchLabels"), true, false},
		{"the spread over nodes", at[map[string]any](t, all["StatefulSet/probed"], "spec", "template", "spec", "topologySpreadConstraints", 0, "labelSelector", "matchLabels"), true, false},
		{"the spread over zones", at[map[string]any](t, all["StatefulSet/probed"], "spec", "template", "spec", "topologySpreadConstraints", 1, "labelSelector", "matchLabels"), true, false},
		{"the budget", at[map[string]any](t, all["PodDisruptionBudget/probed"], "spec", "selector", "matchLabels"), true, false},
		{"the shards' Service", at[map[string]any](t, all["Service/probed"], "spec", "selector"), true, false},
		{"the shards' policy", at[map[string]any](t, all["NetworkPolicy/probed"], "spec", "podSelector", "matchLabels"), true, false},
		{"the DaemonSet", at[map[string]any](t, all["DaemonSet/probed-mesh"], "spec", "selector", "matchLabels"), false, true},
		{"the mesh's Service", at[map[string]any](t, all["Service/probed-mesh"], "spec", "selector"), false, true},
		{"the mesh's policy", at[map[string]any](t, all["NetworkPolicy/probed-mesh"], "spec", "podSelector", "matchLabels"), false, true},
		{"the mesh's policy, in", at[map[string]any](t, all["NetworkPolicy/probed-mesh"], "spec", "ingress", 0, "from", 1, "podSelector", "matchLabels"), false, true},
		{"the mesh's policy, out", at[map[string]any](t, all["NetworkPolicy/probed-mesh"], "spec", "egress", 1, "to", 0, "podSelector", "matchLabels"), false, true},
		{"the PodMonitor", at[map[string]any](t, all["PodMonitor/probed"], "spec", "selector", "matchLabels"), true, true},
	} {
		if got := selects(c.selector, sharded); got != c.ofShards {
			t.Errorf("%s selects the shards: %v", c.what, got)
		}
		if got := selects(c.selector, mesh); got != c.ofMesh {
			t.Errorf("%s selects the mesh: %v", c.what, got)
		}
	}
	// A ServiceMonitor selects Services, and they the pods.
	of := at[map[string]any](t, all["ServiceMonitor/probed"], "spec", "selector", "matchLabels")
	for _, name := range []string{"Service/probed", "Service/probed-mesh"} {
		if !selects(of, at[map[string]any](t, all[name], "metadata", "labels")) {
			t.Errorf("the ServiceMonitor does not select %s", name)
		}
	}
	if got := at[string](t, all["StatefulSet/probed"], "spec", "serviceName"); got != "probed" {
		t.Errorf("the StatefulSet's Service is %s", got)
	}
}

// TestPorts holds every port, by name or number, against the one that the containers
// have, and that against probed's own default, which TestPod asks for its metrics.
func TestPorts(t *testing.T) {
	for name, built := range variants(t) {
		for kind, o := range objects(t, built) {
			for _, p := range ports(o) {
				if p != "web" && p != 10965 && p != 53 && p != 1 {
					t.Errorf("%s: %s: port %v", name, kind, p)
				}
			}
		}
	}
	if mesh := node(t, build(t, "base/mesh"), "DaemonSet/probed-mesh", 0); !strings.Contains(mesh.Files["/etc/probed/probed.yml"], "port: 10965\n") {
		t.Error("the mesh's configuration probes another port")
	}
}

// ports returns the values of all keys that name a port, wherever they are.
func ports(o any) []any {
	var all []any
	switch o := o.(type) {
	case map[string]any:
		for k := range maps.Keys(o) {
			switch k {
			case "port", "targetPort", "containerPort", "hostPort":
				all = append(all, o[k])
			}
			all = append(all, ports(o[k])...)
		}
	case []any:
		for _, v := range o {
			all = append(all, ports(v)...)
		}
	}
	return all
}
