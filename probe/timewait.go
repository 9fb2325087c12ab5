package probe

import "time"

// Measure says what of the peer's TIME-WAIT is measured.
type Measure uint8

// The measures.
const (
	NoMeasure       Measure = iota
	MeasureReuse            // whether a new SYN on the four-tuple is taken
	MeasureDuration         // how long it lasts
)

var measureNames = [...]string{"-", "reuse", "duration"}

// String names the measure as the configuration does.
func (m Measure) String() string { return name(measureNames[:], int(m)) }

// Answer is what a peer in TIME-WAIT answers to a new SYN.
type Answer uint8

// The answers of the metrics contract.
const (
	NoAnswer Answer = iota
	AnswerAccepted
	AnswerChallengeACK
	AnswerReset
	AnswerSilence
	NumAnswers = int(AnswerSilence) + 1
)

var answerNames = [...]string{"-", "accepted", "challenge_ack", "reset", "silence"}

// String is the answer's label value.
func (a Answer) String() string { return name(answerNames[:], int(a)) }

// A timeWait is what is kept while the peer's TIME-WAIT is measured. The peer
// entered it when our FIN arrived there: after finSent and before lastAck.
//
// Its end is found by touches: SYNs with a sequence number that the connection
// is past. On Linux one in TIME-WAIT answers by an ACK and its timer runs on;
// what ends TIME-WAIT is a SYN beyond RCV.NXT or with a newer timestamp, and what
// restarts it is anything with the ACK bit (net/ipv4/tcp_minisocks.c,
// tcp_timewait_state_process). A peer whose TIME-WAIT is over answers as any
// listener does, by a SYN-ACK, or by a RST if nobody listens. So a touch tells
// the two apart and disturbs neither.
type timeWait struct {
	next    Instant // of the SYN to come; 0: none
	kept    Instant // since when the limits have no room for it; 0: they have
	seq     Seq     // of the SYN that is out
	out     bool    // a SYN is out
	left    bool    // and was seen leaving
	ever    bool    // one was seen leaving
	touches uint16
	gone    uint16 // of them, those seen leaving
	alive   bool   // one was answered from TIME-WAIT
	lastAck Stamp  // our FIN's acknowledgement, received
	sent    Stamp  // the SYN that is out, transmitted
	seen    Stamp  // the last SYN that was answered from TIME-WAIT, transmitted
	silent  Stamp  // the last SYN but one that was not answered, transmitted
	quiet   Stamp  // the last one
	unheard uint8  // how many were not
}

const (
	// touchEvery is the least time between two touches of one connection: a
	// peer answers two a second at most (RFC 5961 §7).
	touchEvery = time.Second
	// touchJitter is what is added to it at most, so that touches don't march
	// in step with the peer's own timers.
	touchJitter = 200 * time.Millisecond
	// leastUnheard is how many touches in a row and from the first must meet
	// silence for that to be how the peer's TIME-WAIT answers: fewer may have
	// been lost. The last of them may have been lost all the same, after the end.
	leastUnheard = 5
	// recycledDistance is how far beyond the old connection's SND.NXT Linux puts
	// the ISN of one that takes TIME-WAIT's place ("isn = tcptw->tw_snd_nxt +
	// 65535 + 2", net/ipv4/tcp_minisocks.c).
	recycledDistance = 65537
)

// measureTimeWait begins, as the peer's last ACK arrives.
func (c *Conversation) measureTimeWait(now Instant, got Stamp) {
	c.tw.lastAck = got
	c.phase = measuring
	c.tw.next = now.Add(c.After)
	if c.Measure == MeasureDuration {
		c.tw.next = now.Add(touchEvery)
		c.deadline = now.Add(c.Limit)
	} else {
		c.deadline = c.tw.next.Add(c.Timeout)
	}
}

// measureTimer returns the timer that goes off first.
func (c *Conversation) measureTimer() (EventKind, Instant) {
	if n := c.tw.next; n != 0 && n < c.deadline {
		return Reopen, n
	}
	return UserTimeout, c.deadline
}

// touch sends a SYN on the four-tuple of the connection that is over. The ISS
// given is the caller's for a new connection: it counts when the peer is to
// take it.
func (c *Conversation) touch(now Instant, syn Segment, out *Output) {
	w := &c.tw
	if c.Measure == MeasureReuse && now.Sub(c.deadline.Add(-c.Timeout)) > touchTardy {
		c.discard(now, DiscardStalled, out)
		return
	}
	if w.out {
		c.touchUnanswered()
	}
	w.out, w.left, w.next, w.kept = true, false, 0, 0
	w.touches++
	switch {
	case c.Measure == MeasureDuration:
		syn.Seq = c.sndNxt.Add(^uint32(0))
		if !syn.Options.Has(OptMSS) {
			syn.Options = Options{}
		} else {
			syn.Options = Options{Set: OptMSS, MSS: syn.Options.MSS}
		}
		w.next = now.Add(touchEvery + jitter(w.touches))
	case c.Lower:
		syn.Seq = c.sndNxt.Add(^uint32(0))
		if syn.Options.Has(OptTimestamps) {
			// A newer one would make up for the sequence number (RFC 6191 §2).
			syn.Options.TSVal = c.tsval(c.opened) - 1
		}
	default:
		if syn.Seq.LessEq(c.sndNxt) {
			syn.Seq = c.sndNxt.Add(1 << 16)
		}
	}
	w.seq = syn.Seq
	out.Note = NoteTouch
	out.send(syn)
}

// jitter is what is added to touchEvery before the n-th touch: multiples of the
// golden ratio, which fill an interval evenly whatever their number.
func jitter(n uint16) time.Duration {
	const golden = 40503 // 2^16 / φ
	return touchJitter * time.Duration(n*golden) >> 16
}

// touchSent takes the transmit stamp of a touch.
func (c *Conversation) touchSent(now Instant, ev *Event, out *Output) {
	if w := &c.tw; c.phase == measuring && w.out && ev.Segment.Seq == w.seq {
		if !w.left {
			w.gone++
		}
		w.sent, w.left, w.ever = ev.Stamp, true, true
		if c.Measure == MeasureReuse {
			c.deadline = now.Add(c.Timeout)
		}
		out.Note = NoteSYNSent
	}
}

// touchUnanswered ends a touch that nothing came back from. A stack that does
// not answer SYNs in TIME-WAIT (gVisor) is still told from one that is over.
func (c *Conversation) touchUnanswered() {
	if w := &c.tw; w.left {
		w.silent, w.quiet = w.quiet, w.sent
		w.unheard = min(w.unheard+1, 250)
	}
}

// measureArrives handles what comes back.
func (c *Conversation) measureArrives(now Instant, ev *Event, out *Output) {
	s, w := &ev.Segment, &c.tw
	mine := w.touches > 0 && s.Flags.Has(ACK) && s.Ack == w.seq.Add(1)
	switch {
	case s.Flags.Has(FIN) && s.End() == c.rcvNxt && s.Flags&(RST|SYN) == 0:
		// The peer has acknowledged our FIN, which acknowledged this: a copy that
		// the network made. An answer would restart the peer's TIME-WAIT.
		out.Note = NotePeerFINAgain
	case mine && s.Flags.Has(RST):
		c.peer = Closed
		out.Note = NoteTimeWaitOver
		if c.Measure == MeasureReuse {
			out.Note = NoteReuseRefused
		}
		c.measureEnds(now, ev, AnswerReset, out)
	case c.takesTouch(s):
		c.newConnection(now, ev, out)
	case w.out && s.Flags&(ACK|SYN|RST|FIN) == ACK && s.Ack == c.sndNxt && s.Seq == c.rcvNxt:
		switch {
		case c.Measure == MeasureReuse && !w.left:
			out.Note = NoteOld // the last ACK again: nothing has left that it could answer
			return
		case c.isLastACK(now, ev):
			out.reject(RejectBadTimestamp, NotePAWS)
			return
		}
		out.Note = NoteTimeWaitAlive
		if c.Measure == MeasureReuse {
			c.measureEnds(now, ev, AnswerChallengeACK, out)
			return
		}
		if w.left {
			w.alive, w.seen, w.out = true, w.sent, false
		}
	case s.Flags.Has(RST) && s.Seq == c.rcvNxt:
		c.peer = Closed
		out.Note = NoteAfter
	default:
		out.reject(RejectBadACK, NoteUnexpected)
	}
}

// isLastACK reports whether an ACK from TIME-WAIT is the connection's last one once more,
// which says the same: a copy that the network made late, or somebody's who has kept it. A
// peer's timestamp clock has a tick of "1 ms to 1 sec" (RFC 7323 §5.4), so that after a
// second what it sends has a newer one. Without timestamps there is no telling.
func (c *Conversation) isLastACK(now Instant, ev *Event) bool {
	k := &c.conn
	if !k.timestamps {
		return false
	}
	o := &ev.Segment.Options
	d, ok := c.interval(now, c.tw.lastAck, ev.Stamp)
	return !o.Has(OptTimestamps) || int32(o.TSVal-k.tsRecent) < 0 || o.TSVal == k.tsRecent && ok && d > time.Second
}

// takesTouch reports whether a segment is a SYN-ACK to a touch, also to one that
// was answered otherwise before, of which the network made a copy.
func (c *Conversation) takesTouch(s *Segment) bool {
	w := &c.tw
	return w.touches > 0 && s.Flags&(SYN|ACK|RST) == SYN|ACK && s.Ack == w.seq.Add(1)
}

// answersTouch reports whether a segment answers a touch that was answered otherwise
// before: a SYN-ACK or a RST.
func (c *Conversation) answersTouch(s *Segment) bool {
	w := &c.tw
	return c.takesTouch(s) || w.touches > 0 && s.Flags.Has(RST|ACK) && s.Ack == w.seq.Add(1)
}

// newConnection is a SYN-ACK: the peer has taken the four-tuple for a new
// connection, which is reset at once.
func (c *Conversation) newConnection(now Instant, ev *Event, out *Output) {
	s, w := &ev.Segment, &c.tw
	recycled := s.Seq == c.rcvNxt.Add(recycledDistance-1) || s.Seq == c.rcvNxt.Add(recycledDistance)
	c.irs, c.rcvNxt = s.Seq, s.Seq.Add(1)
	c.iss, c.sndNxt = w.seq, w.seq.Add(1)
	c.conn.sndUna, c.conn.left, c.conn.dataEnd, c.conn.finTimes = c.sndNxt, c.sndNxt, c.sndNxt, 0
	c.conn.finished = false
	c.peer = SynReceived
	out.Note = NoteTimeWaitOver
	if c.Measure == MeasureReuse {
		out.Note = NoteReuseFresh
		if recycled {
			out.Note = NoteReuseRecycled
		}
	}
	c.measureEnds(now, ev, AnswerAccepted, out)
	c.part(now, out)
}

// measureEnds tells what was measured.
func (c *Conversation) measureEnds(now Instant, ev *Event, a Answer, out *Output) {
	w := &c.tw
	if c.Measure == MeasureReuse && c.touchedLate(now) {
		c.discard(now, DiscardStalled, out)
		c.wait(lingering, now.Add(c.Linger))
		return
	}
	if c.Measure == MeasureReuse {
		o := Observation{Kind: TimeWaitReuse, Answer: a, Duration: -1}
		if d, ok := c.interval(now, w.sent, ev.Stamp); ok && w.left && a == AnswerAccepted {
			o.Duration = d
		}
		c.measured(o, out)
	} else {
		c.lasted(now, ev.Stamp, out)
	}
	if !c.settled {
		c.settle(OK, out)
	}
	c.wait(lingering, now.Add(c.Linger))
}

// lasted observes between what the duration of TIME-WAIT lies: it began after
// our FIN left and before its acknowledgement came, and it was over between the
// last touch that found it and the first that did not.
func (c *Conversation) lasted(now Instant, gone Stamp, out *Output) {
	w := &c.tw
	alive := w.seen
	if !w.alive && w.unheard >= leastUnheard {
		alive = w.silent
	}
	o := Observation{Kind: TimeWaitLasted}
	if d, ok := c.interval(now, w.lastAck, alive); ok {
		o.Least = d
	}
	d, ok := c.interval(now, c.conn.finSent, gone)
	if !ok || d < o.Least {
		return
	}
	o.Duration = d
	c.measured(o, out)
}

// measureTimeout is the end of the time for an answer, or for TIME-WAIT to end.
func (c *Conversation) measureTimeout(now Instant, out *Output) {
	w := &c.tw
	out.Note = NoteTimeout
	r := OK
	switch {
	case c.settled:
	case w.touches == 0, // there was no room for one
		c.Measure == MeasureDuration && w.kept != 0 && now.Sub(w.kept) >= c.Limit/8: // nor for the last: it may be over since
		c.discard(now, DiscardStalled, out)
	case !w.ever || c.Measure == MeasureReuse && !w.left:
		c.discard(now, DiscardSendError, out)
	case c.Measure == MeasureReuse && c.touchedLate(now),
		c.Measure == MeasureDuration && !w.alive && c.tooFew(w.touches):
		c.discard(now, DiscardStalled, out)
	case c.Measure == MeasureDuration && !w.alive && c.tooFew(w.gone):
		c.discard(now, DiscardSendError, out)
	case c.Measure == MeasureReuse:
		c.measured(Observation{Kind: TimeWaitReuse, Answer: AnswerSilence, Duration: -1}, out)
		c.settle(r, out)
	default:
		if !w.alive {
			r = Timeout
		}
		c.settle(r, out)
	}
	c.wait(lingering, now.Add(c.Linger))
}
