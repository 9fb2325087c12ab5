package engine

import (
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// beating makes a world whose loop's heartbeats are noted.
func beating(tb testing.TB, every time.Duration) (*world, *[]probe.Instant) {
	var beats []probe.Instant
	var w *world
	w = newWorld(tb, func(c *Config) {
		c.HeartbeatEvery = every
		c.Heartbeat = func() { beats = append(beats, w.now) }
	})
	return w, &beats
}

// gaps returns the shortest and the longest time between two heartbeats.
func gaps(beats []probe.Instant) (least, most time.Duration) {
	for i := 1; i < len(beats); i++ {
		gap := beats[i].Sub(beats[i-1])
		if i == 1 || gap < least {
			least = gap
		}
		most = max(most, gap)
	}
	return least, most
}

// A loop with nothing to do wakes up for its heartbeat, one with much to do does
// not forget it, and neither has more of them than it must.
func TestHeartbeat(t *testing.T) {
	for _, tt := range []struct {
		name    string
		targets int
		every   time.Duration
		late    time.Duration // allowed
	}{
		{"idle, sooner than it would wake up", 0, 100 * time.Millisecond, tick},
		{"idle, later", 0, 15 * time.Second, 2 * tick},
		{"busy", 1500, time.Second, 2 * maxStretch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, beats := beating(t, tt.every)
			w.peer = listening(10 * time.Millisecond)
			w.add(w.targets(tt.targets, nil)...)
			const ran = time.Minute
			w.run(ran)
			least, most := gaps(*beats)
			if n := len(*beats); n < int(ran/(tt.every+tt.late)) || least < tt.every || most > tt.every+tt.late {
				t.Errorf("%d heartbeats in %v, %v to %v apart, want every %v", n, ran, least, most, tt.every)
			}
		})
	}
}

// A loop that does not come back has no heartbeat: from a Sink, or from the kernel
// because the process was stopped. One that comes back has it at once.
func TestHeartbeatOfStuckLoop(t *testing.T) {
	const every, stuck = time.Second, 30 * time.Second
	for name, hang := range map[string]func(*world){
		"in a sink":  func(w *world) { w.advance(stuck, false) },
		"in a sleep": func(w *world) { w.stallFor(stuck) },
	} {
		t.Run(name, func(t *testing.T) {
			w, beats := beating(t, every)
			w.peer = listening(10 * time.Millisecond)
			x, l := w.target(1, "198.19.0.1:443", nil)
			var from probe.Instant
			l.onEach = func(o *probe.Observation) {
				if o.Kind == probe.Verdict && from == 0 && len(l.rtts) == 5 {
					from = w.now
					hang(w)
				}
			}
			w.add(x)
			w.run(time.Minute)
			if from == 0 {
				t.Fatal("it was never stuck")
			}
			first := probe.Instant(0)
			for _, b := range *beats {
				if b > from && first == 0 {
					first = b
				}
			}
			if waited := first.Sub(from); waited < stuck || waited > stuck+2*tick {
				t.Errorf("the first heartbeat came %v after it was stuck for %v", waited, stuck)
			}
			if _, most := gaps(*beats); most > stuck+every+tick {
				t.Errorf("%v without a heartbeat", most)
			}
		})
	}
}

func TestHeartbeatNoAllocation(t *testing.T) {
	beats := 0
	w := newWorld(t, func(c *Config) {
		c.HeartbeatEvery = 10 * time.Millisecond
		c.Heartbeat = func() { beats++ }
	})
	w.turns(time.Second)
	beats = 0
	if allocs := testing.AllocsPerRun(1, func() { w.turns(10 * time.Second) }); allocs > 0 || beats < 1500 {
		t.Errorf("%v allocations, %d heartbeats", allocs, beats)
	}
}
