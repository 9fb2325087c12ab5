package main

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// A password that has not been right before costs a tenth of a second of processor
	// time to look at, by bcrypt's design: so many of them a second of each client,
	// after so many at once. Of those who have guessed wrong lately one is looked at at a
	// time, and one of the others; the rest wait.
	guessesPerSecond = 1
	guessesAtOnce    = 10
	guessing         = 1
	guessWait        = 5 * time.Second
	lately           = 10 * time.Minute

	mostKnown = 64 // passwords that were right
)

// guesses are passwords that clients try. exporter-toolkit, which looks at them, is
// called only with those that were right before or that there is room to try.
type guesses struct {
	unblemished, others *queue
	clock               func() time.Time

	each  *paces
	wrong *paces // a token is there unless a client has guessed wrong lately

	mu    sync.Mutex
	known map[[sha256.Size]byte]struct{} // of the header Authorization
}

func newGuesses(clock func() time.Time) *guesses {
	return &guesses{
		unblemished: newQueue(queueOptions{places: guessing, wait: guessWait}, clock),
		others:      newQueue(queueOptions{places: guessing, wait: guessWait}, clock),
		clock:       clock, each: newPaces(guessesPerSecond, guessesAtOnce), wrong: newPaces(rate.Every(lately), 1),
		known: make(map[[sha256.Size]byte]struct{}),
	}
}

// admission is the key of a context's func() that is told when a request has been
// let in.
type admission struct{}

// serve has next look at a request.
func (g *guesses) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	password := r.Header.Get("Authorization")
	if password == "" {
		next.ServeHTTP(w, r)
		return
	}
	key := sha256.Sum256([]byte(password))
	known, client := g.knows(key), clientOf(r.RemoteAddr)
	release := func() {}
	if !known {
		now := g.clock()
		if !g.each.of(client, now).AllowN(now, 1) {
			tooOften(w)
			return
		}
		place := g.queue(client, now).enter(r.Context(), client, func() {})
		if place == nil {
			tooOften(w)
			return
		}
		release = sync.OnceFunc(place.leave)
		defer release()
	}
	admitted := false
	next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), admission{}, func() {
		admitted = true
		release()
		if !known {
			g.learn(key)
		}
	})))
	if !admitted {
		g.forget(key)
		now := g.clock()
		g.wrong.of(client, now).AllowN(now, 1)
	}
}

// queue is where a client's guess waits: whoever guesses wrong is not in the way of who
// knows the password.
func (g *guesses) queue(client netip.Prefix, now time.Time) *queue {
	if g.wrong.of(client, now).TokensAt(now) < 1 {
		return g.others
	}
	return g.unblemished
}

func tooOften(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "too many passwords are tried: try again", http.StatusTooManyRequests)
}

// admitting tells guesses of what is let in.
func admitting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tell, ok := r.Context().Value(admission{}).(func()); ok {
			tell()
		}
		next.ServeHTTP(w, r)
	})
}

func (g *guesses) knows(key [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.known[key]
	return ok
}

// learn keeps a password that was right, of too many any.
func (g *guesses) learn(key [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for other := range g.known {
		if len(g.known) < mostKnown {
			break
		}
		delete(g.known, other)
	}
	g.known[key] = struct{}{}
}

func (g *guesses) forget(key [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, key)
}
