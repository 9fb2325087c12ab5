package rawsock

import (
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// clockTries is how often Clocks brackets. An interrupt spoils one try; the
// next is tight.
const clockTries = 3

// Clocks reads CLOCK_MONOTONIC and CLOCK_REALTIME as if at one moment, in
// nanoseconds. CLOCK_REALTIME is bracketed by two readings of CLOCK_MONOTONIC,
// the tightest of a few tries counts, and monotonic is the bracket's middle:
// the error is at most half the bracket, some tens of nanoseconds where
// nothing interrupts. NTP slews both clocks alike (kernel/time/timekeeping.c),
// so wall−monotonic changes only when CLOCK_REALTIME is stepped.
func Clocks() (monotonic, wall int64) {
	tightest := int64(math.MaxInt64)
	before := readClock(unix.CLOCK_MONOTONIC)
	for range clockTries {
		w := readClock(unix.CLOCK_REALTIME)
		after := readClock(unix.CLOCK_MONOTONIC)
		if width := after - before; width < tightest {
			tightest, monotonic, wall = width, before+width/2, w
		}
		before = after
	}
	return monotonic, wall
}

// Monotonic reads CLOCK_MONOTONIC in nanoseconds.
func Monotonic() int64 { return readClock(unix.CLOCK_MONOTONIC) }

func readClock(clock int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		// Only an unknown clock or a bad pointer fails, and both are ours.
		panic(os.NewSyscallError("clock_gettime", err))
	}
	return ts.Nano()
}

// PreciseTimers locks the calling goroutine to its thread and sets the
// thread's timer slack to 1 ns: by default the kernel lets sleeps run over by
// 50 µs to gather wake-ups (prctl(2), PR_SET_TIMERSLACK).
func PreciseTimers() error {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return os.NewSyscallError("prctl PR_SET_TIMERSLACK", err)
}
