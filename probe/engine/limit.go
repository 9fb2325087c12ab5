package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// Limits bound what is sent, in packets per second: no second, wherever it
// begins, has more. A half_open counts as its SYN and its RST when the SYN goes, since
// it ends with a RST whoever sends it. Of other kinds each packet counts as it goes, and
// room for all that a probe needs (probe.Params.Packets) is reserved before: see
// reservedFor, which says what that does not hold for. Below that, nothing is ever sent.
type Limits struct {
	Global     int
	PerAddress int
	Rules      Rules // nil: anything may be sent anywhere
}

// limitSpan is what a limit is about: a second, and the round trip after which a
// RST follows its SYN where that is short.
const limitSpan = time.Second + 5*time.Millisecond

// most is how many packets any one second may have under a limit, given what the
// schedule asks for. There is one exception to the limit, and arithmetic forces
// it: if the schedule uses it up, a probe that was late by a moment would be late
// for ever, because its second's room is taken by those after it, and the next
// moment comes on top. Such a schedule has some percent and a probe more to
// catch up with.
func (d demand) most(limit, packets, percent int) int {
	all := demand(limit) * packetPerSecond
	if d <= all && d > all/100*99 {
		return limit + limit*percent/100 + packets
	}
	return limit
}

// What a schedule that uses a limit up has more, in percent: a hiccup of the loop
// delays all targets together, so that more is needed for them to catch up soon.
const (
	globalSlack  = 5
	addressSlack = 1
)

// A demand is what targets ask for, in millionths of a packet per second. It is
// an integer so that what is added can be taken away without a rest.
type demand int64

const packetPerSecond demand = 1e6

// demands is what a target asks for in the long run.
func (t *Target) demands() demand {
	if !t.Remote.IsValid() || t.Count > 0 {
		return 0
	}
	return demand(t.Params.Packets()) * packetPerSecond * demand(time.Second/time.Microsecond) / demand(max(t.Interval/time.Microsecond, 1))
}

// A window is the exact log of what was sent in the last second. It grows with
// what is sent, not with the limit.
type window struct {
	sent  []sending  // a ring of a power of two
	head  int32      // oldest
	n     int32      // entries in use
	total int        // packets in them
	few   [2]sending // the ring that suffices for one probe a second
}

type sending struct {
	at      probe.Instant
	packets int
}

// entry returns the i-th oldest entry.
func (w *window) entry(i int32) *sending { return &w.sent[int(w.head+i)&(len(w.sent)-1)] }

// room returns when packets more may be sent under limit: now, or later.
func (w *window) room(now probe.Instant, packets, limit int) probe.Instant {
	w.forget(now)
	excess := w.total + packets - limit
	if excess <= 0 {
		return now
	}
	for i := range w.n {
		s := w.entry(i)
		if excess -= s.packets; excess <= 0 {
			return s.at.Add(limitSpan)
		}
	}
	return now.Add(limitSpan)
}

// add logs packets as sent now.
func (w *window) add(now probe.Instant, packets int) {
	w.total += packets
	if w.n > 0 {
		if last := w.entry(w.n - 1); last.at == now {
			last.packets += packets
			return
		}
	}
	if int(w.n) == len(w.sent) {
		grown := w.few[:]
		if w.n > 0 {
			grown = make([]sending, 2*w.n)
		}
		for i := range w.n {
			grown[i] = *w.entry(i)
		}
		w.sent, w.head = grown, 0
	}
	w.n++
	*w.entry(w.n - 1) = sending{now, packets}
}

// left corrects the last entry: the batch had left by now only.
func (w *window) left(now probe.Instant) {
	if w.n > 0 {
		w.entry(w.n - 1).at = now
	}
}

// leftSince corrects the entries from a moment on: what they are of had left by now only.
func (w *window) leftSince(from, now probe.Instant) {
	for i := w.n - 1; i >= 0 && w.entry(i).at >= from; i-- {
		w.entry(i).at = now
	}
}

// idle reports whether nothing was sent lately.
func (w *window) idle(now probe.Instant) bool {
	w.forget(now)
	return w.n == 0
}

func (w *window) forget(now probe.Instant) {
	for w.n > 0 && w.entry(0).at.Add(limitSpan) <= now {
		w.total -= w.entry(0).packets
		w.head = (w.head + 1) & int32(len(w.sent)-1)
		w.n--
	}
}
