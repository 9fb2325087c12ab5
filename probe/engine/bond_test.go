package engine

import (
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A bond sends by one device or another, as ports have it: what either drops of a connection below it has not left,
// also while the target has answered last by the other.
func TestBondDropsBelow(t *testing.T) {
	t.Parallel()
	w := newStack(t, nil)
	target, l := w.target(1, "198.19.0.1:443", func(x *Target) {
		activeClose(x)
		x.Params.Hold = 1500 * time.Millisecond
		x.Interval = 500 * time.Millisecond
	})
	drops := false
	dropped := func(p *wire.Packet) bool { return drops && p.Segment.Flags&probe.SYN == 0 }
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		w.layers, w.others = 2, int(p.SrcPort&1)
		if dropped(p) {
			w.layers = 1
		}
	}
	peer := closes(10 * time.Millisecond)
	w.peer = func(s *sim, p *wire.Packet) {
		if !dropped(p) {
			peer(s, p)
		}
	}
	w.after(10500*time.Millisecond, func() { drops = true })
	w.after(20500*time.Millisecond, func() { drops = false })
	w.add(target)
	w.run(40 * time.Second)
	t.Logf("verdicts %v, discards %v", l.verdicts, l.discards)
	if n := l.verdicts[probe.FINUnacked]; n > 0 {
		t.Errorf("%d dropped here are the target's: verdicts %v, discards %v", n, l.verdicts, l.discards)
	}
}
