package script

import (
	"time"

	"github.com/probed/probed/probe"
)

// A Script is one behaviour: what happens to a conversation and what must come
// of it.
type Script struct {
	File   string // as named in errors
	Value  string // of its "each" line that this one is for
	Params probe.Params
	Steps  []Step
}

// A Step is one event and everything that must come of it.
type Step struct {
	Line  int           // of the event, from 1
	After time.Duration // since the step before
	Event Event
	Want  []Want
}

// An Event is an event of the conversation with its numbers still relative, or
// a step of the packet clock.
type Event struct {
	Kind      probe.EventKind // 0: the packet clock steps
	Segment   Segment
	Given     bool // reopen, no room: there is a Segment, which is not the first that is expected
	ICMP      probe.ICMP
	Quote     Number // SEG.SEQ of ICMP's quote
	Discard   probe.DiscardReason
	Stamped   time.Duration // how long before it is handled the stamp was taken
	Unstamped bool
	Narrow    bool          // open, RETRANSMISSION TIMEOUT: the path is known to be
	Overdue   bool          // the timer's deadline has passed, and this comes first
	ClockStep time.Duration // Kind 0
	Unseen    bool          // Kind 0: whoever watches the clock did not notice
}

// A Number is a sequence number, relative to its side's initial one.
type Number struct {
	N        uint32
	Absolute bool
}

// from resolves the number against an initial sequence number.
func (n Number) from(initial probe.Seq) probe.Seq {
	if n.Absolute {
		return probe.Seq(n.N)
	}
	return initial.Add(n.N)
}

// A Segment is a probe.Segment with its numbers still relative.
type Segment struct {
	probe.Segment
	Seq, Ack Number
	SACK     []Block
}

// ours resolves a segment that we send.
func (s Segment) ours(iss, irs probe.Seq) probe.Segment { return s.resolve(iss, irs) }

// theirs resolves a segment that the peer sends.
func (s Segment) theirs(iss, irs probe.Seq) probe.Segment { return s.resolve(irs, iss) }

func (s Segment) resolve(seq, ack probe.Seq) probe.Segment {
	r := s.Segment
	r.Seq = s.Seq.from(seq)
	if r.Flags.Has(probe.ACK) {
		r.Ack = s.Ack.from(ack)
	} else {
		r.Ack = probe.Seq(s.Ack.N)
	}
	if len(s.SACK) > 0 {
		putSACK(&r.Options, s.SACK, ack)
	}
	return r
}

// A Want is one line below an event.
type Want struct {
	Line        int
	Kind        WantKind
	Segment     Segment           // WantSegment
	Observation probe.Observation // WantObservation
	Local, Peer probe.State       // WantStates
	Note        string            // WantNote
}

// WantKind says what a line below an event is about.
type WantKind uint8

// The kinds.
const (
	WantSegment WantKind = iota + 1
	WantObservation
	WantStates
	WantNote
	WantDone
)
