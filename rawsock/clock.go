package rawsock

import (
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Clock reads CLOCK_MONOTONIC and CLOCK_REALTIME in nanoseconds through the
// vDSO, some 0.07 µs a reading; the system call takes up to some µs on virtual
// machines. Go offers the vDSO only as time.Now, whose monotonic part has its
// own origin: a Clock knows where that lies.
type Clock struct {
	start     time.Time
	monotonic int64 // CLOCK_MONOTONIC at start
}

// NewClock returns a Clock. Where its monotonic origin lies it knows to half
// the shortest of a few system calls, below a µs; its durations are exact.
func NewClock() Clock {
	var c Clock
	tightest := time.Duration(math.MaxInt64)
	for range readings {
		var ts unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			// Only an unknown clock or a bad pointer fails, and both are ours.
			panic(os.NewSyscallError("clock_gettime", err))
		}
		if width := time.Since(before); width < tightest {
			tightest, c = width, Clock{start: before, monotonic: ts.Nano() - int64(width/2)}
		}
	}
	return c
}

// Monotonic reads CLOCK_MONOTONIC.
func (c Clock) Monotonic() int64 { return c.monotonic + int64(time.Since(c.start)) }

// readings is how often a pair of clocks is read. An interruption spoils up to
// three of Both's.
const readings = 5

// Both reads both clocks as if at one moment. Each reading is bracketed by its
// neighbours, and the one in the tightest bracket counts: the error is below
// its width, 0.15 µs where nothing interrupts. NTP slews both clocks alike
// (kernel/time/timekeeping.c), so wall−monotonic changes only when
// CLOCK_REALTIME is stepped.
func (c Clock) Both() (monotonic, wall int64) {
	var at [readings]time.Time
	for i := range at {
		at[i] = time.Now()
	}
	best, tightest := 1, time.Duration(math.MaxInt64)
	for i := 1; i < readings-1; i++ {
		if width := at[i+1].Sub(at[i-1]); width < tightest {
			best, tightest = i, width
		}
	}
	return c.monotonic + int64(at[best].Sub(c.start)), at[best].UnixNano()
}

// PreciseTimers sets the timer slack of the thread that the calling goroutine is locked to
// to 1 ns: by default the kernel lets sleeps run over by
// 50 µs to gather wake-ups (prctl(2), PR_SET_TIMERSLACK).
func PreciseTimers() error {
	err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return os.NewSyscallError("prctl PR_SET_TIMERSLACK", err)
}
