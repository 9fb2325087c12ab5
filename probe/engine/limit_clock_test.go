package engine

import (
	"testing"
	"time"
)

// The limits are about the monotonic clock: however the wall clock is set, by an hour to
// and fro ten times a second, no second has more.
func TestLimitsUnderClockSteps(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 20} })
	w.peer = listening(10 * time.Millisecond)
	log := w.logWire()
	w.add(w.targets(2000, nil)...)
	for i := range 100 {
		x, _ := w.target(uint64(100_000+i), remote(0).String(), func(x *Target) { x.Interval = 200 * time.Millisecond })
		w.add(x)
	}
	for i := range 190 {
		w.after(time.Duration(i)*100*time.Millisecond, func() {
			step := time.Duration(w.rng.Int64N(int64(2*time.Hour))) - time.Hour
			w.offset += int64(step)
		})
	}
	w.run(20 * time.Second)
	log.held(t, "global", 1000, addr{})
	log.held(t, "per address", 20, remote(0).Addr())
	if len(w.steps) < 30 || w.queued < 500*18 {
		t.Errorf("%d steps noticed, %d probes", len(w.steps), w.queued)
	}
}
