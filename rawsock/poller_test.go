package rawsock

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newPipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func newTestPoller(t *testing.T, fds ...int) *Poller {
	t.Helper()
	p, err := NewPoller(fds...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPollerReadiness(t *testing.T) {
	r, w := newPipe(t)
	p := newTestPoller(t, r)
	expect := func(name string, d time.Duration, traffic, want bool) {
		t.Helper()
		if ready, err := p.Wait(d, traffic); ready != want || err != nil {
			t.Errorf("%s: ready %v, error %v", name, ready, err)
		}
	}
	expect("nothing there", 0, true, false)
	if _, err := unix.Write(w, []byte{1}); err != nil {
		t.Fatal(err)
	}
	expect("readable", -1, true, true)
	expect("readable, not asked", time.Millisecond, false, false)
	p.Wake()
	p.Wake()
	expect("woken and readable", -1, true, true)
	expect("woken once", time.Millisecond, false, false)
	p.Wake()
	expect("woken before waiting", -1, false, false)
}

func TestPollerWakeFromElsewhere(t *testing.T) {
	p := newTestPoller(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(p.Wake)
		if _, err := p.Wait(-1, true); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, err := p.Wait(0, true); err != nil { // takes what may be left
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		p.Wake()
		_, _ = p.Wait(-1, true)
		_, _ = p.Wait(0, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A nap is as long as it is to be, or ends early as a brief wait may, and by Wake, also by one from before, and leaves none
// behind.
func TestPollerNap(t *testing.T) {
	p := newTestPoller(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nap := func(d, least, most time.Duration) {
		t.Helper()
		began := time.Now()
		if err := p.Nap(d); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < least || took > most {
			t.Errorf("a nap of %v took %v", d, took)
		}
	}
	nap(LongNap, LongNap-Oversleep, time.Second)
	nap(30*time.Millisecond, 30*time.Millisecond-Oversleep, time.Second)
	p.Wake()
	p.Wake()
	nap(time.Minute, 0, 10*time.Second)
	nap(30*time.Millisecond, 30*time.Millisecond-Oversleep, time.Second)
	for range 20 {
		time.AfterFunc(time.Millisecond, p.Wake)
		nap(time.Minute, 0, 10*time.Second)
	}
	if _, err := p.Wait(time.Millisecond, false); err != nil {
		t.Fatal(err)
	}
	nap(30*time.Millisecond, 30*time.Millisecond-Oversleep, time.Second)
	if n := testing.AllocsPerRun(20, func() {
		p.Wake()
		_ = p.Nap(time.Minute)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPollerWakeAfterClose(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Wake()
	if err := p.Close(); err != nil {
		t.Error("the second Close:", err)
	}
}

// The runtime's preemption signals interrupt ppoll; the sleep must neither
// end early nor begin anew.
func TestPollerSleepsThroughSignals(t *testing.T) {
	p := newTestPoller(t)
	const sleep = 100 * time.Millisecond
	done := make(chan time.Duration)
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		if err := PreciseTimers(); err != nil {
			t.Error(err)
		}
		tid <- unix.Gettid()
		clock := NewClock()
		start := clock.Monotonic()
		if _, err := p.Wait(sleep, true); err != nil {
			t.Error(err)
		}
		done <- time.Duration(clock.Monotonic() - start)
	}()
	thread := <-tid
	for {
		select {
		case took := <-done:
			if took < sleep || took > sleep+50*time.Millisecond {
				t.Errorf("slept %v instead of %v", took, sleep)
			}
			return
		case <-time.After(2 * time.Millisecond):
			// An error means that the thread has just ended.
			_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
		}
	}
}

// BenchmarkPollerOversleep prints by how much a 1 ms sleep runs over.
func BenchmarkPollerOversleep(b *testing.B) {
	p, err := NewPoller()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	runtime.LockOSThread() // the thread ends
	if err := PreciseTimers(); err != nil {
		b.Fatal(err)
	}
	var over []int64
	clock := NewClock()
	for b.Loop() {
		start := clock.Monotonic()
		if _, err := p.Wait(time.Millisecond, true); err != nil {
			b.Fatal(err)
		}
		over = append(over, clock.Monotonic()-start-int64(time.Millisecond))
	}
	slices.Sort(over)
	b.ReportMetric(float64(over[len(over)/2])/1e3, "µs-over-p50")
	b.ReportMetric(float64(over[len(over)*99/100])/1e3, "µs-over-p99")
}
