package engine

import (
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// What is due earlier comes out earlier, also if it is pushed after what is due later,
// and no more than a tick late.
func TestLapsesComeInTime(t *testing.T) {
	const start = probe.Instant(12345 * time.Second)
	var l lapses
	dues := []time.Duration{4 * time.Second, 100 * time.Millisecond, time.Second}
	for i, d := range dues {
		l.push(start, start.Add(d), int32(i))
	}
	for now := start; l.n > 0; now = now.Add(10 * time.Millisecond) {
		for range l.group(now) {
			x := l.pop()
			if late := now.Sub(x.at); late < 0 || late > 150*time.Millisecond {
				t.Errorf("due after %v, %v late", dues[x.value], late)
			}
		}
	}
}

// A timer that somebody waits for does not wait for the lapse that was queued before it.
func TestTimerBehindALapse(t *testing.T) {
	const start = probe.Instant(12345 * time.Second)
	var tb table
	tb.index.reserve(1)
	i := tb.claim(key{})
	tb.arm(i, probe.TimeWaitTimeout, start.Add(40*time.Millisecond))
	tb.settle(start)
	due := start.Add(50 * time.Millisecond)
	tb.arm(i, probe.RetransmissionTimeout, due)
	tb.settle(start)
	if x, ok := tb.first(start, start.Add(time.Second)); !ok || x.at != due || x.value != i {
		t.Fatalf("next is %v, %v", x, ok)
	}
	if tb.expired(due) != i || tb.expired(due) != none {
		t.Error("it has not gone off once")
	}
	for range tb.lapses.group(due.Add(time.Second)) {
		if tb.lapsed(due.Add(time.Second)) != none {
			t.Error("it goes off twice")
		}
	}
}
