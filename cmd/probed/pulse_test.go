package main

import (
	"net/http/httptest"
	"testing"
	"time"
)

// TestHealthyPulse asks for the health of a loop that turns, is late, is stuck, and
// turns again.
func TestHealthyPulse(t *testing.T) {
	var d daemon
	now := time.Now()
	ask := func(after time.Duration) (int, string) {
		w := httptest.NewRecorder()
		d.serveHealthy(w, now.Add(after))
		return w.Code, w.Body.String()
	}
	check := func(after time.Duration, code int, body string) {
		t.Helper()
		if c, b := ask(after); c != code || b != body {
			t.Errorf("after %v: %d %q, expected %d %q", after, c, b, code, body)
		}
	}
	const healthy, stuck = "probed is healthy.\n", "probed is stuck: its loop last turned 31 s ago.\n"
	check(time.Hour, 200, healthy) // the loop has not begun: starting is for /-/ready to tell
	d.pulse.beat(now)
	check(0, 200, healthy)
	check(30*time.Second, 200, healthy)
	check(31*time.Second, 503, stuck)
	d.pulse.beat(now.Add(31 * time.Second))
	check(31*time.Second, 200, healthy)
}

// TestHeartbeatOfDaemon has the loop's call reach both who ask for it.
func TestHeartbeatOfDaemon(t *testing.T) {
	var d daemon
	beat, every := d.heartbeat()
	if every != pulseEvery {
		t.Errorf("every %v without a service manager, expected %v", every, pulseEvery)
	}
	first := *d.pulse.last.Load()
	time.Sleep(time.Millisecond)
	beat()
	if second := *d.pulse.last.Load(); !second.After(first) {
		t.Error("the call left no trace")
	}
	for timeout, want := range map[time.Duration]time.Duration{6 * time.Second: 2 * time.Second, 10 * time.Minute: pulseEvery} {
		d.manager = &manager{socket: -1, timeout: timeout}
		if _, every := d.heartbeat(); every != want {
			t.Errorf("a watchdog of %v: every %v, expected %v", timeout, every, want)
		}
	}
}
