package probe

import "math"

// connectionArrives is SEGMENT ARRIVES of RFC 9293 §3.10.7.4 for the
// synchronized states, with RFC 5961's and RFC 7323's stricter checks.
func (c *Conversation) connectionArrives(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	if !c.settled && c.late(now, ev.Stamp) {
		if c.waitsOn(now); c.late(now, ev.Stamp) {
			c.tooLate(now, s, out)
			return
		}
	}
	if s.Flags.Has(SYN|ACK) && !s.Flags.Has(RST) && s.Seq == c.irs && s.Ack == c.iss.Add(1) {
		c.synAckAgain(now, ev.Stamp, out)
		return
	}
	// RFC 7323 §5.3 R1: "If there is a Timestamps option in the arriving segment,
	// SEG.TSval < TS.Recent, … and the RST bit is not set: treat the arriving
	// segment as not acceptable".
	if k.timestamps && !s.Flags.Has(RST) {
		switch {
		case !s.Options.Has(OptTimestamps):
			out.reject(RejectBadTimestamp, NoteNoTimestamp) // §3.2: it "SHOULD" be dropped
			return
		case int32(s.Options.TSVal-k.tsRecent) < 0:
			out.reject(RejectBadTimestamp, NotePAWS)
			c.challenge(now, out)
			return
		}
	}
	if !c.acceptable(s) {
		c.unacceptable(now, ev, out)
		return
	}
	switch {
	case s.Flags.Has(RST):
		c.connectionReset(now, ev, out)
	case s.Flags.Has(SYN):
		// RFC 5961 §4.2: "If the SYN bit is set, irrespective of the sequence
		// number, TCP MUST send an ACK (also referred to as challenge ACK)".
		out.reject(RejectUnexpected, NoteUnexpected)
		c.challenge(now, out)
	case !s.Flags.Has(ACK):
		out.reject(RejectNoACK, NoteUnexpected) // "if the ACK bit is off, drop the segment and return"
	case !c.acknowledges(s):
		// "If the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send
		// an ACK, drop the segment, and return".
		out.reject(RejectBadACK, NoteBadACK)
		c.challenge(now, out)
	case ev.Fragment:
		// How much it says the others tell, which the tap does not take. To acknowledge
		// what is here would have the peer send the rest again and again.
		c.countHalfClose(out)
		c.discard(now, DiscardTapDrop, out)
		c.part(now, out)
		out.Note = NoteFragment
	default:
		// R3: "If an arriving segment satisfies SEG.TSval >= TS.Recent and SEG.SEQ
		// <= Last.ACK.sent, then record SEG.TSval in TS.Recent." Not before its ACK
		// has passed: who guesses a sequence number of the window would make all that
		// the peer sends look old.
		if k.timestamps && s.Seq.LessEq(k.lastACK) {
			k.tsRecent = s.Options.TSVal
		}
		neither, ahead := !k.finAcked && !k.finCame, k.gaps.n > 0
		c.takeACK(now, ev, out)
		c.takeText(now, ev, out)
		if neither && k.finAcked && k.finCame {
			k.threeWay = true
		}
		c.takeFIN(now, ev, out)
		c.answer(now, s, ahead, out)
	}
}

// tooLate handles what comes after the timeout, by its stamp: only the timer
// has not gone off yet. A RST that the peer means leaves nothing to reset, and
// another is not answered.
func (c *Conversation) tooLate(now Instant, s *Segment, out *Output) {
	switch {
	case !s.Flags.Has(RST):
		c.giveUp(now, out)
	case s.Seq == c.rcvNxt:
		c.conclude(now, out)
		c.peer, c.local = Closed, Closed
		out.Note = NoteTimeout
		c.wait(lingering, now.Add(c.Linger))
	default:
		out.reject(RejectBadSequence, NoteBadRST)
	}
}

// acceptable is §3.10.7.4's first check, with RCV.WND above 0.
func (c *Conversation) acceptable(s *Segment) bool {
	in := func(q Seq) bool { return c.rcvNxt.LessEq(q) && q.Less(c.rcvNxt.Add(c.conn.rcvWnd)) }
	n := s.SegLen()
	return in(s.Seq) || n > 0 && in(s.Seq.Add(n-1))
}

// acknowledges reports whether SEG.ACK is of a segment that there was: RFC 5961 §5.2's
// check, "((SND.UNA - MAX.SND.WND) =< SEG.ACK =< SND.NXT)", with nothing before ISS+1 let
// through, since we have sent nothing before. Of four milliards of numbers a stranger
// must guess one of a few, besides a sequence number.
func (c *Conversation) acknowledges(s *Segment) bool {
	first := c.FirstOctet()
	return uint32(s.Ack.Sub(first)) <= uint32(c.sndNxt.Sub(first))
}

// came reports whether all of a segment lies in what has arrived, or before by the one
// octet that a keep-alive goes back (RFC 9293 §3.8.4).
func (c *Conversation) came(s *Segment) bool {
	behind := uint32(c.rcvNxt.Sub(s.Seq))
	return s.SegLen() <= behind && behind <= min(c.conn.received, maxReceived)+2
}

// maxReceived bounds how far behind a segment may lie that is still the peer's.
const maxReceived = 1 << 30

// unacceptable answers a segment outside the window: "an acknowledgment should
// be sent in reply (unless the RST bit is set, if so drop the segment and
// return): <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>". A FIN that comes again says
// that our ACK was lost.
func (c *Conversation) unacceptable(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	known := s.Flags.Has(ACK) && c.acknowledges(s)
	switch {
	case s.Flags.Has(RST):
		out.reject(RejectBadSequence, NoteBadRST)
	case s.Flags.Has(SYN):
		out.reject(RejectUnexpected, NoteUnexpected)
		c.challenge(now, out)
	case known && s.Flags.Has(FIN) && k.finTaken && s.End() == c.rcvNxt:
		c.peerFINAgain(now, ev.Stamp, out)
		out.Note = NotePeerFINAgain
		if c.takeOldACK(now, ev, out); c.local != Closed && c.mayAnswer(now) {
			out.send(c.ack(now))
		}
	case known && c.came(s):
		// All of it has come before, so that our ACK may have been lost.
		out.Note = NoteOld
		c.takeOldACK(now, ev, out)
		switch {
		case c.local == Closed: // an ACK would restart the peer's TIME-WAIT
		case s.SegLen() == 0:
			c.challenge(now, out)
		case c.mayAnswer(now):
			out.send(c.ack(now))
		}
	default:
		out.reject(RejectBadSequence, NoteOutOfWindow)
		c.challenge(now, out)
	}
}

// takeOldACK takes the acknowledgement of a segment that brings nothing else
// new: a peer that has no more to say acknowledges our FIN by it.
func (c *Conversation) takeOldACK(now Instant, ev *Event, out *Output) {
	// Of two numbers 2³¹ apart each comes before the other: so by distance.
	s := &ev.Segment
	if n := uint32(s.Ack.Sub(c.conn.sndUna)); s.Flags.Has(ACK) && n > 0 && n <= c.inFlight() {
		c.takeACK(now, ev, out)
	}
}

// challenge sends an ACK that tells where we are, within RFC 5961 §7's limit. It is nobody's
// who waits for one, and may not go: what is owed stays owed.
func (c *Conversation) challenge(now Instant, out *Output) {
	if k := &c.conn; now >= k.challengeAt {
		k.challengeAt, k.ackTwice = now.Add(challengeEvery), true
		owed, at, last := k.ackOwed, k.ackAt, k.lastACK
		out.send(c.ack(now))
		k.ackOwed, k.ackAt, k.lastACK = owed, at, last
	}
}

// synAckAgain handles the SYN-ACK that comes again: our ACK was lost, or the
// peer has dropped it, as one whose accept queue is full does (net/ipv4/
// tcp_minisocks.c, tcp_check_req). Only what follows tells.
func (c *Conversation) synAckAgain(now Instant, stamp Stamp, out *Output) {
	k := &c.conn
	out.Note, k.ackTwice = NoteSYNACKDuplicate, true
	if !k.ackLeft && c.waited(now, stamp, resendsAfter) {
		out.send(c.ack(now)) // it had no ACK of ours yet, and says nothing by this
		return
	}
	out.observe(Observation{Kind: SYNACKDuplicate})
	d, ok := c.interval(now, c.synAckGot, stamp)
	if !k.progress && (!ok || d >= resendsAfter) {
		k.synAcks = min(k.synAcks+1, 250)
		if !ok || d >= k.handshake { // else it had left before our ACK can have come, and says nothing of it
			k.unheard, k.synAckAt = min(k.unheard+1, 250), now
			c.peer = SynReceived
		}
	}
	if c.mayAnswer(now) {
		out.send(c.ack(now))
	}
}

// takeACK is §3.10.7.4's fifth check.
func (c *Conversation) takeACK(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	// A bare ACK of our SYN proves nothing: Linux in SYN-RECEIVED answers by it what
	// is not in its window (net/ipv4/tcp_minisocks.c, tcp_check_req).
	if s.SegLen() > 0 || s.Ack != c.iss.Add(1) {
		c.progressed()
	}
	moves := k.sndUna.Less(s.Ack)
	if moves {
		c.acknowledged(now, s.Ack, out)
	}
	// "If SND.UNA =< SEG.ACK =< SND.NXT, the send window should be updated."
	if k.sndUna.LessEq(s.Ack) && (k.sndWL1.Less(s.Seq) || k.sndWL1 == s.Seq && k.sndWL2.LessEq(s.Ack)) {
		closed := k.sndWnd == 0
		k.sndWnd = uint32(s.Window) << k.sndShift
		k.maxSndWnd = max(k.maxSndWnd, k.sndWnd)
		k.sndWL1, k.sndWL2 = s.Seq, s.Ack
		if closed && !moves && k.sndWnd > 0 && c.inFlight() > 0 {
			c.sendAgain(now, out) // the window's probe was not taken
		}
	}
	if k.finTimes > 0 && !k.finAcked && k.sndUna == c.sndNxt {
		c.finAcknowledged(now, ev, out)
	}
	if c.local == Established || c.local == CloseWait {
		c.proceed(now, out)
	}
}

// progressed notes that the peer is past SYN-RECEIVED.
func (c *Conversation) progressed() {
	c.conn.progress = true
	if c.peer == SynReceived {
		c.peer = Established
	}
}

// finAcknowledged is our FIN's acknowledgement: FIN-WAIT-1 to FIN-WAIT-2,
// CLOSING to TIME-WAIT, LAST-ACK to CLOSED.
func (c *Conversation) finAcknowledged(now Instant, ev *Event, out *Output) {
	k := &c.conn
	k.finAcked, k.finAckGot = true, ev.Stamp
	if out.Note == NoteNone || out.Note == NoteDelayedACK {
		out.Note = NoteFINAcked
	}
	rtt := FINACKRTT
	if c.local == LastAck {
		rtt = LastACKRTT
	}
	d, ok := c.interval(now, k.finSent, ev.Stamp)
	// A peer has no use for a FIN before what goes before it.
	once := k.finTimes == 1 && k.finLeft && !k.finAlone && !k.crowded
	if c.local == FinWait1 && c.promptness(d, ok && once, ev.Segment.Flags.Has(FIN)) {
		out.Note = NoteDelayedACK
	} else if ok && once && (rtt == FINACKRTT || c.Kind != ActiveClose) {
		c.measured(Observation{Kind: rtt, Duration: d}, out)
	}
	switch c.local {
	case FinWait1:
		c.local = FinWait2
		if !k.finCame {
			c.peer = CloseWait
		}
	case Closing, LastAck:
		c.peer = TimeWait
		c.finish(now, ev.Stamp, ev.Stamp, out)
	}
}

// takeText is the seventh check: the segment's octets are counted, in order or
// ahead of their turn.
func (c *Conversation) takeText(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	if s.SegLen() == 0 {
		return
	}
	if c.local != Established && c.local != FinWait1 && c.local != FinWait2 {
		return // "This should not occur, since a FIN has been received from the remote side."
	}
	k.ackOwed = true
	from, to := s.Seq, s.Seq.Add(s.Len)
	end := c.rcvNxt.Add(k.rcvWnd)
	fin := s.Flags.Has(FIN)
	if end.Less(to) {
		to, fin = end, false
	}
	if k.finCame && k.theirFIN.Less(to) {
		to = k.theirFIN // it said that nothing comes after
	}
	switch {
	case !fin:
	case k.finCame:
		if !c.waited(now, ev.Stamp, impatience) { // else it had no word of ours that this has come
			out.observe(Observation{Kind: FINRetransmit, Side: Peer})
		}
	default:
		k.finCame, k.theirFIN, k.finGot = true, to, ev.Stamp
		k.crossed = k.finTimes > 0 && s.Ack.LessEq(k.dataEnd)
	}
	if from.Less(c.rcvNxt) {
		from = c.rcvNxt
	}
	if !from.Less(to) {
		if fin && k.theirFIN != c.rcvNxt && out.Note == NoteNone {
			out.Note = NoteAhead
		}
		return
	}
	was := c.rcvNxt
	c.rcvNxt = k.gaps.add(c.rcvNxt, from, to)
	if n := uint32(c.rcvNxt.Sub(was)); n > 0 {
		k.received, k.textGot = sum(k.received, n), ev.Stamp
		if k.finTimes > 0 {
			k.halfClose = sum(k.halfClose, n)
		}
		if out.Note == NoteNone {
			out.Note = NoteData
		}
	} else {
		out.Note = NoteAhead
	}
}

// sum adds octets, up to what there is room for.
func sum(a, b uint32) uint32 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint32
}

// takeFIN is the eighth check, once the FIN is next in order: "advance RCV.NXT
// over the FIN, and send an acknowledgment for the FIN".
func (c *Conversation) takeFIN(now Instant, ev *Event, out *Output) {
	k := &c.conn
	if !k.finCame || k.finTaken || k.theirFIN != c.rcvNxt {
		return
	}
	k.finTaken, k.ackOwed = true, true
	k.finWhole = ev.Stamp
	c.rcvNxt = c.rcvNxt.Add(1)
	out.Note = NotePeerFIN
	switch c.local {
	case Established:
		c.peerCloses(now, out)
	case FinWait1:
		c.local, k.simultan = Closing, true
		c.peer = FinWait1
	case FinWait2:
		c.peer = LastAck
		if k.crossed {
			c.peer = Closing
		}
		// A FIN that does not acknowledge ours was sent before ours came: it is no
		// answer of an application's, even if an acknowledgement has overtaken it.
		if d, ok := c.interval(now, k.finAckGot, k.finGot); ok && !k.delayed && !k.crossed && !c.slowed(now, k.lag.closing, k.finGot) {
			c.closedAfter(d)
			c.measured(Observation{Kind: CloseWaitTime, Duration: d}, out)
		}
		last := k.finGot
		if d, ok := last.Sub(k.finAckGot); ok && d < 0 { // what goes before its FIN came after its acknowledgement of ours
			last = k.finAckGot
		}
		c.finish(now, last, ev.Stamp, out)
	}
}

// peerCloses is the peer's FIN in ESTABLISHED: enter CLOSE-WAIT, and since
// nobody here has anything more to say, CLOSE.
func (c *Conversation) peerCloses(now Instant, out *Output) {
	k := &c.conn
	c.local, c.peer = CloseWait, FinWait1
	if c.Kind != ActiveClose {
		// Which of two sendings the peer got is not known (Karn's algorithm).
		from, once := k.ackSent, k.synAcks == 0
		if c.Send > 0 {
			from, once = k.lastSent, !k.dataAgain
		}
		if d, ok := c.interval(now, from, k.finGot); ok && once && !c.slowed(now, k.lag.late, k.finGot) {
			c.measured(Observation{Kind: PeerCloseTime, Duration: d}, out)
		}
	}
	k.finAsked, k.closeAt = true, 0
	if c.Combined && c.sndNxt == k.dataEnd {
		k.threeWay = true
	} else {
		out.send(c.ack(now))
	}
	c.transmit(now, out)
}

// answer acknowledges what came, if no segment did on the way: at once what is
// out of order or fills a gap (RFC 5681 §4.2), and an eighth of what has come, or of the window:
// a peer in slow start sends as much more as we acknowledge, and then waits (RFC 5681 §3.1).
// So is the end of what there was to send (PSH), once each ackDelay: who trickles never waits.
func (c *Conversation) answer(now Instant, s *Segment, ahead bool, out *Output) {
	k := &c.conn
	if !k.ackOwed {
		return
	}
	ahead = (ahead || k.gaps.n > 0) && k.ahead < aheadACKs
	if ahead {
		k.ahead++
	}
	// A FIN is taken when all before it has come; one that waits is just out of order.
	fresh := uint32(c.rcvNxt.Sub(k.lastACK)) // 0 of what fits nowhere
	few := k.crowded || fresh == 0 || fresh < min(k.received, k.rcvWnd)/8
	pushed := s.Flags.Has(PSH) && fresh > 0 && now >= k.pushedAt
	if pushed {
		k.pushedAt = now.Add(ackDelay)
	}
	if k.quick == 0 && few && !pushed && !ahead && !k.finTaken {
		if k.ackAt == 0 {
			k.ackAt = now.Add(ackDelay)
		}
		return
	}
	if k.quick > 0 {
		k.quick--
	}
	out.send(c.ack(now))
}

// connectionReset is §3.10.7.4's second check by RFC 5961 §3.2: "If the RST bit
// is set and the sequence number exactly matches the next expected sequence
// number (RCV.NXT), then TCP MUST reset the connection"; one that is merely in
// the window gets a challenge ACK.
func (c *Conversation) connectionReset(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	if s.Seq != c.rcvNxt {
		out.reject(RejectBadSequence, NoteBadRST)
		c.challenge(now, out)
		return
	}
	if c.askedFor(now, ev) {
		out.Note = NotePromptReset
		return
	}
	c.peer, c.local = Closed, Closed
	out.Note = NoteReset
	c.countHalfClose(out)
	switch {
	case c.settled:
	case c.ours(now, ev.Stamp):
		c.discard(now, DiscardStalled, out)
	default:
		c.settle(Reset, out)
	}
	c.wait(lingering, now.Add(c.Linger))
}
