package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// Limits bound what is sent, in packets per second. A probe counts as all its
// packets (probe.Params.Packets) when its SYN goes, since it ends with a RST
// whoever sends it. Below that, nothing is ever sent.
type Limits struct {
	Global     int
	PerAddress int
}

// A schedule that uses a limit up to the last packet must be able to catch up
// after a delay, or every hiccup of the loop would add to the last. So the
// limit holds exactly for every 990 ms, wherever they begin, and what may be
// sent in a whole second, wherever that begins, is one percent more than the
// limit, or one probe.
const (
	limitWindow = 990 * time.Millisecond
	limitSecond = time.Second
)

// inSecond is the most packets of any one second, if probes have that many each.
func inSecond(limit, packets int) int { return limit + max(packets, limit/100) }

// A window is the exact log of what was sent in the last second. It grows with
// what is sent, not with the limit.
type window struct {
	sent   []sending // a ring
	head   int       // oldest
	n      int       // entries in use
	total  int       // packets in them
	old    int       // entries, the oldest, that are older than limitWindow
	recent int       // packets in the others
}

type sending struct {
	at      probe.Instant
	packets int
}

// entry returns the i-th oldest entry.
func (w *window) entry(i int) *sending { return &w.sent[(w.head+i)%len(w.sent)] }

// room returns when packets more may be sent under limit: now, or later.
func (w *window) room(now probe.Instant, packets, limit int) probe.Instant {
	w.forget(now)
	return max(
		w.free(now, w.old, w.recent+packets-limit, limitWindow),
		w.free(now, 0, w.total+packets-inSecond(limit, packets), limitSecond),
	)
}

// free returns when the entries from the i-th on that hold excess packets are
// older than span.
func (w *window) free(now probe.Instant, i, excess int, span time.Duration) probe.Instant {
	if excess <= 0 {
		return now
	}
	for ; i < w.n; i++ {
		s := w.entry(i)
		if excess -= s.packets; excess <= 0 {
			return s.at.Add(span)
		}
	}
	return now.Add(span)
}

// add logs packets as sent now.
func (w *window) add(now probe.Instant, packets int) {
	w.total += packets
	w.recent += packets
	if w.n > w.old {
		if last := w.entry(w.n - 1); last.at == now {
			last.packets += packets
			return
		}
	}
	if w.n == len(w.sent) {
		grown := make([]sending, max(4, 2*w.n))
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
	if w.n > w.old {
		w.entry(w.n - 1).at = now
	}
}

// idle reports whether nothing was sent lately.
func (w *window) idle(now probe.Instant) bool {
	w.forget(now)
	return w.n == 0
}

func (w *window) forget(now probe.Instant) {
	for w.old < w.n && w.entry(w.old).at.Add(limitWindow) <= now {
		w.recent -= w.entry(w.old).packets
		w.old++
	}
	for w.old > 0 && w.entry(0).at.Add(limitSecond) <= now {
		w.total -= w.entry(0).packets
		w.head = (w.head + 1) % len(w.sent)
		w.n--
		w.old--
	}
}
