package probe

import "time"

// An Instant is a moment on the monotonic clock in nanoseconds. Schedules,
// deadlines and brackets are on it; nothing in this package reads it.
type Instant int64

// Add returns the moment d after t.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// A Stamp is a moment on the kernel's packet clock, which is wall time and may
// step. Clock names the stretch of that clock between two steps, counted from
// 1 by whoever watches for them; 0 means that the stretch is not known, or
// that there is no stamp. A duration is only ever taken between two stamps of
// the same stretch.
type Stamp struct {
	Wall   int64 // ns since the Unix epoch, UTC
	Clock  uint32
	Kernel bool // taken as the packet arrived or left, the same for every capture; else as it was queued for reading
}

// Valid reports whether there is a stamp on a known stretch of its clock.
func (s Stamp) Valid() bool { return s.Clock != 0 }

// Sub returns the time from t to s, and whether both are on one clock.
func (s Stamp) Sub(t Stamp) (time.Duration, bool) {
	return time.Duration(s.Wall - t.Wall), s.Clock == t.Clock && s.Clock != 0
}
