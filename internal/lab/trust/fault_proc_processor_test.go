package trust

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// probed gets next to nothing of the processors: busy programs of a higher priority take
// them, or its control group has a twentieth of one.
func TestFaultProcessor(t *testing.T) {
	for _, c := range []struct {
		what  string
		start func(*testing.T, *lab.Host, *daemon) (end func())
	}{
		{"busy programs of the highest priority on all processors", func(t *testing.T, h *lab.Host, d *daemon) func() {
			var all []*lab.Cmd
			for range 2 * runtime.NumCPU() {
				all = append(all, background(t, h, "nice", "-n", "-20", "sh", "-c", "while :; do :; done"))
			}
			return func() {
				for _, c := range all {
					_ = c.Process.Kill()
				}
			}
		}},
		{"a twentieth of a processor (control group)", func(t *testing.T, h *lab.Host, d *daemon) func() {
			g := newGroup(t, "cpu")
			g.set("cpu.cfs_quota_us", "5000", "cpu.max", "5000 100000")
			g.add(d.cmd.Process.Pid)
			return func() { g.set("cpu.cfs_quota_us", "-1", "cpu.max", "max 100000") }
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			here, there := lab.Pair(t)
			servers(there)
			capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
			// The peer's applications get no more of the processors than probed does.
			const longer = 10 * time.Second
			d := start(t, here, strings.ReplaceAll(everyKind(20), "timeout: 3s", fmt.Sprintf("timeout: %v", longer)))
			lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 100) })
			end := c.start(t, here, d)
			time.Sleep(time.Duration(times(30, 2)) * time.Second)
			end()
			ended := time.Now()
			recovery := d.recovers(d.scrape(), ended)
			time.Sleep(1500 * time.Millisecond) // what is under way comes to its end
			// The capture had no more of the processors, either, but room for a hundred thousand
			// frames: Packets fails the test if the kernel has dropped one.
			s, x := d.scrape(), exchangesOf(capture.Packets(), longer, nil)
			book(t, Row{
				Part: "fault", What: c.what, Tried: 1, Of: "times",
				Probes: int(s.sum("probed_probes_total")), False: s.falsehoods(x), Discarded: s.ours(), Recovery: recovery,
				Left: lasting(there), Note: x.String(),
			})
			if t.Failed() {
				t.Log(s.told(x))
			}
		})
	}
}
