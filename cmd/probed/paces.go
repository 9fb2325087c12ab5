package main

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// mostClients bounds how many clients' paces are remembered.
const mostClients = 4096

// paces say how often each client may do something.
type paces struct {
	perSecond rate.Limit
	atOnce    int

	mu    sync.Mutex
	known map[netip.Prefix]*rate.Limiter
	swept time.Time // when who has done nothing lately was last looked for
}

func newPaces(perSecond rate.Limit, atOnce int) *paces {
	return &paces{perSecond: perSecond, atOnce: atOnce, known: make(map[netip.Prefix]*rate.Limiter)}
}

// of returns a client's. Of too many clients those are forgotten that have done nothing
// lately, and then any.
func (p *paces) of(client netip.Prefix, now time.Time) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.known[client]
	if l != nil {
		return l
	}
	if len(p.known) >= mostClients && now.Sub(p.swept) >= time.Second {
		p.swept = now
		for other, l := range p.known {
			if l.TokensAt(now) >= float64(p.atOnce) {
				delete(p.known, other)
			}
		}
	}
	for other := range p.known {
		if len(p.known) < mostClients {
			break
		}
		delete(p.known, other)
	}
	l = rate.NewLimiter(p.perSecond, p.atOnce)
	p.known[client] = l
	return l
}

const (
	// requestsPerSecond is how many requests of a client are served: a request more
	// waits. They are ten times what Prometheus and some browsers make, and a tenth of a
	// processor.
	requestsPerSecond = 1000
	requestsAtOnce    = 1000
	// longestWait is how long one waits: clients whose connections all wait longer have
	// too many.
	longestWait = 5 * time.Second
)

// wait has a request wait until it is its client's turn, and reports whether it is to be
// served.
func (p *paces) wait(ctx context.Context, client netip.Prefix, now time.Time) (code int, ok bool) {
	turn := p.of(client, now).ReserveN(now, 1)
	d := turn.DelayFrom(now)
	if d > longestWait {
		turn.CancelAt(now)
		return http.StatusTooManyRequests, false
	}
	if d == 0 {
		return 0, true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		turn.Cancel()
		return 0, false
	case <-timer.C:
		return 0, true
	}
}
