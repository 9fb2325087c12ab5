package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// Limits bound what is sent, in packets per second. A half-open probe counts
// as two, since it ends with a RST whoever sends it.
type Limits struct {
	Global     int
	PerAddress int
}

// limitWindow is the second in "packets per second", less what lets a schedule
// that uses a limit up to the last packet catch up after a delay.
const limitWindow = 995 * time.Millisecond

// A window is the exact log of what was sent in the last limitWindow: no
// interval of that length, wherever it begins, ever holds more than the limit.
// It grows with what is sent, not with the limit.
type window struct {
	sent  []sending // a ring
	head  int       // oldest
	n     int       // entries in use
	total int       // packets in them
}

type sending struct {
	at      probe.Instant
	packets int
}

// room returns when packets more may be sent under limit: now, or later.
func (w *window) room(now probe.Instant, packets, limit int) probe.Instant {
	w.forget(now)
	excess := w.total + packets - limit
	for i := 0; i < w.n && excess > 0; i++ {
		s := w.sent[(w.head+i)%len(w.sent)]
		if excess -= s.packets; excess <= 0 {
			return s.at.Add(limitWindow)
		}
	}
	return now
}

// add logs packets as sent now.
func (w *window) add(now probe.Instant, packets int) {
	if w.n == len(w.sent) {
		grown := make([]sending, max(4, 2*w.n))
		for i := range w.n {
			grown[i] = w.sent[(w.head+i)%len(w.sent)]
		}
		w.sent, w.head = grown, 0
	}
	w.sent[(w.head+w.n)%len(w.sent)] = sending{now, packets}
	w.n++
	w.total += packets
}

// idle reports whether nothing was sent lately.
func (w *window) idle(now probe.Instant) bool {
	w.forget(now)
	return w.n == 0
}

func (w *window) forget(now probe.Instant) {
	for w.n > 0 && w.sent[w.head].at.Add(limitWindow) <= now {
		w.total -= w.sent[w.head].packets
		w.head = (w.head + 1) % len(w.sent)
		w.n--
	}
}
