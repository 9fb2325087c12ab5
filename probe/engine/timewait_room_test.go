package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// The SYNs by which a TIME-WAIT is measured go long after the connection's, up to hours, when no
// room is reserved for them any more. They count for the limits as any, and those that find no room
// wait: also where a reload has lowered a limit meanwhile. One that waits for longer than it may
// asks another question, and is not sent.
func TestTimeWaitWaitsForRoom(t *testing.T) {
	const targets = 100
	limits, lower := Limits{Global: 1000, PerAddress: 1000}, Limits{Global: 1000, PerAddress: 20}
	for _, measure := range []probe.Measure{probe.MeasureReuse, probe.MeasureDuration} {
		t.Run(measure.String(), func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = limits })
			w.churn = true
			log := w.logWire()
			ok, stalled, failed := 0, 0, 0
			for i := range targets {
				x, l := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), func(x *Target) {
					timeWait(x)
					x.Params.Measure, x.Params.After, x.Params.Limit = measure, 10*time.Second, 2*time.Minute
				})
				x.Count = 1 // all begin now
				w.peers[x.Remote] = keepsTimeWait(5 * time.Millisecond)
				w.add(x)
				w.after(199*time.Second, func() {
					ok += l.verdicts[probe.OK]
					stalled += l.discards[probe.DiscardStalled]
					failed += l.settled() - l.verdicts[probe.OK] - l.discards[probe.DiscardStalled]
				})
			}
			w.after(5*time.Second, func() { w.shard.SetLimits(lower) })
			w.after(7*time.Second, func() { log.all = nil })
			w.goOn(200 * time.Second)
			log.within(t, lower, 1, 200, 0)
			if ok+stalled != targets || failed > 0 || ok < 10 || measure == probe.MeasureDuration && ok < targets*9/10 {
				t.Errorf("%d were measured, %d discarded as stalled, %d anything else", ok, stalled, failed)
			}
		})
	}
}
