package probe

// segmentArrives is SEGMENT ARRIVES of RFC 9293 §3.10.7 for a conversation
// that asks nothing beyond the SYN-ACK.
func (c *Conversation) segmentArrives(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	if c.established {
		c.synchronized(now, ev, out)
		return
	}
	if c.answered && s.Flags.Has(RST) {
		c.resetFollows(s, out)
		return
	}
	// "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit
	// is set, if so drop the segment and return)" (§3.10.7.3, first check). Our
	// SYN carries no data, so exactly SND.NXT remains. The reset is our
	// kernel's: the port is reserved, not guarded.
	if !s.Flags.Has(ACK) {
		c.noAck(now, ev, out)
		return
	}
	if s.Ack != c.sndNxt {
		switch {
		case c.ofFirstHandshake(s):
			out.Note = NoteSYNACKDuplicate
			out.observe(Observation{Kind: SYNACKDuplicate})
		case s.Flags.Has(RST):
			out.reject(RejectBadACK, NoteBadRST)
		case s.Flags.Has(SYN):
			out.reject(RejectBadACK, NoteBadSYNACK)
			c.suspect(now, ev, BadSYNACK)
		default:
			// A peer that still holds an old connection on this four-tuple
			// answers so (RFC 5961 §4.2).
			out.reject(RejectBadACK, NoteChallengeACK)
			c.suspect(now, ev, ChallengeACK)
		}
		c.resetStale(s, out)
		return
	}
	switch {
	case s.Flags.Has(RST):
		c.resetArrives(now, ev, out)
	case s.Flags.Has(SYN):
		c.synAckArrives(now, ev, out)
	default:
		// "if neither of the SYN or RST bits is set, then drop the segment and
		// return" (§3.10.7.3, fifth check).
		out.reject(RejectUnexpected, NoteUnexpected)
		c.suspect(now, ev, ChallengeACK)
	}
}

// maxStale bounds the RSTs to what does not acknowledge our SYN.
const maxStale = 3

// maxSYNWindow is the largest window of a peer in SYN-RECEIVED: that of a SYN-ACK is never
// scaled (RFC 7323 §2.2).
const maxSYNWindow = 1<<16 - 1

// resetStale is the reset that §3.10.7.3's first check asks for, where our
// kernel keeps quiet: "<SEQ=SEG.ACK><CTL=RST>". A peer that still holds an old
// connection loses it by that. But one just behind our SYN would lose us the handshake:
// in SYN-RECEIVED Linux takes any RST that is in its window (net/ipv4/tcp_minisocks.c,
// tcp_check_req), and whoever forged the segment had us shoot at ourselves.
func (c *Conversation) resetStale(s *Segment, out *Output) {
	ours := uint32(s.Ack.Sub(c.sndNxt)) <= maxSYNWindow
	if c.Kind != HalfOpen && !s.Flags.Has(RST) && c.stale < maxStale && !ours {
		c.stale++
		out.send(Segment{Seq: s.Ack, Flags: RST})
	}
}

// noAck handles a segment that acknowledges nothing, so that anybody could
// have sent it. A bare SYN is a simultaneous open (RFC 9293 §3.5, figure 7):
// a real peer goes on to acknowledge our SYN, and that SYN-ACK counts.
func (c *Conversation) noAck(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	switch {
	case s.Flags.Has(RST):
		out.reject(RejectNoACK, NoteBadRST)
	case s.Flags.Has(SYN):
		out.reject(RejectNoACK, NoteSimultaneousOpen)
		c.suspect(now, ev, BadSYNACK)
	default:
		out.reject(RejectNoACK, NoteUnexpected)
	}
}

// suspect remembers what was rejected before an answer and in time: it says more of a
// silence than "timeout" does, and decides nothing else. A peer says the same thing each
// time: a challenge ACK acknowledges its old connection, a SYN-ACK comes again as it
// was. Of those who contradict each other at least one is forged, and none is heard.
func (c *Conversation) suspect(now Instant, ev *Event, r Reason) {
	if c.settled || c.late(now, ev.Stamp) {
		return
	}
	switch m := hintMark(&ev.Segment); {
	case c.hint == OK:
		c.hint, c.hintMark = r, m
	case c.hintMark != m:
		c.hint = Timeout
	}
}

// hintMark is a digest of what a peer that says it again repeats.
func hintMark(s *Segment) uint8 {
	h := uint32(s.Ack) * 2654435761 // 2³²/φ: Knuth's multiplicative hash
	if s.Flags.Has(SYN) {
		h ^= uint32(s.Seq) * 2246822519
	}
	return uint8(h >> 24)
}

// resetFollows handles a RST once the peer has named its ISN: "In all states
// except SYN-SENT, all reset (RST) segments are validated by checking their SEQ
// fields" (§3.5.3), whether or not they acknowledge anything. Only one at
// exactly RCV.NXT is the peer's own (RFC 5961 §3.2).
func (c *Conversation) resetFollows(s *Segment, out *Output) {
	if s.Seq != c.rcvNxt {
		out.reject(RejectBadSequence, NoteBadRST)
		return
	}
	c.peer = Closed
	out.Note = NoteResetLate
}

// resetArrives handles a RST that acknowledges our SYN: "If the ACK was
// acceptable, then signal to the user "error: connection reset"" (§3.10.7.3,
// second check).
func (c *Conversation) resetArrives(now Instant, ev *Event, out *Output) {
	c.peer = Closed
	switch {
	case c.settled:
		out.Note = NoteResetLate
	case c.late(now, ev.Stamp):
		c.fail(now, c.Silence(), NoteTimeout, out)
	default:
		c.fail(now, Refused, NoteRefused, out)
	}
}

// synAckArrives handles a SYN-ACK that acknowledges exactly our SYN.
func (c *Conversation) synAckArrives(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	if c.answered {
		c.furtherSYNACK(now, s, out)
		return
	}
	c.answered, c.synAckGot = true, ev.Stamp
	c.irs, c.rcvNxt = s.Seq, s.Seq.Add(1)
	rtt, trusted := c.interval(now, c.synSent, ev.Stamp)
	switch {
	case c.cookies.stage == cookiesAsked:
		c.compareCookies(s, out)
	case c.settled && !c.late(now, ev.Stamp):
		// It was in time, but the verdict was made or given up without it.
		out.Note = NoteSYNACKAfter
	case c.settled:
		out.Note = NoteSYNACKLate
		out.observe(Observation{Kind: SYNACKLate})
	case ev.Fragment: // nobody knows whether the rest has come, and no path is too narrow for a SYN-ACK
		c.discard(now, DiscardTapDrop, out)
		out.Note = NoteFragment
	case c.seen && !trusted:
		c.discard(now, DiscardClockStep, out)
	case c.seen && rtt > c.Timeout:
		c.settle(c.Silence(), out)
		out.Note = NoteSYNACKLate
		out.observe(Observation{Kind: SYNACKLate})
	default:
		out.Note = NoteSYNACK
		if c.seen {
			out.observe(Observation{Kind: HandshakeRTT, Duration: rtt})
		}
		if c.DetectCookies {
			c.cookies = cookieCheck{stage: cookiesPending, irs: s.Seq, peer: fingerprint(s)}
		} else {
			out.observe(Observation{Kind: PeerSeen, Peer: fingerprint(s)})
		}
		if c.Kind != HalfOpen {
			c.establish(now, s, rtt, out)
			return
		}
		c.settle(OK, out)
	}
	c.awaitReset(now, out)
}

// furtherSYNACK handles a SYN-ACK after the first. Our kernel resets each, and
// so do we where it does not: also one with another ISN, which a listener makes
// of a second copy of our SYN after the RST to the first.
func (c *Conversation) furtherSYNACK(now Instant, s *Segment, out *Output) {
	if s.Seq == c.irs {
		out.Note = NoteSYNACKDuplicate
		out.observe(Observation{Kind: SYNACKDuplicate})
	} else {
		out.reject(RejectBadSequence, NoteBadSYNACK)
	}
	switch c.phase {
	case reopening, lingering, insisting:
		c.awaitReset(now, out)
	}
}

// awaitReset waits for our kernel's RST to be seen leaving; from a guarded
// port there is none, so ours goes at once. A host that has let none out so far is not asked
// more often for that.
func (c *Conversation) awaitReset(now Instant, out *Output) {
	if c.resets < maxResets || c.peer == Listen {
		c.resets = 0
	}
	c.peer = SynReceived
	if c.ResetGrace == 0 {
		out.send(c.reset())
		c.wait(resetting, now.Add(resetRetry))
		return
	}
	c.wait(resetting, now.Add(c.ResetGrace))
}

// fingerprint reads what a SYN-ACK tells about its sender.
func fingerprint(s *Segment) Fingerprint {
	o := &s.Options
	f := Fingerprint{
		TTL:         s.TTL,
		WindowScale: -1,
		SACK:        o.Has(OptSACKPermitted),
		Timestamps:  o.Has(OptTimestamps),
		ECN:         s.Flags.Has(ECE) && !s.Flags.Has(CWR),
		Window:      s.Window,
	}
	if o.Has(OptMSS) {
		f.MSS = o.MSS
	}
	if o.Has(OptWindowScale) {
		f.WindowScale = int8(min(o.WindowScale, 127))
	}
	return f
}
