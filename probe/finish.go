package probe

import "time"

// finish is the end of a connection whose both directions are closed: TIME-WAIT
// here if we were the first to close, else CLOSED. got is the stamp of the
// segment that brought it, and end that of the last which had to come for it.
func (c *Conversation) finish(now Instant, got, end Stamp, out *Output) {
	k := &c.conn
	k.finished, k.retransmitAt, k.closeAt, k.ackAt = true, 0, 0, 0
	c.countHalfClose(out)
	passive := c.local == LastAck
	if passive {
		c.local = Closed
		c.tearDown(now, k.finGot, got, out)
	} else {
		c.local = TimeWait
		if k.simultan || k.crossed {
			c.tearDown(now, k.finSent, got, out)
		}
	}
	switch {
	case c.settled:
	case c.overran(now, end):
		c.discard(now, DiscardStalled, out)
	case passive && c.Kind == TimeWaitProbe:
		c.measureTimeWait(now, got)
		return
	default:
		c.settle(OK, out)
	}
	c.wait(lingering, now.Add(c.Linger))
	if c.OwesACK() {
		k.retransmitAt = now.Add(partAgain)
	}
}

// OwesACK reports whether the conversation lingers in TIME-WAIT, and the peer may be in
// LAST-ACK for want of our acknowledgement, which was not seen leaving.
func (c *Conversation) OwesACK() bool {
	return c.local == TimeWait && (!c.conn.finAnswered || c.conn.ackKept)
}

// ackDue is when that goes again; 0: never.
func (c *Conversation) ackDue() Instant {
	if !c.OwesACK() {
		return 0
	}
	return c.conn.retransmitAt
}

// ackAgain acknowledges the peer's FIN again that this host let no acknowledgement of out,
// and goes on so for as long as with a RST: the peer repeats its FIN ever more seldom.
func (c *Conversation) ackAgain(now Instant, out *Output) {
	k := &c.conn
	k.retransmitAt = 0
	out.Note = NoteRetransmit
	out.send(c.ack(now))
	c.wait(lingering, max(c.deadline, now.Add(c.Linger)))
	if k.partings++; k.partings < maxPartings {
		k.retransmitAt = now.Add(partAgain << min(k.partings, maxDoubled))
		c.deadline = max(c.deadline, k.retransmitAt.Add(partAgain))
	}
}

// countHalfClose tells what came after our FIN, whatever became of the connection.
func (c *Conversation) countHalfClose(out *Output) {
	if k := &c.conn; k.halfClose > 0 {
		c.measured(Observation{Kind: HalfCloseOctets, Octets: k.halfClose}, out)
		k.halfClose = 0
	}
}

// form is how the connection was torn down.
func (c *Conversation) form() Form {
	k := &c.conn
	switch {
	case k.simultan || k.crossed:
		return Simultaneous
	case k.threeWay:
		return ThreeWay
	}
	return FourWay
}

// ownShare is how long our answer to the peer's FIN may take: beyond that the teardown
// is rather our loop's or our host's queue's.
const ownShare = 50 * time.Millisecond

// tearDown observes the whole of it, from the first FIN to the last ACK.
func (c *Conversation) tearDown(now Instant, from, to Stamp, out *Output) {
	k := &c.conn
	if k.tornDown {
		return
	}
	k.tornDown = true
	if answered := k.finSent; !k.simultan && !k.crossed && k.finWhole == k.finGot {
		if c.local == TimeWait {
			answered = to
		}
		d, ok := c.interval(now, k.finGot, answered)
		k.kept = k.kept || ok && d > ownShare
	}
	o := Observation{Kind: Teardown, Form: c.form(), Duration: -1}
	if d, ok := c.interval(now, from, to); ok && !k.kept && !k.lag.closing && !k.crowded {
		o.Duration = d
	}
	c.measured(o, out)
}

// measured makes an observation that lost frames would have made wrong.
func (c *Conversation) measured(o Observation, out *Output) {
	if !c.spoiled {
		out.observe(o)
	}
}

// giveUp is the USER TIMEOUT: the verdict is what was waited for, and the peer
// is left with nothing open.
func (c *Conversation) giveUp(now Instant, out *Output) {
	c.conclude(now, out)
	c.part(now, out)
	out.Note = NoteTimeout
}

// conclude makes the verdict of a connection that runs out of time, if there is
// none yet.
func (c *Conversation) conclude(now Instant, out *Output) {
	c.countHalfClose(out)
	k := &c.conn
	l := &k.lag
	unsent := c.unsent(now)
	// It was too late to send anything: the loop did not run.
	late := l.since.Wall != 0 && (now.Sub(l.read) < tardy || l.kept == 0 && now.Sub(c.deadline) >= tardy)
	// What would have come if we had not kept it waiting nobody knows.
	waits := k.excused && (c.inFlight() > 0 || l.since.Wall != 0)
	switch {
	case c.settled:
	case waits, unsent && late, !unsent && (l.total > c.Timeout || l.total > 0 && c.finIsYoung(now) || l.total >= beginsAgain && c.talks(now)):
		c.settled = true
		out.observe(Observation{Kind: Discarded, Discard: DiscardStalled})
	case unsent:
		c.settled = true
		out.observe(Observation{Kind: Discarded, Discard: DiscardSendError})
	default:
		c.settle(c.awaited(now), out)
	}
}

// finIsYoung reports whether our FIN, which answers the peer's, left so late that its
// acknowledgement could not have come in time. A peer that we have let wait closes later than by
// what we took, which is all that its time was lengthened by: it may have begun again with a small
// window (RFC 5681 §4.1). That it does not acknowledge what it cannot have heard is no fault.
func (c *Conversation) finIsYoung(now Instant) bool {
	k := &c.conn
	d, ok := c.interval(now, c.synSent, k.finSent)
	return c.local == LastAck && k.finLeft && k.sndUna == k.dataEnd && ok && d+k.handshake+delayedACK > c.Timeout+c.grace()
}

// beginsAgain is for how long a peer must have waited to begin again with a small window: Linux's
// least retransmission timeout (TCP_RTO_MIN).
const beginsAgain = 200 * time.Millisecond

// talks reports whether the peer had octets for us within the last round trip of its time. One
// that we have let wait so long is not through with them yet, but might be.
func (c *Conversation) talks(now Instant) bool {
	k := &c.conn
	d, ok := c.interval(now, c.synSent, k.textGot)
	return !k.finTaken && ok && d+k.handshake+delayedACK > c.Timeout+c.grace()
}

// unsent reports whether a segment that the peer should have answered did not leave
// this host, or not when it was sent first, or that nothing has left since the peer spoke
// last. What did not leave at first explains nothing any more once the peer has
// acknowledged all that there was.
func (c *Conversation) unsent(now Instant) bool {
	k := &c.conn
	l := &k.lag
	switch {
	case l.kept != 0 && now.Sub(l.kept) > tardy, l.since.Wall != 0 && now.Sub(l.read) >= longWait:
		return true
	case !k.progress && (k.kept || !k.ackLeft), c.inFlight() > 0 && (k.silenced || k.left.LessEq(k.sndUna)):
		return true
	}
	return k.finTimes > 0 && !k.finLeft
}

// awaited names what a connection that runs out of time has waited for.
func (c *Conversation) awaited(now Instant) Reason {
	k := &c.conn
	switch {
	case k.icmp != OK:
		return k.icmp
	case c.queueFull(now):
		return AcceptQueueFull
	case k.finCame && !k.finTaken:
		return Timeout // what the peer sent before its FIN is lost
	}
	switch c.local {
	case FinWait1, Closing, LastAck:
		return FINUnacked
	case FinWait2:
		return FINMissing
	case Established:
		if c.Kind != ActiveClose && c.sndNxt == k.dataEnd && c.inFlight() == 0 {
			return PeerNeverClosed
		}
	}
	return Timeout
}

// resendsWithin is how long after the first SYN-ACK that came again the next is due
// at the latest: Linux sends it at 1, 3 and 7 s, and the second may be lost.
const resendsWithin = 7 * time.Second

// queueFull reports whether the peer's SYN-ACKs and silence say that it drops what
// we send. One SYN-ACK more is also what follows a lost ACK: but then whatever we
// sent behind the ACK would have been answered, and if that was nothing, the peer
// would have taken the ACK that answered the SYN-ACK, and be silent from there on.
func (c *Conversation) queueFull(now Instant) bool {
	k := &c.conn
	return !k.progress && k.unheard > 0 && (k.unheard > 1 || c.inFlight() > 0 || now.Sub(k.synAckAt) < resendsWithin)
}

// partAgain is how long after our RST another goes: the first may be lost, and
// nobody acknowledges it.
const partAgain = 250 * time.Millisecond

// part resets the peer.
func (c *Conversation) part(now Instant, out *Output) {
	c.sendResets(out)
	c.local = Closed
	c.wait(parting, now.Add(partAgain))
}

// partingSeqs are the sequence numbers of which one is the peer's RCV.NXT: whether it
// got what we sent last is not known, and what did not leave it has not got.
func (c *Conversation) partingSeqs() (all [4]Seq, n int) {
	k := &c.conn
	all[0], n = c.sndNxt, 1
	if k.sndUna == c.sndNxt {
		return all, n
	}
	all[1], n = k.sndUna, 2
	if k.finTimes > 0 && k.sndUna.Less(k.dataEnd) {
		all[n] = k.dataEnd
		n++
	}
	if k.left != c.sndNxt && k.left != k.sndUna && k.left != k.dataEnd {
		all[n] = k.left
		n++
	}
	return all, n
}

// sendResets sends a RST for each sequence number that may be the peer's
// RCV.NXT: it accepts the one that is (RFC 5961 §3.2).
func (c *Conversation) sendResets(out *Output) {
	all, n := c.partingSeqs()
	for _, seq := range all[:n] {
		out.send(Segment{Seq: seq, Flags: RST})
	}
}

// partingSent notes a RST that was seen leaving. The peer is closed by all of those that
// sendResets sends, one of which it takes, or by one that answers what it said; any other it
// answers by a challenge ACK (RFC 5961 §3.2), and keeps the connection. One that
// went before more of ours has left may be neither.
func (c *Conversation) partingSent(seq Seq) {
	k := &c.conn
	all, n := c.partingSeqs()
	every := uint8(1)<<n - 1
	which := uint8(0)
	if k.answers > 0 {
		which = every
	}
	for i, one := range all[:n] {
		if one == seq {
			which = 1 << i
		}
	}
	if k.partingLeft |= which; k.partingLeft == every {
		c.peer = Closed
	}
}

// partingsLeft reports whether all of them were seen leaving that went last.
func (c *Conversation) partingsLeft() bool {
	_, n := c.partingSeqs()
	return c.conn.partingLeft == 1<<n-1
}

// maxPartings bounds how often RSTs go that this host does not let out: for two
// minutes, since partAgain doubles, five times; longer where the limits have no room for them.
const maxPartings, maxDoubled = 20, 5

// partedAfter is how often the RSTs have gone again for a four-tuple to be given up if
// there is no other.
const partedAfter = 2

// Parted reports whether all that is left is to reset a peer again whom our RSTs, which
// this host does not let out, have not reached so far.
func (c *Conversation) Parted() bool { return c.phase == parting && c.conn.partings >= partedAfter }

// Connected reports whether the connection runs its course.
func (c *Conversation) Connected() bool { return c.phase == connected }

// Measures reports whether the peer's TIME-WAIT is measured.
func (c *Conversation) Measures() bool { return c.phase == measuring }

// Pending reports whether the connection has something to send yet, whatever the peer does.
func (c *Conversation) Pending() bool {
	return c.phase == connected && (c.inFlight() > 0 || c.sndNxt.Less(c.conn.dataEnd) || c.conn.ackAt != 0)
}

// Parts reports whether the peer was reset, and is to be once more.
func (c *Conversation) Parts() bool { return c.phase == parting }

// Resets is how many RSTs that takes.
func (c *Conversation) Resets() int {
	if !c.established {
		return 1
	}
	_, n := c.partingSeqs()
	return n
}

// partingTimeout sends the RSTs once more, and lingers. A host that has lost its
// interface, address or route lets none out: until they were seen leaving they go again,
// lest the peer keep the connection for ever.
func (c *Conversation) partingTimeout(now Instant, out *Output) {
	k := &c.conn
	if !k.gone {
		out.Note = NoteResetAgain
		c.sendResets(out)
		if k.partings++; c.peer != Closed && k.partings < maxPartings {
			c.wait(parting, now.Add(partAgain<<min(k.partings, maxDoubled)))
			return
		}
		if c.peer == Closed && (c.silent() || k.partings > 1) {
			k.partings, k.partingLeft = 0, 0
			c.wait(insisting, now.Add(insistAgain))
			return
		}
	}
	c.wait(lingering, now.Add(c.Linger))
}

// insistAgain is how long after the second RST to a silent peer the third goes, and four
// times that until the fourth: a path that is broken for a few seconds takes the first
// two from a peer who, with nothing to send, would keep the connection for ever. Likewise where
// this host did not let the first out at once: it may still take its neighbour to be where that
// was. After it
// goes the first RST to a peer in SYN-RECEIVED that this host has let none out to, and
// after twice the time each that follows.
const insistAgain = time.Second

// maxInsists bounds how often a RST goes again to a peer in SYN-RECEIVED that this host lets
// none out to: five times, until Linux forgets the connection, 64 s after its first SYN-ACK.
const maxInsists = 5

// insistingTimeout sends the RSTs again: twice after a connection, and as often besides as
// this host did not let them out; and until one was seen leaving to a peer that has none.
func (c *Conversation) insistingTimeout(now Instant, out *Output) {
	k := &c.conn
	switch {
	case !c.established:
		c.insist(out)
		c.resets++
		c.insistOn(now)
		return
	case !k.gone:
		if c.partingsLeft() || k.withheld == maxPartings {
			k.partings++
		} else {
			k.withheld++
		}
		c.insist(out)
		if k.partings < 2 {
			c.wait(insisting, now.Add(4*insistAgain))
			return
		}
	}
	c.wait(lingering, now.Add(c.Linger))
}

// insistOn waits for as long as a peer in SYN-RECEIVED is to be reset again.
func (c *Conversation) insistOn(now Instant) {
	if n := c.resets - maxResets; n < maxInsists {
		c.wait(insisting, now.Add(insistAgain<<n))
	} else {
		c.wait(lingering, now.Add(c.Linger))
	}
}

// insist resets a peer again.
func (c *Conversation) insist(out *Output) {
	out.Note = NoteResetAgain
	if c.established {
		c.conn.partingLeft = 0
		c.sendResets(out)
	} else {
		out.send(c.reset())
	}
}

// silent reports whether the peer owed us an acknowledgement when the connection ran out of
// time. One in SYN-RECEIVED, as its SYN-ACKs said, gives the connection up by itself.
func (c *Conversation) silent() bool {
	k := &c.conn
	return !k.aborted && c.inFlight() > 0 && (k.progress || k.unheard == 0)
}

// freeAnswers is how often a closed connection answers at once.
const freeAnswers = 8

// closedArrives is SEGMENT ARRIVES after the connection was reset, as in CLOSED
// (RFC 9293 §3.10.7.1): "If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>": what the
// peer acknowledges is its RCV.NXT, so that it must accept that. After a close
// on both sides there is nothing to reset, and a RST would only take the peer's
// TIME-WAIT from it.
func (c *Conversation) closedArrives(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	if out.Note == NoteNone {
		out.Note = NoteAfter
	}
	switch {
	case c.answersTouch(s):
		if !s.Flags.Has(RST) {
			c.answerReset(now, s, out)
		}
	case s.Flags.Has(RST):
		switch {
		case s.Seq == c.rcvNxt:
			c.peer, k.gone = Closed, true
		case !c.acceptable(s): // what it sent before its RST, its FIN too, may not have been taken
			out.reject(RejectBadSequence, NoteBadRST)
		}
	case !s.Flags.Has(ACK):
		out.reject(RejectNoACK, NoteUnexpected)
	case k.finished && !c.acknowledges(s), !k.finished && (s.Ack.Less(k.sndUna) || c.sndNxt.Less(s.Ack)):
		out.reject(RejectBadACK, NoteBadACK)
	case !k.finished:
		c.answerReset(now, s, out)
	case s.Seq != c.rcvNxt && !c.came(s):
		out.reject(RejectBadSequence, NoteOutOfWindow)
	}
}

// answerReset is the RST that a segment with an ACK bit gets from CLOSED.
func (c *Conversation) answerReset(now Instant, s *Segment, out *Output) {
	if c.mayAnswer(now) {
		out.send(Segment{Seq: s.Ack, Flags: RST})
	}
}

// mayAnswer bounds the answers to what comes after the end: the first are free, the
// others no more often than challenge ACKs.
func (c *Conversation) mayAnswer(now Instant) bool {
	k := &c.conn
	if k.answers < freeAnswers {
		k.answers++
		return true
	}
	if now < k.challengeAt {
		return false
	}
	k.challengeAt = now.Add(challengeEvery)
	return true
}

// timeWaitArrives is SEGMENT ARRIVES in our TIME-WAIT: "The only thing that can
// arrive in this state is a retransmission of the remote FIN. Acknowledge it,
// and restart the 2 MSL timeout" (RFC 9293 §3.10.7.4, eighth check). A peer that
// has not heard of our acknowledgements begins with its data.
//
// What is not the peer's gets no answer: it has closed, so that nothing depends on one,
// and there are many of us in this state for whoever wants them all to speak.
func (c *Conversation) timeWaitArrives(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	switch {
	case s.Flags.Has(RST):
		if s.Seq == c.rcvNxt {
			c.peer, out.Note = Closed, NoteAfter
			c.conn.finAnswered, c.conn.ackKept, c.conn.retransmitAt = true, false, 0
		} else {
			out.reject(RejectBadSequence, NoteBadRST)
		}
	case s.Flags.Has(SYN):
		out.reject(RejectUnexpected, NoteUnexpected)
	case !s.Flags.Has(ACK):
		out.reject(RejectNoACK, NoteUnexpected)
	case !c.acknowledges(s):
		out.reject(RejectBadACK, NoteBadACK)
	case s.SegLen() > 0 && c.came(s):
		out.Note = NoteOld
		if s.Flags.Has(FIN) && s.End() == c.rcvNxt {
			c.peerFINAgain(now, ev.Stamp, out)
			out.Note = NotePeerFINAgain
			if d, ok := c.interval(now, c.conn.finWhole, ev.Stamp); !ok || d >= impatience { // else it is a copy
				c.conn.kept = c.conn.kept || !c.conn.tornDown // our ACK was not seen leaving
			}
		}
		if c.mayAnswer(now) {
			out.send(c.ack(now))
			c.conn.ackKept = true
			c.conn.retransmitAt = now.Add(partAgain << min(c.conn.partings, maxDoubled))
		}
		c.wait(lingering, max(now.Add(c.Linger), c.conn.retransmitAt.Add(partAgain)))
	case c.came(s): // an ACK that its FIN has overtaken wants none
		out.Note = NoteAfter
	case s.Seq == c.rcvNxt:
		// "If an incoming segment is not acceptable, an acknowledgment should be
		// sent in reply" (first check), and data behind a FIN is not.
		out.Note = NoteAfter
		if s.SegLen() > 0 && c.mayAnswer(now) {
			out.send(c.ack(now))
		}
	default:
		out.reject(RejectBadSequence, NoteOutOfWindow)
	}
}

// connectionSent takes the kernel's word that a segment of ours left. Of a
// segment that is seen more than once the last stamp is nearest to the wire.
func (c *Conversation) connectionSent(now Instant, ev *Event, out *Output) {
	s, k := &ev.Segment, &c.conn
	c.answers(now, s, ev.Stamp)
	switch {
	case s.Flags.Has(RST):
		out.Note = NoteResetSent
		if c.isForeign(s.Seq) {
			c.discard(now, DiscardSendError, out)
		}
		switch {
		case k.finished:
		case c.phase == parting, c.phase == insisting:
			c.partingSent(s.Seq)
		default:
			c.peer = Closed
		}
		return
	case s.Flags.Has(SYN):
		c.touchSent(now, ev, out)
		return
	}
	out.Note, k.ackLeft, k.partingLeft = NoteLeft, true, 0
	// The retransmission timer runs from when the segment leaves, not from when we meant
	// it to.
	if at := now.Add(k.rto); s.SegLen() > 0 && s.Seq == k.sndUna && k.retransmitAt != 0 && at.Sub(k.retransmitAt) > tardy {
		k.retransmitAt = at
	}
	// Of two numbers 2³¹ apart each comes before the other: so by distance.
	if end := c.leftTo(s); end != k.left && uint32(end.Sub(k.left)) <= uint32(c.sndNxt.Sub(k.left)) {
		k.left = k.leaves.add(k.left, s.Seq, end)
	}
	if s.SegLen() > 0 && s.Seq.LessEq(k.sndUna) && k.sndUna.Less(s.End()) {
		k.resent = false
	}
	if c.sndNxt.LessEq(k.left) && !k.resent {
		c.letOut(now, ev.Stamp)
	}
	if s.Flags.Has(FIN) && s.Seq.Add(s.Len) == k.dataEnd {
		if !k.finLeft || k.finTimes == 1 && !k.finAcked { // the first FIN, not one that went again
			k.finSent, k.finLeft = ev.Stamp, true
			k.finAlone = k.left.Less(k.dataEnd)
			k.lag.begins()
		}
		out.Note = NoteFINLeft
	}
	if c.Prompt && k.finLeft && s.SegLen() == 0 && s.Seq.Less(k.sndUna) {
		out.Note, k.prompted = NotePrompt, true
	}
	if s.Len > 0 && s.Seq.Add(s.Len) == k.dataEnd && !k.finCame {
		k.lastSent = ev.Stamp
		k.lag.begins()
	}
	if s.Ack == c.irs.Add(1) && s.Seq == c.iss.Add(1) && s.SegLen() == 0 && k.synAcks == 0 &&
		(!k.progress || k.ackSent.Wall == 0) {
		if !k.ackTwice {
			k.ackSent = ev.Stamp
		}
		k.lag.begins()
		if d, ok := c.interval(now, c.synAckGot, ev.Stamp); ok && !k.ackReacted {
			k.ackReacted = true
			c.measured(Observation{Kind: Reaction, Duration: d}, out)
		}
		if c.peer == SynReceived {
			c.peer = Established
		}
	}
	if k.finTaken && s.Ack == c.rcvNxt {
		if k.ackKept = false; c.local == TimeWait {
			k.retransmitAt = 0
		}
		if !k.finAnswered {
			c.answersFIN(now, ev.Stamp)
			if c.local == CloseWait || c.local == LastAck { // what this host refused may have gone in another's place
				k.threeWay = s.Flags.Has(FIN)
			}
		}
		k.finAnswered = true
		c.finAckSent(now, ev, out)
	}
}

// isForeign reports whether a RST that was seen leaving is none of ours, and none of our
// kernel's, which keeps quiet on this port: a firewall of this host has rejected in our name what
// the peer sent. In these phases we send none, and what is left of a connection before lies before
// ISS (RFC 9293 §3.4.1); but one of those that answer what did not acknowledge our SYN may be seen
// only now, and its number is whoever forges that's to say. Whether the peer takes it or not, what
// follows says nothing of the peer.
func (c *Conversation) isForeign(seq Seq) bool {
	return (c.phase == connected || c.phase == measuring) && c.stale == 0 && uint32(seq.Sub(c.iss)) <= uint32(c.sndNxt.Sub(c.iss))
}

// leftTo is the end of a segment that was seen leaving. Of one that is too long for our
// network the tap sees the first fragment, which names less: the last, and each that has
// another behind it as far on as a segment is long, have left whole.
func (c *Conversation) leftTo(s *Segment) Seq {
	k := &c.conn
	full := s.Seq.Add(uint32(k.mss))
	switch {
	case s.Len == 0:
	case s.Flags.Has(FIN):
		return k.dataEnd.Add(1)
	case s.Flags.Has(PSH):
		return k.dataEnd
	case s.End().Less(full) && full.LessEq(c.sndNxt) && full.LessEq(k.dataEnd):
		return full
	}
	return s.End()
}

// finAckSent is the acknowledgement of the peer's FIN leaving.
func (c *Conversation) finAckSent(now Instant, ev *Event, out *Output) {
	k := &c.conn
	switch c.peer {
	case FinWait1:
		if k.simultan {
			c.peer = Closing
		} else {
			c.peer = FinWait2
		}
	case LastAck:
		c.peer = Closed
	case Closing:
		if !k.simultan { // its acknowledgement of our FIN has come before
			c.peer = TimeWait
		}
	}
	if c.local == TimeWait && !k.simultan {
		c.tearDown(now, k.finSent, ev.Stamp, out)
	}
}
