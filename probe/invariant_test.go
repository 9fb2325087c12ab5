package probe_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/probed/probed/probe"
)

// A watch steps a conversation and holds it to what must be true of every one,
// whatever happens to it. It knows of the conversation only what it sees.
type watch struct {
	c        probe.Conversation
	iss      probe.Seq
	opened   bool
	narrow   bool // as OPEN said
	answered bool // an acceptable SYN-ACK was delivered
	reset    bool // a RST that the peer must accept was sent or seen since one found nothing open
	verdict  probe.Reason
	seen     [probe.NumObservations]int
	openedAt probe.Instant
	touch    probe.Seq // the last SYN to TIME-WAIT
	touched  bool
	clean    bool // a connection that was established was closed on both sides, or reset by either

	twin  probe.Conversation // stepped in place, where something else was before
	small probe.Compact
	told  probe.Output // the twin's
}

func newWatch(p probe.Params) *watch { return &watch{c: probe.New(p)} }

// step delivers one event, and returns what came of it and what must not have.
func (w *watch) step(now probe.Instant, ev probe.Event) (probe.Output, error) {
	before := w.c
	after, out := probe.Step(before, now, ev)
	again, outAgain := probe.Step(before, now, ev)
	if after != again || out != outAgain {
		return out, fmt.Errorf("the same event gave two results: %+v %+v, %+v %+v", after, out, again, outAgain)
	}
	if err := w.inPlace(now, &before, &after, &ev, &out); err != nil {
		return out, err
	}
	w.c = after
	if before.Done() && (after != before || out != probe.Output{}) {
		return out, fmt.Errorf("something came of an event after the end: %+v", out)
	}
	if w.c.Kind == probe.HalfOpen {
		w.hear(&before, &ev)
		if err := w.speak(&ev, &out); err != nil {
			return out, err
		}
	} else if err := w.connection(now, &before, &ev, &out); err != nil {
		return out, err
	}
	if err := w.observe(now, &out); err != nil {
		return out, err
	}
	return out, w.state(now, &ev)
}

// inPlace holds the pointer form of Step to the value's, also from the conversation's
// compact form, if it has one, in the memory of another.
func (w *watch) inPlace(now probe.Instant, before, after *probe.Conversation, ev *probe.Event, out *probe.Output) error {
	given := *ev
	w.twin = *before
	w.twin.Step(now, ev, &w.told)
	if w.twin != *after || !same(&w.told, out) || *ev != given {
		return fmt.Errorf("in place: %+v %+v, not %+v %+v", w.twin, w.told, after, out)
	}
	if !before.Compacts() {
		return nil
	}
	before.Compact(&w.small)
	w.twin.Scribble()
	w.twin.Restore(&before.Params, &w.small)
	w.twin.Step(now, ev, &w.told)
	var got, want probe.Compact
	w.twin.Compact(&got)
	after.Compact(&want)
	kind, at := w.twin.Timer()
	wantKind, wantAt := after.Timer()
	switch {
	case got != want || !same(&w.told, out):
		return fmt.Errorf("of the compact form: %+v %+v, not %+v %+v", got, w.told, want, out)
	case kind != wantKind || at != wantAt || w.twin.Done() != after.Done() || w.twin.Rests() != after.Rests() ||
		w.twin.Local() != after.Local() || w.twin.Peer() != after.Peer():
		return fmt.Errorf("of the compact form: %+v, not %+v", w.twin, after)
	case want.Settled() != after.Settled() || want.Closed() != after.Closed() || want.Left() != after.Left():
		return fmt.Errorf("the compact form %+v says otherwise than %+v", want, after)
	}
	return nil
}

// same compares what two outputs say.
func same(a, b *probe.Output) bool {
	return a.Note == b.Note && a.Narrow == b.Narrow && slices.Equal(a.Segments(), b.Segments()) && slices.Equal(a.Observations(), b.Observations())
}

// hear notes what the event itself says.
func (w *watch) hear(before *probe.Conversation, ev *probe.Event) {
	s := &ev.Segment
	switch {
	case before.Done():
	case ev.Kind == probe.Open && !w.opened:
		w.opened, w.iss = true, s.Seq
	case ev.Kind == probe.Reopen && w.opened:
		if kind, _ := before.Timer(); kind == probe.Reopen {
			w.iss, w.answered, w.reset = w.iss.Add(1<<30), false, false
		}
	case ev.Kind == probe.SegmentArrives && w.opened:
		if s.Flags.Has(probe.SYN|probe.ACK) && !s.Flags.Has(probe.RST) && s.Ack == w.iss.Add(1) {
			w.answered = true
			if before.Closed() || before.Peer() != probe.SynReceived {
				w.reset = false
			}
		}
	case ev.Kind == probe.SegmentSent && w.opened:
		if s.Flags.Has(probe.RST) && s.Seq == w.iss.Add(1) {
			w.reset = true
		}
	}
}

// speak checks the segments sent.
func (w *watch) speak(ev *probe.Event, out *probe.Output) error {
	for _, s := range out.Segments() {
		switch {
		case ev.Kind == probe.SegmentArrives && ev.Segment.Flags.Has(probe.RST):
			return fmt.Errorf("answers a RST with %v", s.Flags)
		case ev.Kind == probe.Open:
			if s != ev.Segment {
				return fmt.Errorf("opens with %+v, not with the SYN given", s)
			}
		case ev.Kind == probe.Reopen:
			if want := ev.Segment; s.Seq != w.iss || s.Flags != want.Flags || s.Options != want.Options {
				return fmt.Errorf("opens again with %+v, not with the SYN given at %d", s, w.iss)
			}
		case s.Flags != probe.RST || s.Seq != w.iss.Add(1):
			return fmt.Errorf("sends %v %d: neither the SYN nor a RST that the peer must accept", s.Flags, s.Seq)
		case !w.answered:
			return fmt.Errorf("resets a peer that has not answered")
		default:
			w.reset = true
		}
	}
	return nil
}

// observe checks the observations made.
func (w *watch) observe(now probe.Instant, out *probe.Output) error {
	for _, o := range out.Observations() {
		if o.Kind < probe.Verdict || int(o.Kind) >= probe.NumObservations || w.c.Kind == probe.HalfOpen && o.Kind > probe.Reaction {
			return fmt.Errorf("observation of kind %d", o.Kind)
		}
		w.seen[o.Kind]++
		switch o.Kind {
		case probe.SYNACKDuplicate, probe.SYNACKLate, probe.Rejected, probe.FINRetransmit:
		default:
			if w.seen[o.Kind] > 1 {
				return fmt.Errorf("%v is observed twice", o.Kind)
			}
		}
		switch o.Kind {
		case probe.Verdict:
			w.verdict = o.Reason
			if o.Reason == probe.OK && !w.answered {
				return fmt.Errorf("success without a SYN-ACK")
			}
		case probe.HandshakeRTT:
			if o.Duration < 0 || o.Duration > w.c.Timeout {
				return fmt.Errorf("handshake in %v of %v", o.Duration, w.c.Timeout)
			}
		case probe.Reaction:
			if o.Duration < 0 || !w.answered {
				return fmt.Errorf("reaction of %v", o.Duration)
			}
		default:
			if err := w.figure(now, &o); err != nil {
				return err
			}
		}
	}
	settled := w.seen[probe.Verdict] + w.seen[probe.Discarded]
	if settled > 1 {
		return fmt.Errorf("both a verdict and a discard")
	}
	if w.c.Settled() != (settled == 1) {
		return fmt.Errorf("Settled is %v after %d verdicts and discards", w.c.Settled(), settled)
	}
	if n := w.seen[probe.HandshakeRTT]; n > w.seen[probe.PeerSeen] && !w.c.DetectCookies ||
		w.c.Kind == probe.HalfOpen && w.seen[probe.PeerSeen] > 0 && w.verdict != probe.OK {
		return fmt.Errorf("a handshake was measured (%d) without success (%v)", n, w.verdict)
	}
	return nil
}

// state checks where the conversation stands.
func (w *watch) state(now probe.Instant, ev *probe.Event) error {
	kind, due := w.c.Timer()
	switch {
	case !w.opened:
		if kind != 0 || w.c.Done() {
			return fmt.Errorf("%v before OPEN left a timer or an end", ev.Kind)
		}
	case w.c.Done():
		if kind != 0 {
			return fmt.Errorf("a timer runs after the end")
		}
		if !w.c.Settled() {
			return fmt.Errorf("ends without verdict or discard")
		}
		if w.answered && !w.reset && !w.clean {
			return fmt.Errorf("ends with a SYN-ACK that was not reset")
		}
	case kind == 0:
		return fmt.Errorf("no timer runs in %v", w.c.Local())
	case due.Sub(now) > w.longest():
		return fmt.Errorf("%v is due only in %v", kind, due.Sub(now))
	}
	return nil
}

// longest is the longest wait for a timer: what the parameters name, and a
// little that they don't.
func (w *watch) longest() time.Duration {
	p := &w.c.Params
	d := p.Timeout + p.Linger + p.ResetGrace + 16*time.Second // between RSTs that this host lets not out
	if p.Kind != probe.HalfOpen {
		d += p.Hold + p.After + p.Limit
	}
	return d
}

// finish lets every timer go off and checks that this ends the conversation.
func (w *watch) finish(now probe.Instant) error {
	// Retransmissions are a second apart at least, touches too.
	p := &w.c.Params
	for range 64 + int((p.Timeout+p.Limit+p.After)/time.Second) {
		kind, due := w.c.Timer()
		if kind == 0 {
			if w.opened && !w.c.Done() {
				return fmt.Errorf("stuck")
			}
			return nil
		}
		now = max(now, due)
		ev := probe.Event{Kind: kind}
		if kind == probe.Reopen {
			ev.Segment = probe.Segment{Seq: w.iss, Flags: probe.SYN}
		}
		if _, err := w.step(now, ev); err != nil {
			return err
		}
	}
	return fmt.Errorf("never ends")
}
