package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// Interfaces and addresses are lost while answers are under way: those of probes that
// left by them are discarded and no loss of anybody's, the others are as they would be.
func TestLosses(t *testing.T) {
	for _, c := range []struct {
		name string
		loss loss
		ours bool
	}{
		{"the interface", loss{ifindex: 1}, true},
		{"the one below it", loss{ifindex: 2}, true},
		{"another interface", loss{ifindex: 3}, false},
		{"the address", loss{address: local4}, true},
		{"another address", loss{address: netip.MustParseAddr("198.18.0.77")}, false},
		{"nobody knows what", loss{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.layers = 2
			w.peer = listening(20 * time.Millisecond)
			w.add(w.targets(20, func(t *Target) { t.Interval = 100 * time.Millisecond })...)
			for range 10 {
				w.after(time.Duration(w.rng.IntN(int(3*time.Second))), func() { w.lost = append(w.lost, c.loss) })
			}
			w.run(5 * time.Second)
			all := w.total()
			if n := sum(all.verdicts[:]); n == 0 || n != all.verdicts[probe.OK] {
				t.Errorf("verdicts %v", all.verdicts)
			}
			if n := all.discards[probe.DiscardLinkDown]; n != sum(all.discards[:]) || (n > 0) != c.ours {
				t.Errorf("discards %v", all.discards)
			}
		})
	}
}

// Whoever looked for this host while it was away goes on for a moment without finding
// it: what runs out of time then is excused, and no more than that.
func TestHoming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	w.add(w.targets(20, func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 90*time.Millisecond })...)
	w.after(2*time.Second, func() {
		w.lost = append(w.lost, loss{address: local4}, loss{address: local6})
		w.peer = silent
		w.after(time.Second, func() { w.peer = listening(time.Millisecond) })
		w.after(4*time.Second, func() { w.peer = silent }) // for another reason
	})
	w.run(8 * time.Second)
	all := w.total()
	if n := all.discards[probe.DiscardLinkDown]; n < 100 || n > 250 || n != sum(all.discards[:]) {
		t.Errorf("discards %v", all.discards)
	}
	if n := all.verdicts[probe.Timeout]; n < 300 || n > 400 {
		t.Errorf("verdicts %v", all.verdicts)
	}
}
