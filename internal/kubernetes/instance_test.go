package kubernetes

import (
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// TestInstance relabels pods by Prometheus's own code as both monitors ask for: what
// the label instance is must outlive a pod.
func TestInstance(t *testing.T) {
	all := objects(t, overlay(t, `
resources: [$MANIFESTS/base/sharded]
components: [$MANIFESTS/components/pod-monitor, $MANIFESTS/components/service-monitor]`))
	for monitor, endpoints := range map[string]string{"PodMonitor/probed": "podMetricsEndpoints", "ServiceMonitor/probed": "endpoints"} {
		rules := relabelings(t, at[[]any](t, all[monitor], "spec", endpoints, 0, "relabelings"))
		for _, c := range []struct{ kind, pod, node, instance string }{
			{"StatefulSet", "probed-1", "a", "probed-1"},
			{"StatefulSet", "probed-1", "b", "probed-1"}, // elsewhere
			{"DaemonSet", "probed-mesh-x7k2p", "a", "a"},
			{"DaemonSet", "probed-mesh-9qwvz", "a", "a"}, // replaced
		} {
			b := labels.NewBuilder(labels.FromMap(map[string]string{
				"__address__":                           "10.0.0.1:10965",
				"__meta_kubernetes_pod_controller_kind": c.kind,
				"__meta_kubernetes_pod_name":            c.pod,
				"__meta_kubernetes_pod_node_name":       c.node,
			}))
			if !relabel.ProcessBuilder(b, rules...) || b.Get("instance") != c.instance || b.Get("node") != c.node {
				t.Errorf("%s: %s of a %s on %s: instance %q, node %q", monitor, c.pod, c.kind, c.node, b.Get("instance"), b.Get("node"))
			}
		}
	}
}

// relabelings are those of a custom resource as Prometheus has them.
func relabelings(t *testing.T, list []any) (rules []*relabel.Config) {
	t.Helper()
	for _, item := range list {
		c := relabel.DefaultRelabelConfig
		c.NameValidationScheme = model.UTF8Validation
		for key, value := range item.(map[string]any) {
			switch key {
			case "sourceLabels":
				for _, l := range value.([]any) {
					c.SourceLabels = append(c.SourceLabels, model.LabelName(l.(string)))
				}
			case "regex":
				c.Regex = relabel.MustNewRegexp(value.(string))
			case "targetLabel":
				c.TargetLabel = value.(string)
			case "replacement":
				c.Replacement = value.(string)
			default:
				t.Fatalf("this test does not know %s", key)
			}
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, &c)
	}
	return rules
}
