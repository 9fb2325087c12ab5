package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// nameService answers for the cluster's domain: the name of the mesh's headless Service
// has an address for each pod.
func nameService(t *testing.T, h *lab.Host, addrs ...string) {
	t.Helper()
	var zone strings.Builder
	for _, a := range addrs {
		zone.WriteString("probed-mesh.default.svc A " + a + "\n")
	}
	server := h.NSD(t, "cluster.local")
	server.Zone(zone.String())
	server.Start(dnsmessage.RCodeSuccess)
}

// TestMesh runs the DaemonSet's pods on three nodes, with the cluster's name service
// as a kubelet tells of it. Every node must be probed by as many others as the
// configuration says, or by all if there are fewer, and none by itself.
func TestMesh(t *testing.T) {
	built := build(t, "base/mesh")
	for _, c := range []struct{ peers, by int }{{3, 2}, {1, 1}} {
		t.Run(fmt.Sprintf("peers %d", c.peers), func(t *testing.T) {
			l := lab.New(t)
			router := l.Host("router")
			router.Forward()
			var nodes []*lab.Host
			var addrs []string
			for i := range 3 {
				n := l.Host(fmt.Sprint("node", i))
				l.Join(n, router)
				n.Route("198.18.0.0/16", router.End(i).Addr4)
				nodes = append(nodes, n)
				addrs = append(addrs, n.Addr4().String())
			}
			nameService(t, router, addrs...)
			var pods []*pod
			for i, n := range nodes {
				spec := node(t, built, "DaemonSet/probed-mesh", 0)
				const config = "/etc/probed/probed.yml"
				before := spec.Files[config]
				if spec.Files[config] = strings.Replace(before, "peers: 3 ", fmt.Sprintf("peers: %d ", c.peers), 1); c.peers != 3 && spec.Files[config] == before {
					t.Fatal("the number of peers is no longer 3")
				}
				spec.DNS = "nameserver " + router.End(i).Addr4.String() + "\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
				pods = append(pods, launch(t, n, spec))
			}
			var by map[string][]int
			check := func() error {
				by = make(map[string][]int)
				for i, p := range pods {
					targets, err := p.answered()
					if err != nil {
						return err
					}
					for _, target := range targets {
						by[target] = append(by[target], i)
					}
				}
				for _, a := range addrs {
					if n := len(by[a+":10965"]); n != c.by {
						return fmt.Errorf("%s is probed by %d others, expected %d: %v", a, n, c.by, by)
					}
				}
				return nil
			}
			pods[0].await(check)
			time.Sleep(1500 * time.Millisecond) // a round more
			if err := check(); err != nil {
				t.Error(err)
			}
			for i, a := range addrs {
				if slices.Contains(by[a+":10965"], i) {
					t.Errorf("%s probes itself", a)
				}
			}
			if len(by) != len(addrs) {
				t.Errorf("probed: %v", by)
			}
		})
	}
}
