package kubernetes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// nameService answers, on every address of a host, for the cluster's domain: the name
// of the mesh's headless Service has an address for each pod. It is Debian's nsd.
func nameService(t *testing.T, h *lab.Host, addrs ...string) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write(t, file("nsd.conf"), fmt.Sprintf(`
server:
  ip-address: 0.0.0.0
  username: ""
  chroot: ""
  zonesdir: %[1]q
  zonelistfile: "%[1]s/zone.list"
  database: ""
  xfrdfile: "%[1]s/xfrd.state"
  xfrdir: %[1]q
  pidfile: ""
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: cluster.local
  zonefile: zone
`, dir))
	var zone strings.Builder
	zone.WriteString("$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n")
	for _, a := range addrs {
		zone.WriteString("probed-mesh.default.svc A " + a + "\n")
	}
	write(t, file("zone"), zone.String())
	program, err := exec.LookPath("nsd")
	if err != nil {
		program = "/usr/sbin/nsd" // where Debian has it
	}
	log, err := os.Create(file("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := h.Command(context.WithoutCancel(t.Context()), program, "-d", "-c", file("nsd.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := cmd.Start(); err != nil {
		t.Fatalf("nsd (apt-get install nsd): %v", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(file("log"))
			t.Logf("nsd said:\n%s", said)
		}
	})
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
