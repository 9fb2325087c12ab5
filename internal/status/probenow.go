package status

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/probed/probed/internal/show"
)

const (
	// ProbeTimeout bounds how long a probe that was asked for is waited for.
	ProbeTimeout = 30 * time.Second
	// againAfter is how long a target is left alone after such a probe.
	againAfter = time.Second
	// probesPerSecond is how many of them there are over all targets, after a
	// burst of as many.
	probesPerSecond = 10
)

// A limiter says when a probe may be asked for.
type limiter struct {
	all *rate.Limiter

	mu   sync.Mutex
	last map[string]time.Time // by target, no longer than againAfter ago
}

func newLimiter() *limiter {
	return &limiter{all: rate.NewLimiter(probesPerSecond, probesPerSecond), last: make(map[string]time.Time)}
}

// allow takes a probe of a target, if there may be one now.
func (l *limiter) allow(id string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, at := range l.last {
		if age := now.Sub(at); age < 0 || age >= againAfter {
			delete(l.last, other)
		}
	}
	if _, recent := l.last[id]; recent || !l.all.AllowN(now, 1) {
		return false
	}
	l.last[id] = now
	return true
}

// foreign reports whether a browser asks on behalf of another site's page. Browsers say
// so of every POST; what says nothing is none.
func foreign(r *http.Request) bool { return new(http.CrossOriginProtection).Check(r) != nil }

// probeNow serves POST /targets/{id}/probe: one probe more, now.
func (s *server) probeNow(w http.ResponseWriter, r *http.Request) {
	asJSON := prefersJSON(r)
	fail := func(code int, text string) {
		if asJSON {
			failJSON(w, r, code, text)
		} else {
			s.failAt(w, r, code, strings.ToUpper(text[:1])+text[1:]+".", r.PathValue("id"))
		}
	}
	if foreign(r) {
		fail(http.StatusForbidden, "of all pages only those of this probed may ask for a probe: the request's Sec-Fetch-Site or Origin says that it comes from another")
		return
	}
	t, ok := s.target(r)
	switch {
	case !ok:
		fail(http.StatusNotFound, "there is no such target")
		return
	case t.OneAtATime:
		fail(http.StatusConflict, "this target measures how long TIME-WAIT lasts, which another probe would disturb: its next probe comes by itself")
		return
	case !s.limiter.allow(t.ID, s.Clock()):
		w.Header().Set("Retry-After", "1")
		fail(http.StatusTooManyRequests, "that is too often: there is one such probe a second of a target, and ten of all")
		return
	}
	// Who does not wait for the answer does not spoil the probe.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), ProbeTimeout)
	defer cancel()
	stop := context.AfterFunc(s.running, cancel)
	defer stop()
	transcript, err := s.Now(ctx, t.ID)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		fail(http.StatusGatewayTimeout, "the probe has no verdict yet: it is booked with the others when it has")
	case err != nil:
		fail(http.StatusServiceUnavailable, "the probe could not be made: "+err.Error())
	case asJSON:
		sendJSON(w, r, http.StatusOK, show.Of(&transcript).JSON())
	default:
		http.Redirect(w, r, "/targets/"+t.ID, http.StatusSeeOther)
	}
}

// prefersJSON reports whether a client asks for JSON rather than for a page.
func prefersJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
