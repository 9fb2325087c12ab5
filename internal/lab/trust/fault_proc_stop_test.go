package trust

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// probed is stopped and goes on, while SYNs are under way, connections close and
// four-tuples are used again in TIME-WAIT. Its peers have answered all the same, and it
// was told by the kernel when.
func TestFaultStopped(t *testing.T) {
	t.Parallel()
	longest := 4 * time.Second // a second more than any timeout
	if full() {
		longest = 10 * time.Second
	}
	for _, c := range []struct {
		stop  time.Duration
		times int
	}{{100 * time.Millisecond, times(50, 3)}, {time.Second, times(20, 2)}, {longest, times(5, 2)}} {
		t.Run(c.stop.String(), func(t *testing.T) {
			t.Parallel()
			// A path so long that SYNs and FINs are under way at every moment.
			l := lab.New(t)
			here, there := l.Host("here"), l.Host("there")
			path := lab.Direction{Impairment: lab.Impairment{Delay: 15 * time.Millisecond}}
			l.Link(here, there, path, path)
			servers(there)
			capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
			d := start(t, here, everyKind(20))
			lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 100) })
			var slowest time.Duration
			var halts []halt
			for i := range c.times {
				time.Sleep(time.Duration(i*37%300) * time.Millisecond) // another moment each time
				before := d.scrape()
				h := halt{from: time.Now().UnixNano()}
				d.signal(syscall.SIGSTOP)
				time.Sleep(c.stop)
				d.signal(syscall.SIGCONT)
				h.to = time.Now().UnixNano()
				halts = append(halts, h)
				slowest = max(slowest, d.recovers(before, time.Now()))
			}
			d.signal(syscall.SIGSTOP) // the capture ends with all answers in it
			s, x := d.stopped(), exchanges(capture.Packets(), halts...)
			book(t, Row{
				Part: "fault", What: fmt.Sprintf("stopped for %v (SIGSTOP)", c.stop), Tried: c.times, Of: "times",
				Probes: int(s.sum("probed_probes_total")), False: s.falsehoods(x), Discarded: s.ours(), Recovery: slowest,
				Left: lasting(there), Note: x.String(),
			})
			if t.Failed() {
				t.Log(s.told(x))
			}
		})
	}
}

// stopped has a stopped daemon go on, and is what it says when it was.
func (d *daemon) stopped() scrape {
	d.t.Helper()
	d.signal(syscall.SIGCONT)
	time.Sleep(1500 * time.Millisecond) // what is under way comes to its end
	return d.scrape()
}
