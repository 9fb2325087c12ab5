package probe

// A Compact is what there is to remember of a conversation that ends with the
// answer to its SYN, between two events: the rest of a Conversation is for
// connections, and ten times as much. Whoever keeps many keeps these.
type Compact struct {
	opened, deadline  Instant
	sentWall, gotWall int64  // of the SYN's and the SYN-ACK's stamps
	sentClock         uint32 // likewise
	gotClock          uint32
	iss, irs          Seq
	marks             compactMarks
	phase             phase
	local, peer       State
	hint              Reason
	resets, hintMark  uint8
}

// compactMarks are a Conversation's yes and no.
type compactMarks uint16

const (
	markSeen compactMarks = 1 << iota
	markOverdue
	markAnswered
	markSettled
	markReacted
	markSpoiled
	markSentKernel
	markGotKernel
)

// Compacts reports whether conversations with these parameters have a Compact form.
func (p *Params) Compacts() bool { return p.Kind == HalfOpen && !p.DetectCookies }

// Compact writes the conversation, whose parameters must allow it, into s.
func (c *Conversation) Compact(s *Compact) {
	m := mark(c.seen, markSeen) | mark(c.overdue, markOverdue) | mark(c.answered, markAnswered) |
		mark(c.settled, markSettled) | mark(c.reacted, markReacted) | mark(c.spoiled, markSpoiled) |
		mark(c.synSent.Kernel, markSentKernel) | mark(c.synAckGot.Kernel, markGotKernel)
	*s = Compact{
		opened: c.opened, deadline: c.deadline,
		sentWall: c.synSent.Wall, sentClock: c.synSent.Clock,
		gotWall: c.synAckGot.Wall, gotClock: c.synAckGot.Clock,
		iss: c.iss, irs: c.irs,
		marks: m, phase: c.phase, local: c.local, peer: c.peer, hint: c.hint,
		resets: c.resets, hintMark: c.hintMark,
	}
}

func mark(b bool, m compactMarks) compactMarks {
	if b {
		return m
	}
	return 0
}

func (m compactMarks) has(x compactMarks) bool { return m&x != 0 }

// Restore makes c the conversation that s was made of. What c was before does not
// matter.
func (c *Conversation) Restore(p *Params, s *Compact) {
	c.Params = *p
	c.phase, c.local, c.peer, c.hint = s.phase, s.local, s.peer, s.hint
	c.seen, c.overdue, c.answered = s.marks.has(markSeen), s.marks.has(markOverdue), s.marks.has(markAnswered)
	c.settled, c.reacted, c.spoiled = s.marks.has(markSettled), s.marks.has(markReacted), s.marks.has(markSpoiled)
	c.resets, c.hintMark, c.stale, c.established = s.resets, s.hintMark, 0, false
	c.iss, c.irs, c.sndNxt, c.rcvNxt = s.iss, s.irs, 0, 0
	if s.phase != idle {
		c.sndNxt = s.iss.Add(1)
	}
	if c.answered {
		c.rcvNxt = s.irs.Add(1)
	}
	c.opened, c.deadline = s.opened, s.deadline
	c.synSent = Stamp{Wall: s.sentWall, Clock: s.sentClock, Kernel: s.marks.has(markSentKernel)}
	c.synAckGot = Stamp{Wall: s.gotWall, Clock: s.gotClock, Kernel: s.marks.has(markGotKernel)}
	c.cookies.stage, c.conn.prompts = cookiesUnasked, false
}

// Settled is Conversation.Settled.
func (s *Compact) Settled() bool { return s.marks.has(markSettled) }

// Closed is Conversation.Closed.
func (s *Compact) Closed() bool { return s.phase == idle || s.phase >= lingering }

// Insists is Conversation.Insists.
func (s *Compact) Insists() bool { return s.phase == insisting }

// Deadline is when Conversation.Timer goes off, if it does at all.
func (s *Compact) Deadline() Instant { return s.deadline }

// Answered is Conversation.Answered.
func (s *Compact) Answered() bool { return s.marks.has(markAnswered) }

// SYNSent is Conversation.SYNSent.
func (s *Compact) SYNSent() Stamp {
	return Stamp{Wall: s.sentWall, Clock: s.sentClock, Kernel: s.marks.has(markSentKernel)}
}

// SYNACKGot is the stamp of the SYN-ACK that came first.
func (s *Compact) SYNACKGot() Stamp {
	return Stamp{Wall: s.gotWall, Clock: s.gotClock, Kernel: s.marks.has(markGotKernel)}
}

// FirstOctet is Conversation.FirstOctet.
func (s *Compact) FirstOctet() Seq { return s.iss.Add(1) }

// Left is Conversation.Left.
func (s *Compact) Left() bool { return s.marks.has(markSeen) }
