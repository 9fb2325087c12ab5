package lab

import (
	"testing"
	"time"
)

// Eventually tries until f succeeds, or fails the test after limit.
func Eventually(tb testing.TB, limit time.Duration, f func() error) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
