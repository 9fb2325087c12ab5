package main

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A queue has so many requests served at once. Whoever comes when all the places are
// taken waits for one, and the next is for the client that has the fewest, and of those
// for the one that was served longest ago. So one that takes whatever it can get waits
// mostly for itself, and nothing that has begun is cut off for what comes later: it
// would have been for nothing, and whoever is cut off comes again.
type queue struct {
	queueOptions
	clock func() time.Time

	mu      sync.Mutex
	inside  map[*visitor]struct{}
	waiting []*visitor // in the order in which they came
	parties map[netip.Prefix]*party
	turn    uint64
	ending  bool // one has been put out and is not gone yet
}

type queueOptions struct {
	places int
	each   int           // of them for one client; 0 for all
	wait   time.Duration // how long one waits at most

	// slow is how long clients may keep writes to them waiting, all together, before they
	// are put out for one that waits, and less where many do; 0 for as long as they like.
	slow time.Duration
	// level has a client that has too many places give one to another that waits and has
	// at least two fewer: for what lasts.
	level bool
}

// mostWaiting is how many requests wait in a queue.
const mostWaiting = 1024

// lookAgain is how often those who wait look for others that are slow.
const lookAgain = 250 * time.Millisecond

// hurry is how long clients may keep writes to them waiting, however many others wait.
const hurry = 250 * time.Millisecond

// A party is what a client has in a queue.
type party struct {
	client          netip.Prefix
	inside, waiting int
	turn            uint64 // when one of it was let in last, or it came
}

// A visitor waits for a place or has one. The queue's mu guards it.
type visitor struct {
	queue *queue
	party *party
	came  uint64    // its turn
	in    chan bool // is told once, whether it has a place
	out   func()    // has it go

	writing time.Time     // since when a write waits for the client, if one does
	wrote   time.Duration // how long the others did
}

func newQueue(o queueOptions, clock func() time.Time) *queue {
	if o.each == 0 {
		o.each = o.places
	}
	return &queue{queueOptions: o, clock: clock, inside: make(map[*visitor]struct{}), parties: make(map[netip.Prefix]*party)}
}

// enter waits for a place, which the client leaves. It returns nil if there is none in
// time. out is called if the visitor is to go; it must not wait.
func (q *queue) enter(ctx context.Context, client netip.Prefix, out func()) *visitor {
	v := &visitor{queue: q, in: make(chan bool, 1), out: out}
	q.join(v, client)
	select {
	case in := <-v.in:
		return v.unless(in)
	default:
	}
	enough := time.NewTimer(q.wait)
	defer enough.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case in := <-v.in:
			return v.unless(in)
		case <-again.C:
			q.look()
		case <-enough.C:
			q.giveUp(v)
		case <-ctx.Done():
			q.giveUp(v)
			return v.unless(<-v.in)
		}
	}
}

func (v *visitor) unless(in bool) *visitor {
	if in {
		return v
	}
	return nil
}

func (q *queue) join(v *visitor, client netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v.party = q.parties[client]
	if v.party == nil {
		v.party = &party{client: client, turn: q.turn} // at the end of the round
		q.parties[client] = v.party
	}
	v.party.waiting++
	q.waiting = append(q.waiting, v)
	q.admit()
	if len(q.waiting) > mostWaiting {
		q.refuse(slices.IndexFunc(q.waiting, func(v *visitor) bool { return v == q.last() }))
	}
}

// last is who goes if too many wait: the last of the party of which most do.
func (q *queue) last() (worst *visitor) {
	for _, v := range q.waiting {
		if worst == nil || v.party.waiting >= worst.party.waiting {
			worst = v
		}
	}
	return worst
}

// giveUp ends a visitor's waiting, unless it has a place by now.
func (q *queue) giveUp(v *visitor) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, v); i >= 0 {
		q.refuse(i)
	}
}

// refuse has one that waits go. mu is held, as below.
func (q *queue) refuse(i int) {
	v := q.waiting[i]
	q.waiting = slices.Delete(q.waiting, i, i+1)
	v.party.waiting--
	q.tidy(v.party)
	v.in <- false
}

// tidy forgets a client that is no longer here.
func (q *queue) tidy(p *party) {
	if p.inside+p.waiting == 0 {
		delete(q.parties, p.client)
	}
}

func (q *queue) look() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.admit()
}

// admit lets in whom there is a place for, and has one go that others wait for.
func (q *queue) admit() {
	for len(q.inside) < q.places {
		next := q.next()
		if next < 0 {
			break
		}
		v := q.waiting[next]
		q.waiting = slices.Delete(q.waiting, next, next+1)
		q.turn++
		v.party.waiting--
		v.party.inside++
		v.party.turn, v.came = q.turn, q.turn
		q.inside[v] = struct{}{}
		v.in <- true
	}
	if len(q.waiting) == 0 || q.ending {
		return
	}
	if v := q.loser(); v != nil {
		q.ending = true
		out := v.out
		v.out = nil
		out()
	}
}

// next is the index of who is let in next, or -1.
func (q *queue) next() int {
	best := -1
	for i, v := range q.waiting {
		if v.party.inside < q.each && (best < 0 || v.party.before(q.waiting[best].party) < 0) {
			best = i
		}
	}
	return best
}

// before compares parties by whose turn it is.
func (p *party) before(other *party) int {
	return cmp.Or(cmp.Compare(p.inside, other.inside), cmp.Compare(p.turn, other.turn))
}

// loser is who is to go for one that waits, or nil.
func (q *queue) loser() (worst *visitor) {
	now := q.clock()
	next := q.next()
	patience := q.patience()
	for v := range q.inside {
		slow := q.slow > 0 && v.waited(now) >= patience
		rich := q.level && next >= 0 && v.party.inside >= q.waiting[next].party.inside+2
		if !slow && !rich {
			continue
		}
		if worst == nil || cmp.Or(cmp.Compare(v.party.inside, worst.party.inside), cmp.Compare(worst.came, v.came)) > 0 {
			worst = v
		}
	}
	return worst
}

// patience is how long clients may keep writes to them waiting: less when more clients wait
// than would get a place in half of the time that they wait for one. Else a hundred that
// read nothing keep all others out.
func (q *queue) patience() time.Duration {
	waiting := 0
	for _, p := range q.parties {
		if p.waiting > 0 {
			waiting++
		}
	}
	if waiting == 0 {
		return q.slow
	}
	return max(min(q.slow, q.wait/2*time.Duration(q.places)/time.Duration(waiting)), hurry)
}

// waited is how long writes have waited for the client.
func (v *visitor) waited(now time.Time) time.Duration {
	if v.writing.IsZero() {
		return v.wrote
	}
	return v.wrote + now.Sub(v.writing)
}

// leave gives the place back.
func (v *visitor) leave() {
	q := v.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if v.out == nil {
		q.ending = false
	}
	delete(q.inside, v)
	v.party.inside--
	q.tidy(v.party)
	q.admit()
}

// serve has a handler serve a queue's requests. One that is put out ends: nothing more
// is written to it, and its context says so.
func (q *queue) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		connection := http.NewResponseController(w)
		v := q.enter(ctx, clientOf(r.RemoteAddr), func() {
			cancel()
			_ = connection.SetWriteDeadline(time.Unix(1, 0)) // long ago
		})
		if v == nil {
			w.Header().Set("Retry-After", "10")
			http.Error(w, "too many ask for this at once: try again", http.StatusServiceUnavailable)
			return
		}
		defer v.leave()
		next.ServeHTTP(&watched{w, v}, r.WithContext(ctx))
	})
}

// watched is the writer of a visitor's answer: it knows how long its client takes.
type watched struct {
	http.ResponseWriter
	visitor *visitor
}

// Write implements io.Writer.
func (w *watched) Write(b []byte) (int, error) {
	w.visitor.writes(true)
	defer w.visitor.writes(false)
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (v *visitor) writes(begin bool) {
	now := v.queue.clock()
	v.queue.mu.Lock()
	defer v.queue.mu.Unlock()
	v.wrote = v.waited(now)
	v.writing = time.Time{}
	if begin {
		v.writing = now
	}
}
