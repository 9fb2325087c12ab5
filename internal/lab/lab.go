package lab

import (
	"os/exec"
	"sync"
	"testing"
	"time"
)

// A Lab is one test's network: hosts and what joins them. Its methods fail the
// test that it was made for rather than return errors, so they are for that
// test's goroutine; Host.Do, Go, Dial and Command may be called from any.
type Lab struct {
	tb     testing.TB
	mu     sync.Mutex // guards what follows
	hosts  []*Host
	joints int
	going  sync.WaitGroup // goroutines of Host.Go; has its own lock
}

// New returns an empty laboratory that is torn down when tb ends.
func New(tb testing.TB) *Lab {
	tb.Helper()
	l := &Lab{tb: tb}
	tb.Cleanup(func() {
		if !waitFor(&l.going, 10*time.Second) {
			tb.Error("lab: a function started by Host.Go still runs 10 s after the test")
		}
		for _, h := range l.hosts {
			h.keeper.close()
			_ = h.ns.Close()
		}
	})
	return l
}

// Pair returns two hosts joined by a veth pair in a lab of their own: "a" and
// "b" at the A and B end.
func Pair(tb testing.TB) (a, b *Host) {
	tb.Helper()
	l := New(tb)
	a, b = l.Host("a"), l.Host("b")
	l.Join(a, b)
	return a, b
}

// waitFor waits for wg, at most for limit, and tells whether it is done.
func waitFor(wg *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// tool returns the path of a program, or ends the test naming Debian's package.
func tool(tb testing.TB, name, debian string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("lab: %s is not installed: apt-get install %s (%v)", name, debian, err)
	}
	return path
}
