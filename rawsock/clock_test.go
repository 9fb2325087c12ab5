package rawsock

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both clocks are slewed alike, so that their difference stands still; what
// moves is the error of reading them.
func TestClocksAreOneReading(t *testing.T) {
	clock := NewClock()
	mono, wall := clock.Both()
	offset := wall - mono
	if now := time.Now().UnixNano(); now < wall || now-wall > int64(time.Second) {
		t.Errorf("wall is %d, time.Now %d", wall, now)
	}
	for range 1000 {
		mono, wall = clock.Both()
		if d := wall - mono - offset; d < -20_000 || d > 20_000 {
			t.Fatalf("the clocks moved against each other by %d ns", d)
		}
	}
	if m := clock.Monotonic(); m < mono {
		t.Errorf("monotonic went from %d to %d", mono, m)
	}
	if n := testing.AllocsPerRun(100, func() { clock.Both(); clock.Monotonic() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPreciseTimers(t *testing.T) {
	done := make(chan int)
	go func() { // its thread ends with it
		runtime.LockOSThread()
		if err := PreciseTimers(); err != nil {
			t.Error(err)
		}
		slack, _, _ := unix.Syscall6(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0, 0, 0, 0)
		done <- int(slack)
		runtime.Goexit()
	}()
	if slack := <-done; slack != 1 {
		t.Errorf("timer slack is %d ns", slack)
	}
}

func BenchmarkClock(b *testing.B) {
	clock := NewClock()
	for b.Loop() {
		clock.Both()
	}
}
