package kubernetes

import (
	"strings"
	"testing"
)

// variants are all that deploy/kubernetes offers, each as it is built.
func variants(t testing.TB) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, folder := range []string{"base/sharded", "base/mesh", "examples/sharded", "examples/mesh", "examples/before-1.28"} {
		all[folder] = build(t, folder)
	}
	for name, text := range map[string]string{
		"sharded, service-monitor": `
resources: [$MANIFESTS/base/sharded]
components: [$MANIFESTS/components/service-monitor]`,
		"mesh, host-network": `
resources: [$MANIFESTS/base/mesh]
components: [$MANIFESTS/components/host-network, $MANIFESTS/components/service-monitor]`,
		"both, containerd-baseline": `
resources: [$MANIFESTS/base/mesh, $MANIFESTS/base/sharded]
components: [$MANIFESTS/components/containerd-baseline]`,
	} {
		all[name] = overlay(t, text)
	}
	return all
}

// TestManifests has the API server's own checks look at all of them.
func TestManifests(t *testing.T) {
	for name, built := range variants(t) {
		t.Run(name, func(t *testing.T) {
			pods := 0
			for _, v := range admit(t, built) {
				for _, e := range v.Errors {
					t.Errorf("%s: %s", v.Object, e)
				}
				for _, w := range v.Warnings {
					t.Errorf("%s: warning: %s", v.Object, w)
				}
				if v.PodSecurity == "" {
					continue
				}
				pods++
				// What the namespace of the examples says, and why.
				level, beyond := "privileged", []string{`container "probed" must not include "NET_RAW" in securityContext.capabilities.add`}
				switch {
				case strings.Contains(name, "containerd-baseline"):
					level, beyond = "baseline", []string{`container "probed" must set securityContext.capabilities.drop=["ALL"]`}
				case strings.Contains(name, "host-network"):
					beyond = append(beyond, "hostNetwork=true")
				}
				if v.PodSecurity != level {
					t.Errorf("%s: Pod Security level %s, expected %s", v.Object, v.PodSecurity, level)
				}
				for _, b := range beyond {
					if !strings.Contains(v.Beyond, b) {
						t.Errorf("%s: the next level objects: %s\nexpected: %s", v.Object, v.Beyond, b)
					}
				}
				if n := strings.Count(v.Beyond, "("); n != len(beyond) {
					t.Errorf("%s: the next level has %d objections, expected %d: %s", v.Object, n, len(beyond), v.Beyond)
				}
			}
			if pods == 0 {
				t.Error("no pods")
			}
		})
	}
}

// TestMistakes makes mistakes in the manifests, which must be found: what admit does
// not see would go unnoticed until somebody applies it.
func TestMistakes(t *testing.T) {
	sharded, mesh := build(t, "examples/sharded"), build(t, "examples/mesh")
	for _, c := range []struct{ name, built, old, made, found string }{
		{"a field misspelt", sharded, "podManagementPolicy:", "podManagmentPolicy:", `StatefulSet/probed: strict decoding error: unknown field "spec.podManagmentPolicy"`},
		{"a field of a container", mesh, "readOnlyRootFilesystem:", "readOnlyRootFileSystem:", `unknown field "spec.template.spec.containers[0].securityContext.readOnlyRootFileSystem"`},
		{"a field twice", sharded, "replicas: 4", "replicas: 4\n  replicas: 3", `already set in map`},
		{"a number as text", sharded, "replicas: 4", `replicas: "four"`, "StatefulSet/probed: "},
		{"a label that the selector asks for", sharded, "      labels:\n        app.kubernetes.io/component: sharded", "      labels:\n        app.kubernetes.io/component: shared", "`selector` does not match template `labels`"},
		{"a policy of the kubelet", mesh, "type: RuntimeDefault", "type: RuntimeDefaults", "seccompProfile.type: Unsupported value"},
		{"a port's name", sharded, "port: web\n          periodSeconds: 1\n", "port: web_\n          periodSeconds: 1\n", "startupProbe.httpGet.port"},
		{"a downward field", sharded, "fieldPath: metadata.labels['apps.kubernetes.io/pod-index']", "fieldPath: metadata.ordinal", "metadata.ordinal"},
		{"a range of ports", sharded, "endPort: 65535", "endPort: 65536", "NetworkPolicy/probed: spec.egress[1].ports[0].endPort"},
		{"a network", sharded, "cidr: 0.0.0.0/0", "cidr: 0.0.0.0", "NetworkPolicy/probed: spec.egress[1].to[0].ipBlock.cidr"},
		{"a budget", sharded, "unhealthyPodEvictionPolicy: AlwaysAllow", "unhealthyPodEvictionPolicy: Always", "PodDisruptionBudget/probed: spec.unhealthyPodEvictionPolicy"},
		{"a field of a custom resource", sharded, "podMetricsEndpoints:", "podMetricEndpoints:", "PodMonitor/probed: unknown field spec.podMetricEndpoints"},
		{"a field below", sharded, "targetLabel: node", "target_label: node", "PodMonitor/probed: unknown field spec.podMetricsEndpoints[0].relabelings[0].target_label"},
		{"a value of one", sharded, "interval: 15s", "interval: 15 s", "PodMonitor/probed: spec.podMetricsEndpoints[0].interval"},
		{"a protocol", sharded, "- PrometheusProto", "- Protobuf", "PodMonitor/probed: spec.scrapeProtocols[0]: Unsupported value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong := strings.Replace(c.built, c.old, c.made, 1)
			if wrong == c.built {
				t.Fatalf("there is no %q", c.old)
			}
			var said strings.Builder
			for _, v := range admit(t, wrong) {
				for _, e := range v.Errors {
					said.WriteString(v.Object + ": " + e + "\n")
				}
			}
			if !strings.Contains(said.String(), c.found) {
				t.Errorf("not found: %s\nsaid: %s", c.found, said.String())
			}
		})
	}
}
