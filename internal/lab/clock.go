package lab

import (
	"time"

	"golang.org/x/sys/unix"
)

// A Stamp is one moment on both clocks.
type Stamp struct {
	Wall int64 // ns since the epoch, as captures have it
	Mono int64 // ns on CLOCK_MONOTONIC
}

// IsZero tells that the moment has not come.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// A clock reads both clocks at once, without a system call.
type clock struct {
	start time.Time
	mono  int64 // CLOCK_MONOTONIC at start
}

func newClock() clock {
	var ts unix.Timespec
	before := time.Now()
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: the clock and the address are good
	return clock{start: before, mono: ts.Nano() - int64(time.Since(before))/2}
}

func (c *clock) now() Stamp {
	t := time.Now()
	return Stamp{Wall: t.UnixNano(), Mono: c.mono + int64(t.Sub(c.start))}
}
