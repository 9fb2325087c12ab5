package probe_test

import (
	"fmt"

	"github.com/probed/probed/probe"
)

// connection holds the kinds that go past the SYN-ACK to what must be true of
// their segments and of how they end.
func (w *watch) connection(now probe.Instant, before *probe.Conversation, ev *probe.Event, out *probe.Output) error {
	if before.Done() {
		return nil
	}
	w.follow(now, before, ev)
	for i := range out.Segments() {
		if err := w.said(before, ev, &out.Segments()[i]); err != nil {
			return err
		}
	}
	if una, nxt, _ := before.SendSequence(); out.Narrow && (ev.Kind != probe.ICMPArrives || ev.ICMP.Seq.Less(una) || !ev.ICMP.Seq.Less(nxt)) {
		return fmt.Errorf("believes that the path is narrow of %+v, with %d to %d in flight", ev, una, nxt)
	}
	una, nxt, established := w.c.SendSequence()
	if established && nxt.Less(una) {
		return fmt.Errorf("SND.UNA %d is beyond SND.NXT %d", una, nxt)
	}
	w.ends(before, ev)
	return nil
}

// follow notes what the event itself says.
func (w *watch) follow(now probe.Instant, before *probe.Conversation, ev *probe.Event) {
	s := &ev.Segment
	switch {
	case ev.Kind == probe.Open && !w.opened:
		w.opened, w.iss, w.openedAt, w.narrow = true, s.Seq, now, ev.Narrow
	case !w.opened || ev.Kind != probe.SegmentArrives || s.Flags&(probe.SYN|probe.ACK|probe.RST) != probe.SYN|probe.ACK:
	case w.touched && s.Ack == w.touch.Add(1):
		w.clean, w.reset = false, false // a new connection
	case s.Ack == w.iss.Add(1) && !w.answered:
		w.answered = true
	case s.Ack == w.iss.Add(1) && before.Closed() && before.Local() == probe.Closed && !w.clean:
		w.reset = false
	}
}

// said checks one segment that is sent.
func (w *watch) said(before *probe.Conversation, ev *probe.Event, s *probe.Segment) error {
	una, nxt, established := w.c.SendSequence()
	switch {
	case ev.Kind == probe.Open:
		if *s != ev.Segment {
			return fmt.Errorf("opens with %+v, not with the SYN given", s)
		}
	case ev.Kind == probe.Reopen:
		if s.Flags != ev.Segment.Flags {
			return fmt.Errorf("opens again with %v, not with the SYN given", s.Flags)
		}
		w.touched, w.touch = true, s.Seq
	case s.Flags.Has(probe.RST):
		if ev.Kind == probe.SegmentArrives && ev.Segment.Flags.Has(probe.RST) {
			return fmt.Errorf("answers a RST with a RST")
		}
		answers := ev.Kind == probe.SegmentArrives && s.Seq == ev.Segment.Ack
		inFlight := established && una.LessEq(s.Seq) && s.Seq.LessEq(nxt)
		if s.Flags != probe.RST || s.Len != 0 || !answers && !inFlight && s.Seq != w.iss.Add(1) {
			return fmt.Errorf("resets at %d, which the peer cannot accept: %d to %d", s.Seq, una, nxt)
		}
		w.reset = true
	case !established:
		return fmt.Errorf("sends %v before the handshake", s.Flags)
	case !s.Flags.Has(probe.ACK):
		return fmt.Errorf("sends %v without ACK", s.Flags)
	case nxt.Less(s.End()) || s.Len > 0 && s.Seq.Less(before.FirstOctet()):
		return fmt.Errorf("sends %d to %d, SND.NXT being %d", s.Seq, s.End(), nxt)
	case s.Len > 0 && w.iss.Add(1+w.c.Send).Less(s.Seq.Add(s.Len)):
		return fmt.Errorf("sends more than the %d octets that there are", w.c.Send)
	case w.narrow && (s.Len > 1220 || s.Len > 536 && !w.c.IPv6):
		return fmt.Errorf("sends %d octets to who is behind a narrow path", s.Len)
	case w.c.Local() == probe.Closed && before.Local() == probe.Closed:
		return fmt.Errorf("sends %v from CLOSED", s.Flags)
	}
	return nil
}

// ends notes that nothing is left open: both FINs acknowledged, or a RST of the
// peer's that counts.
func (w *watch) ends(before *probe.Conversation, ev *probe.Event) {
	local, peer := w.c.Local(), w.c.Peer()
	switch {
	case local == probe.TimeWait:
		w.clean = true
	case before.Local() == probe.LastAck && local == probe.Closed && peer == probe.TimeWait:
		w.clean = true
	case ev.Kind == probe.SegmentArrives && ev.Segment.Flags.Has(probe.RST) && peer == probe.Closed:
		w.clean = true
	}
}

// figure checks an observation of a closing: there is room for every duration
// since OPEN.
func (w *watch) figure(now probe.Instant, o *probe.Observation) error {
	least := o.Duration
	switch o.Kind {
	case probe.Teardown, probe.TimeWaitReuse:
		least = max(least, 0) // below 0: not known
	case probe.TimeWaitLasted:
		least = o.Least
	}
	if least < 0 || o.Duration < least && o.Duration >= 0 || o.Duration > now.Sub(w.openedAt) {
		return fmt.Errorf("%v lasted %v to %v, %v after OPEN", o.Kind, least, o.Duration, now.Sub(w.openedAt))
	}
	if o.Kind >= probe.FINACKRTT && !w.answered {
		return fmt.Errorf("%v without a handshake", o.Kind)
	}
	return nil
}
