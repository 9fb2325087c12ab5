package show

import (
	"time"

	"github.com/probed/probed/probe"
)

// A Way is where a step goes.
type Way uint8

// The ways.
const (
	Here  Way = iota // a timer of ours, or a call
	Out              // a segment that left this host
	In               // a segment that arrived
	Error            // an ICMP error that arrived
)

// A Step is one thing that happened in a conversation.
type Step struct {
	// At is when, since the conversation's zero: by the kernel's stamps for what
	// crossed the wire, else by when it was handled.
	At          time.Duration
	Wall        int64 // the same, ns since the Unix epoch
	Way         Way
	Event       probe.EventKind
	Segment     probe.Segment // Out, In; of an OPEN the SYN that is to leave
	ICMP        probe.ICMP    // Error
	Local, Peer probe.State   // both sides' after it, ours as the wire shows it, the peer's inferred
	Note        string        // what was concluded from it; may be empty
}

// A Mark is an interval that was measured, between two steps.
type Mark struct {
	Kind     probe.ObservationKind
	Name     string // as the metric's, less probed_ and _seconds: handshake_rtt
	From, To int    // indices of Steps, -1 if that one is not among them
	Duration time.Duration
}

// A Conversation is a transcript laid out to be shown.
type Conversation struct {
	Number uint64
	Kind   probe.Kind
	Tuple  probe.FourTuple // Local is the zero AddrPort if nothing was opened
	Zero   int64           // ns since the Unix epoch: our SYN's transmit stamp, or the OPEN if none left
	Steps  []Step
	Lost   int // steps that are missing before Steps[LostAt]
	LostAt int
	Marks  []Mark

	Settled   bool // there is a verdict, or it was discarded
	Reason    probe.Reason
	Discarded probe.DiscardReason
	Figures   []probe.Observation // everything measured, in order
}

// Of lays a transcript out.
func Of(t *probe.Transcript) *Conversation {
	records := t.Records()
	c := &Conversation{Number: t.Number, Kind: t.Kind, Tuple: t.Tuple, Lost: int(t.Lost), LostAt: probe.FirstRecords}
	c.Reason, c.Discarded, c.Settled = t.Settled()
	c.Zero = zero(t)
	c.Steps = make([]Step, len(records))
	for i := range records {
		c.Steps[i] = stepOf(t, &records[i], c.Zero)
	}
	c.pass()
	figures := t.Figures()
	for i := range figures {
		f := &figures[i]
		c.Figures = append(c.Figures, f.Observation)
		if name, _ := Interval(f.Kind); name != "" && f.Duration >= 0 {
			from, to := c.ends(f.Duration, t.RecordOf(f))
			c.Marks = append(c.Marks, Mark{f.Kind, name, from, to, f.Duration})
		}
	}
	return c
}

// pass puts our states where the wire has them. A conversation whose FIN follows at
// once is in FIN-WAIT-1 or LAST-ACK from the segment on that made it send the FIN;
// until that leaves, a person with a capture sees ESTABLISHED or CLOSE-WAIT.
func (c *Conversation) pass() {
	for i := range c.Steps {
		var before probe.State
		state := c.Steps[i].Local
		switch state {
		case probe.FinWait1:
			before = probe.Established
		case probe.LastAck:
			before = probe.CloseWait
		default:
			continue
		}
		if i > 0 && c.Steps[i-1].Local == state {
			continue
		}
		left := i
		for left < len(c.Steps) && c.Steps[left].Local == state && !c.Steps[left].sendsFIN() {
			left++
		}
		if left < len(c.Steps) && c.Steps[left].Local == state {
			for j := i; j < left; j++ {
				c.Steps[j].Local = before
			}
		}
	}
}

// sendsFIN reports whether the step is a FIN of ours that leaves.
func (s *Step) sendsFIN() bool { return s.Way == Out && s.Segment.Flags.Has(probe.FIN) }

// OK reports whether the verdict is success.
func (c *Conversation) OK() bool {
	return c.Settled && c.Discarded == probe.NotDiscarded && c.Reason == probe.OK
}

// Verdict is the outcome in the words of the metrics: "ok", a failure's reason,
// "discarded: send_error", or "unsettled".
func (c *Conversation) Verdict() string {
	switch {
	case !c.Settled:
		return "unsettled"
	case c.Discarded != probe.NotDiscarded:
		return "discarded: " + c.Discarded.String()
	default:
		return c.Reason.String()
	}
}

// zero is the first SYN's transmit stamp, or when the conversation was opened.
func zero(t *probe.Transcript) int64 {
	records := t.Records()
	for i := range records {
		if ev := &records[i].Event; ev.Kind == probe.SegmentSent && ev.Segment.Flags.Has(probe.SYN) && ev.Stamp.Wall != 0 {
			return ev.Stamp.Wall
		}
	}
	if len(records) == 0 {
		return 0
	}
	return t.Offset + int64(records[0].At)
}

func stepOf(t *probe.Transcript, r *probe.Record, zero int64) Step {
	ev := &r.Event
	s := Step{
		Wall: t.Offset + int64(r.At), Event: ev.Kind, Segment: ev.Segment, ICMP: ev.ICMP,
		Local: r.Local, Peer: r.Peer, Note: r.Note.String(),
	}
	switch ev.Kind {
	case probe.SegmentSent:
		s.Way = Out
	case probe.SegmentArrives:
		s.Way = In
	case probe.ICMPArrives:
		s.Way = Error
	}
	if s.Way != Here && ev.Stamp.Wall != 0 {
		s.Wall = ev.Stamp.Wall
	}
	s.At = time.Duration(s.Wall - zero)
	return s
}

// ends finds the two steps between which a duration lies: their stamps are that far
// apart, and of several pairs the last one counts that was complete when the figure
// was.
func (c *Conversation) ends(d time.Duration, known int) (from, to int) {
	for to = min(known, len(c.Steps)-1); to >= 0; to-- {
		if !c.Steps[to].crossed() {
			continue
		}
		for from = to; from >= 0; from-- {
			if c.Steps[from].crossed() && c.Steps[to].Wall-c.Steps[from].Wall == int64(d) {
				return from, to
			}
		}
	}
	return -1, -1
}

// crossed reports whether the step is one on the wire.
func (s *Step) crossed() bool { return s.Way == Out || s.Way == In }
