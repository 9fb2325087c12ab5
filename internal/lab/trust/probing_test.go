package trust

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// patience bounds the wait for what should come at once.
const patience = time.Minute

// atLeast says whether so many probes have a verdict.
func atLeast(s scrape, probes float64) error {
	if n := s.sum("probed_probes_total"); n < probes {
		return fmt.Errorf("%.0f probes of %.0f", n, probes)
	}
	return nil
}

// A daemon with nothing wrong has nothing to say: the measure of the other rows.
func TestUndisturbed(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.Listen("tcp", "0.0.0.0:80")
	d := start(t, here, "jobs:\n- {name: undisturbed, interval: 100ms, timeout: 90ms, targets: ['198.18.0.2:80']}\n")
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 20) })
	s := d.scrape()
	if code, _ := d.do("GET", "/-/healthy"); code != 200 {
		t.Errorf("/-/healthy: %d", code)
	}
	if said := d.out.String(); strings.Contains(said, "level=WARN") || strings.Contains(said, "level=ERROR") {
		t.Errorf("probed said:\n%s", said)
	}
	book(t, Row{
		Part: "fault", What: "none", Tried: 1, Of: "times", Probes: int(s.sum("probed_probes_total")),
		False: int(s.sum("probed_probe_failures_total")), Discarded: int(s.sum("probed_probes_discarded_total")), Left: lasting(there),
	})
}
