package engine

import (
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// A target with a count is probed that many times, the first time at once, and
// then no more; what could not be sent at all is made up for.
func TestCount(t *testing.T) {
	for _, tt := range []struct {
		what   string
		change func(*Target)
		busy   bool // every port is in a conversation at first
		reason probe.Reason
	}{
		{what: "answered"},
		{what: "does not resolve", change: func(x *Target) { x.Remote = addrPort{} }, reason: probe.NotResolved},
		{what: "no port is free at first", busy: true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Reserved = Ports{61000, 61001} })
			w.churn = true // its slots are not those of the schedule
			w.peer = listening(10 * time.Millisecond)
			if tt.busy {
				w.peer = silent
				other, _ := w.target(9, "198.19.0.1:443", func(x *Target) { x.Interval = 200 * time.Millisecond })
				w.add(other)
				w.after(3*time.Second, func() {
					w.shard.Update(nil, []*Target{other})
					w.peer = listening(10 * time.Millisecond)
				})
				w.turns(time.Second)
			}
			x, l := w.target(7, "198.19.0.1:443", tt.change)
			x.Count, x.Interval, x.Recorder = 3, 500*time.Millisecond, l
			var first time.Duration
			began := w.now
			l.onEach = func(o *probe.Observation) {
				if o.Kind == probe.Verdict && first == 0 {
					first = w.now.Sub(began) + 1
				}
			}
			w.add(x)
			w.run(10 * time.Second)
			if l.settled() != 3 || l.verdicts[tt.reason] != 3 || l.handed != 3 {
				t.Errorf("verdicts %v, discards %v, %d transcripts", l.verdicts, l.discards, l.handed)
			}
			if !tt.busy && first > 60*time.Millisecond {
				t.Errorf("the first verdict came after %v", first)
			}
			if tt.busy != (w.skips[SkipNoPort] > 0) {
				t.Errorf("skipped %v", w.skips)
			}
			w.shard.Update(nil, []*Target{x})
			w.obey()
			if w.shard.goners > w.shard.schedule.n || len(w.shard.targets) > 0 {
				t.Errorf("left: %d targets, %d gone of %d in the schedule", len(w.shard.targets), w.shard.goners, w.shard.schedule.n)
			}
		})
	}
}

// A probe that is waited for is made when its turn comes, however late: the loop may be
// as late the next time.
func TestCountLate(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.peer = listening(10 * time.Millisecond)
	x, l := w.target(7, "198.19.0.1:443", nil)
	x.Count, x.Interval, x.Recorder = 1, 100*time.Millisecond, l
	w.add(x)
	w.shard.read()
	w.obey()
	e := w.shard.targets[x]
	w.shard.now = e.slot.Add(350 * time.Millisecond)
	if _, due := w.shard.schedule.first(w.shard.now); !due {
		t.Fatal("it is not due")
	}
	w.shard.schedule.pop()
	e.scheduled = false
	w.shard.fire(e)
	if !e.spent() || e.scheduled {
		t.Fatalf("%d probes made, scheduled again: %v", e.probes, e.scheduled)
	}
	if w.skips[SkipLate] != 0 {
		t.Errorf("skipped: %v", w.skips)
	}
}

// What is not sent for want of room is not this host's slowness, whoever asks.
func TestCountWithoutRoom(t *testing.T) {
	for name, l := range map[string]Limits{"address": {Global: 20000, PerAddress: 20}, "global": {Global: 20, PerAddress: 20000}} {
		w := newWorld(t, func(c *Config) { c.Limits = l })
		w.churn = true
		w.peer = listening(10 * time.Millisecond)
		x, of := w.target(7, "198.19.0.1:443", activeClose)
		x.Count, x.Interval, x.Recorder = 1000, 100*time.Millisecond, of
		w.add(x)
		w.run(20 * time.Second)
		if w.skips[SkipRateLimit] < 20 || sum(w.skips[:]) != w.skips[SkipRateLimit] {
			t.Errorf("%s: skipped %v", name, w.skips)
		}
	}
}
