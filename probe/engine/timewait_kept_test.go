package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Where others use up a limit while a TIME-WAIT is measured, no SYN asks for its end: that says nothing of how long it
// lasts, and not that it lasts for longer than is waited.
func TestTimeWaitThatNobodyAsksFor(t *testing.T) {
	for _, lasts := range []time.Duration{50 * time.Second, time.Hour} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 10000, PerAddress: 40} })
		w.churn = true
		x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
			timeWait(x)
			x.Params.Measure, x.Params.Limit, x.Count = probe.MeasureDuration, 80*time.Second, 1
		})
		over, keeps := probe.Instant(0), keepsTimeWait(10*time.Millisecond)
		w.peers[x.Remote] = func(s *sim, p *wire.Packet) {
			switch f := p.Segment.Flags; {
			case f.Has(probe.FIN):
				over = s.now.Add(lasts)
			case f == probe.SYN && over != 0 && s.now > over:
				listening(10*time.Millisecond)(s, p)
				return
			}
			keeps(s, p)
		}
		w.add(x)
		var others []*Target
		for i := range 20 { // of two segments a second
			h, _ := w.target(uint64(100+i), fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
			w.peers[h.Remote] = listening(10 * time.Millisecond)
			others = append(others, h)
		}
		w.after(20*time.Second, func() { w.shard.Update(others, nil) })
		w.goOn(140 * time.Second)
		if l.verdicts[probe.OK] > 0 || l.discards[probe.DiscardStalled] != 1 {
			t.Errorf("TIME-WAIT of %v: verdicts %v, discards %v", lasts, l.verdicts, l.discards)
		}
	}
}
