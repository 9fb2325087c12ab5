package probe_test

import (
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// A web is a server in slow start (RFC 5681 §3.1, RFC 6928, RFC 3465 with L unbounded, as
// Linux), which answers a request with so many octets and closes, seen from a host that
// takes react to let an answer out.
type web struct {
	rtt, spacing time.Duration
	size         uint32
	chunk        uint32        // its application writes so many octets; 0: all
	every        time.Duration // so often
	prompt       bool          // each of its segments is acknowledged at once, whatever the conversation does
}

// closes returns how long after the request its FIN came, and what was said of that: -1 for nothing.
func (w *web) closes() (took, figure time.Duration) {
	const (
		begin = probe.Instant(1e9)
		first = probe.Seq(7001)
		mss   = 1448
		react = 60 * time.Microsecond
		late  = 400 * time.Microsecond // our timers
	)
	type what uint8
	const (
		arrives what = iota
		sent
		there
		writes
	)
	type event struct {
		at time.Duration
		what
		segment probe.Segment
	}
	var queue []event
	push := func(e event) {
		i, _ := slices.BinarySearchFunc(queue, e.at, func(x event, at time.Duration) int {
			if x.at <= at {
				return -1
			}
			return 1
		})
		queue = slices.Insert(queue, i, e)
	}
	c := probe.New(probe.Params{Kind: probe.PassiveClose, Timeout: 30 * time.Second, Linger: time.Second, Send: 100})
	var now, line, asked time.Duration
	figure = -1
	step := func(ev probe.Event) {
		var out probe.Output
		c.Step(begin.Add(now), &ev, &out)
		for _, s := range out.Segments() {
			push(event{now + react, sent, s})
			push(event{now + react + w.rtt/2, there, s})
		}
		for _, o := range out.Observations() {
			if o.Kind == probe.PeerCloseTime {
				figure = o.Duration
			}
		}
	}
	una, next, wrote, cwnd := uint32(0), uint32(0), uint32(0), uint32(10*mss)
	sends := func() {
		for next < wrote && next-una < min(cwnd, 60_000) {
			n, flags := min(mss, wrote-next), probe.ACK
			if next+n == wrote {
				flags |= probe.PSH
			}
			if next+n == w.size {
				flags |= probe.FIN
			}
			line = max(line, now) + w.spacing
			push(event{line + w.rtt/2, arrives, probe.Segment{Flags: flags, Seq: first.Add(next), Ack: 1101, Len: n, Window: 65160}})
			next += n
		}
	}
	acknowledged := func(end uint32) {
		if end > una && end <= next {
			cwnd, una = cwnd+end-una, end
			sends()
		}
	}
	if w.chunk == 0 {
		w.chunk = w.size
	}
	step(probe.Event{Kind: probe.Open, Segment: probe.Segment{Flags: probe.SYN, Seq: 1000, Window: 64240}})
	for !c.Settled() {
		kind, due := c.Timer()
		if at := due.Sub(begin) + late; len(queue) == 0 || at < queue[0].at {
			now = max(now, at)
			step(probe.Event{Kind: kind})
			continue
		}
		e := queue[0]
		queue, now = queue[1:], max(now, queue[0].at)
		s, stamp := &e.segment, probe.Stamp{Wall: int64(1e15) + int64(e.at), Clock: 1, Kernel: true}
		switch {
		case e.what == sent:
			if s.Len > 0 {
				asked = e.at
			}
			step(probe.Event{Kind: probe.SegmentSent, Segment: *s, Stamp: stamp})
		case e.what == writes:
			if wrote = min(wrote+w.chunk, w.size); wrote < w.size {
				push(event{now + w.every, writes, probe.Segment{}})
			}
			sends()
		case e.what == arrives:
			if s.Flags.Has(probe.FIN) {
				took = e.at - asked
			}
			if w.prompt && s.Len > 0 {
				push(event{now + react + w.rtt/2, there, probe.Segment{Flags: probe.ACK, Seq: 1101, Ack: s.Seq.Add(s.Len)}})
			}
			step(probe.Event{Kind: probe.SegmentArrives, Segment: *s, Stamp: stamp})
		case s.Flags.Has(probe.SYN):
			push(event{now + w.rtt/2, arrives, probe.Segment{Flags: probe.SYN | probe.ACK, Seq: first.Add(^uint32(0)), Ack: 1001, Window: 65160}})
		case s.Flags.Has(probe.FIN):
			push(event{now + w.rtt/2, arrives, probe.Segment{Flags: probe.ACK, Seq: first.Add(w.size + 1), Ack: s.End(), Window: 65160}})
		case s.Len > 0:
			push(event{now, writes, probe.Segment{}})
		case !w.prompt || s.Window == 0: // ours have one
			acknowledged(uint32(s.Ack.Sub(first)))
		}
	}
	return took, figure
}

// What a server takes to answer and to close is the server's and the path's, near and far, and
// there is a figure of it.
func TestAnswersAreTheServers(t *testing.T) {
	for _, rtt := range []time.Duration{200 * time.Microsecond, 2 * time.Millisecond, 5 * time.Millisecond, 12 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
		all, without, slower := 0, 0, 0
		for _, spacing := range []time.Duration{12 * time.Microsecond, 120 * time.Microsecond, 400 * time.Microsecond} {
			for size := uint32(3000); size < 400_000; size += 10_007 {
				w := web{rtt: rtt, spacing: spacing, size: size, prompt: true}
				best, _ := w.closes()
				w.prompt = false
				_, figure := w.closes()
				all++
				switch {
				case figure < 0:
					without++
				case figure > best+best/10:
					slower++
				}
			}
		}
		if without > 0 || slower > 0 {
			t.Errorf("at %v: of %d answers %d have no figure, and %d one with more than a tenth of ours in it", rtt, all, without, slower)
		}
	}
}

// Nor does who writes a little now and then (TCP_NODELAY) wait for us.
func TestTricklesAreTheServers(t *testing.T) {
	for _, rtt := range []time.Duration{200 * time.Microsecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		for _, chunk := range []uint32{100, 1448, 4000} {
			for every := 11 * time.Millisecond; every < 60*time.Millisecond; every += time.Millisecond {
				w := web{rtt: rtt, spacing: 12 * time.Microsecond, size: 60 * chunk, chunk: chunk, every: every}
				if took, figure := w.closes(); figure != took {
					t.Errorf("%d octets every %v, at %v: %v, said to be %v", chunk, every, rtt, took, figure)
				}
			}
		}
	}
}
