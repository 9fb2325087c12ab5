package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// An MTU that is lowered explains what is missing of a connection's octets, and not that a SYN has no answer, nor
// what came, or did not, by the way that another source address has.
func TestNarrowedExcusesNoSilence(t *testing.T) {
	slow := func(x *Target) { passiveClose(x); x.FitMSS, x.Params.Timeout = true, 5*time.Second }
	t.Run("no answer", func(t *testing.T) {
		w := newWorld(t, nil)
		w.mtu = 1500
		x, l := w.target(1, "198.19.0.1:443", slow)
		w.add(x)
		w.peer = func(*sim, *wire.Packet) {}
		w.after(5500*time.Millisecond, func() { w.mtu, w.gen = 1400, w.gen+1 })
		w.run(20 * time.Second)
		if n := l.discards[probe.DiscardSendError]; n > 0 {
			t.Errorf("a dead target: verdicts %v, discarded %v", l.verdicts, l.discards)
		}
	})
	t.Run("another way", func(t *testing.T) {
		w := newWorld(t, nil)
		w.mtu = 1500
		x, l := w.target(1, "198.19.0.1:443", slow)
		w.add(x)
		w.peer = stays(10 * time.Millisecond)
		w.after(5500*time.Millisecond, func() {
			w.mtu, w.gen = 1400, w.gen+1
			w.source = func(netip.Addr, string) (netip.Addr, error) { return netip.MustParseAddr("198.18.0.77"), nil }
		})
		w.run(20 * time.Second)
		if n := l.discards[probe.DiscardSendError]; n > 0 {
			t.Errorf("a way that moved: verdicts %v, discarded %v", l.verdicts, l.discards)
		}
	})
}
