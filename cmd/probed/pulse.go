package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// pulseEvery is how often the engine's loop says that it is alive where no
	// service manager asks for it more often.
	pulseEvery = 10 * time.Second
	// pulseLost is the time after which /-/healthy takes it for stuck: two of its
	// signs of life may be lost or late.
	pulseLost = 3 * pulseEvery
)

// A pulse is when the engine's loop was last known to turn. /-/healthy tells it to
// those who would restart probed, as a kubelet's liveness probe does: a web server
// that answers says nothing of the loop.
type pulse struct {
	last atomic.Pointer[time.Time]
}

// beat notes that the loop turns at now.
func (p *pulse) beat(now time.Time) { p.last.Store(&now) }

// lag returns for how long it has not; zero before the first beat.
func (p *pulse) lag(now time.Time) time.Duration {
	last := p.last.Load()
	if last == nil {
		return 0
	}
	return now.Sub(*last)
}

// heartbeat returns what the engine's loop calls, and how often: for the service
// manager and for /-/healthy.
func (d *daemon) heartbeat() (func(), time.Duration) {
	tell, every := d.manager.heartbeat()
	if every == 0 || every > pulseEvery {
		every = pulseEvery
	}
	d.pulse.beat(time.Now())
	return func() {
		d.pulse.beat(time.Now())
		if tell != nil {
			tell()
		}
	}, every
}

// serveHealthy says whether the loop turns.
func (d *daemon) serveHealthy(w http.ResponseWriter, now time.Time) {
	if lag := d.pulse.lag(now); lag > pulseLost {
		http.Error(w, fmt.Sprintf("probed is stuck: its loop last turned %.0f s ago.", lag.Seconds()), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "probed is healthy.")
}
