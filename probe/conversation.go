package probe

import "time"

// Params say how a conversation is held. They don't change during it.
type Params struct {
	Kind Kind

	// Timeout is how long the peer has to answer, from the SYN's transmit
	// stamp to the answer's receive stamp.
	Timeout time.Duration

	// Linger is how long after its verdict a conversation still claims its
	// four-tuple, so that late and duplicate segments are told from forged
	// ones. It is also how long an unsent SYN may wait for its neighbour.
	Linger time.Duration

	// ResetGrace is how long our own kernel has to reset a SYN-ACK before we
	// do it ourselves. 0 means that it never will: the source port is guarded.
	ResetGrace time.Duration

	// IPv6 says what the peer's segments travel in.
	IPv6 bool

	// DetectCookies asks for a second handshake after the first, by which the
	// peer's SYN cookies show. half_open only.
	DetectCookies bool

	// The rest is for the kinds that go past the SYN-ACK. Their Timeout is for
	// everything up to the last ACK.

	// Send is how many octets to send once the connection is established.
	Send uint32

	// Hold is how long after the last octet (or after the establishment) our
	// FIN goes. active_close only.
	Hold time.Duration

	// FINWithData puts our FIN on the last segment of data; active_close.
	FINWithData bool

	// Prompt has the peer acknowledge our FIN at once, as Conversation.Prompts
	// of the one before says. active_close.
	Prompt bool

	// Combined answers the peer's FIN by one segment with our ACK and FIN, else
	// by two.
	Combined bool

	// Measure says what of the peer's TIME-WAIT to measure. time_wait only.
	Measure Measure

	// Lower has the four-tuple used again with a sequence number that the peer must
	// refuse.
	Lower bool

	// After is how long after the last ACK the four-tuple is used again.
	After time.Duration

	// Limit is how long a TIME-WAIT is waited for.
	Limit time.Duration
}

// Packets is how many segments leave this host in a conversation of which
// nothing is lost and to which the peer sends no data, those that our kernel
// sends included.
func (p *Params) Packets() int {
	switch {
	case p.Kind == HalfOpen && p.DetectCookies:
		return 4
	case p.Kind == HalfOpen:
		return 2
	}
	// SYN, ACK, the data, FIN and ACK, which may be one.
	n := 4 + int(p.Send+typicalMSS-1)/typicalMSS
	if p.Kind == ActiveClose {
		n += prompts
	}
	if p.Measure != NoMeasure {
		n += 3 // another SYN, and its RST twice
	}
	return n
}

// A phase says what the conversation waits for, and so which timer runs.
type phase uint8

const (
	idle      phase = iota // nothing sent yet
	opening                // the peer's answer; USER TIMEOUT
	resetting              // our RST to be seen leaving; RETRANSMISSION TIMEOUT
	reopening              // our second SYN to be sent; REOPEN
	comparing              // the answer to it; USER TIMEOUT
	connected              // the connection to run its course; several timers
	parting                // our RST to have reached the peer; RETRANSMISSION TIMEOUT
	measuring              // the peer's TIME-WAIT to end; REOPEN and USER TIMEOUT
	lingering              // old segments to drain, as in TIME-WAIT; TIME-WAIT TIMEOUT
	insisting              // likewise, and our RSTs are to go again, for the peer may not have had one; RETRANSMISSION TIMEOUT
	done                   // nothing: the four-tuple is free
)

// maxResets bounds the RSTs of our own in one phase of waiting for one to
// leave.
const maxResets = 3

// A Conversation is one probe of one four-tuple: RFC 9293's transmission
// control block as far as measuring needs one, and what can be inferred of the
// peer's. The zero value with Params is CLOSED.
type Conversation struct {
	Params

	phase    phase
	local    State
	peer     State
	hint     Reason // what was rejected, to explain a silence that follows; Timeout: several that contradict each other
	hintMark uint8  // of what it said
	seen     bool   // our SYN was seen leaving
	overdue  bool   // our SYN had not left when the timeout came
	answered bool   // an acceptable SYN-ACK came, in time or not
	settled  bool   // the verdict or the discard is made
	reacted  bool   // our reaction to the SYN-ACK is observed
	resets   uint8  // RSTs of our own since the last SYN-ACK, or in a row that were not seen leaving
	stale    uint8  // RSTs to what does not acknowledge our SYN

	established bool // we were in ESTABLISHED
	spoiled     bool // frames were lost to us: no stamp of it can be trusted

	iss    Seq // ISS
	sndNxt Seq // SND.NXT
	irs    Seq // IRS
	rcvNxt Seq // RCV.NXT

	opened    Instant // OPEN
	deadline  Instant
	synSent   Stamp // the SYN's last transmit stamp
	synAckGot Stamp // the accepted SYN-ACK's first receive stamp

	cookies cookieCheck
	conn    connection
	tw      timeWait
}

// New returns a conversation in CLOSED.
func New(p Params) Conversation {
	return Conversation{Params: p, local: Closed, peer: Unknown, conn: connection{prompts: p.Prompt}}
}

// Local returns our state.
func (c *Conversation) Local() State { return c.local }

// Peer returns the state that the peer must be in, given what it has sent and
// what was seen leaving here: inferred, and right only if nothing was lost
// since.
func (c *Conversation) Peer() State { return c.peer }

// Left reports whether our SYN was seen leaving this host.
func (c *Conversation) Left() bool { return c.seen }

// SYNSent is the stamp of our SYN leaving, of copies the last one's.
func (c *Conversation) SYNSent() Stamp { return c.synSent }

// Answered reports whether an acceptable SYN-ACK came, in time or not.
func (c *Conversation) Answered() bool { return c.answered }

// FirstOctet is the sequence number of the first octet that we send.
func (c *Conversation) FirstOctet() Seq { return c.iss.Add(1) }

// KernelReset reports whether a RST that was seen leaving in answer to the last SYN-ACK
// is our kernel's: we have sent none.
func (c *Conversation) KernelReset() bool { return c.ResetGrace > 0 && c.resets == 0 }

// Settled reports whether the verdict or the discard is made.
func (c *Conversation) Settled() bool { return c.settled }

// Done reports whether the conversation is over and its four-tuple free.
func (c *Conversation) Done() bool { return c.phase == done }

// Closed reports whether the peer is left with nothing open on our account, as
// far as can be told here: it never answered, or a RST was seen leaving.
func (c *Conversation) Closed() bool { return c.phase == idle || c.phase >= lingering }

// Insists reports whether the conversation is closed, but has something to send yet.
func (c *Conversation) Insists() bool {
	return c.phase == insisting || c.phase == lingering && c.ackDue() != 0
}

// Rests reports whether the conversation has told everything, unless something more
// arrives: it is settled and closed, and our last ACK was seen leaving, with which
// the teardown ends.
func (c *Conversation) Rests() bool {
	return c.settled && c.Closed() && (c.local != TimeWait || c.conn.tornDown)
}

// Timer returns the event to deliver when nothing else happens, and when. The
// event is 0 for a conversation that waits for nothing.
func (c *Conversation) Timer() (EventKind, Instant) {
	switch c.phase {
	case opening, comparing:
		return UserTimeout, c.deadline
	case resetting:
		return RetransmissionTimeout, c.deadline
	case reopening:
		return Reopen, c.deadline
	case lingering:
		if at := c.ackDue(); at != 0 && at < c.deadline {
			return RetransmissionTimeout, at
		}
		return TimeWaitTimeout, c.deadline
	case parting, insisting:
		return RetransmissionTimeout, c.deadline
	case connected:
		return c.connectionTimer()
	case measuring:
		return c.measureTimer()
	}
	return 0, 0
}

// Output is what one step asks for and what it learned. It holds no pointers.
type Output struct {
	Note   Note // what was concluded, for the transcript
	Narrow bool // the path to the peer was found to take less than our segments, which others should know: Event.Narrow

	// At most: a retransmission, data up to four segments in all, a FIN and what
	// prompts its acknowledgement, an ACK.
	segments [8]Segment
	// At most: a FIN of either side again, FIN-ACK, CLOSE-WAIT, half-close,
	// teardown, verdict.
	observations [8]Observation
	nSegments    uint8
	nObserved    uint8
}

// Segments returns the segments to send, in order. The payload of one is Len
// octets of what the conversation sends, from SEG.SEQ − (ISS+1) on.
func (o *Output) Segments() []Segment { return o.segments[:o.nSegments] }

// Observations returns what was learned, in order.
func (o *Output) Observations() []Observation { return o.observations[:o.nObserved] }

func (o *Output) send(s Segment) {
	o.segments[o.nSegments] = s
	o.nSegments++
}

func (o *Output) observe(ob Observation) {
	o.observations[o.nObserved] = ob
	o.nObserved++
}

func (o *Output) reject(r RejectReason, n Note) {
	o.Note = n
	o.observe(Observation{Kind: Rejected, Reject: r})
}

// reset empties the output. What is beyond its counts stays: nobody reads it.
func (o *Output) reset() { o.Note, o.Narrow, o.nSegments, o.nObserved = NoteNone, false, 0, 0 }

// Step advances the conversation by one event: a value in, a value out. It is
// total: an event that the conversation's state has no use for changes
// nothing. now is the moment at which the event is handled; it never runs
// backwards, and for an event with a stamp it lies after the stamp.
func Step(c Conversation, now Instant, ev Event) (Conversation, Output) {
	var out Output
	c.Step(now, &ev, &out)
	return c, out
}

// Step is the function of that name in place, for whoever counts nanoseconds: it
// overwrites out and only reads ev.
func (c *Conversation) Step(now Instant, ev *Event, out *Output) {
	out.reset()
	if ev.Kind == Open {
		if c.phase == idle {
			c.open(now, ev, out)
		}
		return
	}
	if c.phase == idle || c.phase == done {
		return
	}
	switch ev.Kind {
	case SegmentSent:
		c.segmentSent(now, ev, out)
	case SegmentArrives:
		before := c.conn.received
		c.segmentArrives(now, ev, out)
		if c.established && !out.Note.Disbelieves() {
			c.owe(now, ev, c.conn.received != before, out)
		}
	case ICMPArrives:
		c.icmpArrives(now, ev, out)
	case SendFailed:
		c.sendFailed(now, out)
	case NoRoom:
		c.noRoom(now, &ev.Segment)
	case UserTimeout, RetransmissionTimeout, TimeWaitTimeout, ACKTimeout, Close:
		if kind, at := c.Timer(); kind == ev.Kind && now >= at {
			if c.phase == connected && kind != UserTimeout && kind != ACKTimeout { // that is of what is owed
				c.lagged(now, now.Sub(at), now.Sub(at))
			}
			c.timeout(now, ev, out)
		}
	case Reopen:
		switch {
		case c.phase == reopening:
			c.reopen(now, ev.Segment, out)
		case c.phase == measuring && now >= c.tw.next && c.tw.next != 0:
			c.touch(now, ev.Segment, out)
		}
	case Spoiled:
		c.discard(now, ev.Discard, out)
	case Abort:
		c.abort(now, ev.Discard, out)
	}
}

// open is the active OPEN of RFC 9293 §3.10.1: "A SYN segment of the form
// <SEQ=ISS><CTL=SYN> is sent. Set SND.UNA to ISS, SND.NXT to ISS+1, enter
// SYN-SENT state, and return."
func (c *Conversation) open(now Instant, ev *Event, out *Output) {
	syn := &ev.Segment
	c.iss, c.sndNxt = syn.Seq, syn.Seq.Add(1)
	c.local, c.opened = SynSent, now
	c.conn.offer(now, syn)
	c.conn.narrow = ev.Narrow
	c.wait(opening, now.Add(c.Timeout))
	out.Note = NoteOpen
	out.send(*syn)
}

// wait enters a phase whose timer goes off at t.
func (c *Conversation) wait(p phase, t Instant) { c.phase, c.deadline = p, t }

// settle makes the verdict.
func (c *Conversation) settle(r Reason, out *Output) {
	c.settled = true
	out.observe(Observation{Kind: Verdict, Reason: r})
}

// fail makes the verdict of a probe that nothing answered and lingers for what
// may still come.
func (c *Conversation) fail(now Instant, r Reason, n Note, out *Output) {
	c.settle(r, out)
	c.local = Closed
	c.wait(lingering, now.Add(c.Linger))
	out.Note = n
}

// discard settles the probe without a verdict: the fault was ours.
func (c *Conversation) discard(now Instant, r DiscardReason, out *Output) {
	c.spoiled = true
	if c.settled {
		return
	}
	c.settled = true
	out.Note = NoteDiscarded
	out.observe(Observation{Kind: Discarded, Discard: r})
	switch c.phase {
	case opening, measuring: // what comes of a SYN that is out is reset
		c.local = Closed
		c.wait(lingering, now.Add(c.Linger))
	}
}

// abort ends the conversation now; that of a connection, whose RST may be lost, once
// the RST has gone again, or at the next ABORT. RFC 9293 §3.10.5 sends a RST from the
// synchronized states and just deletes the TCB in SYN-SENT: a SYN-ACK that
// still comes is answered by our host's RST, since nobody holds the port then.
func (c *Conversation) abort(now Instant, r DiscardReason, out *Output) {
	c.discard(now, r, out)
	c.endCookieCheck(NotKnown, out)
	switch c.phase {
	case resetting:
		out.send(c.reset())
	case connected:
		c.conn.aborted = true
		c.part(now, out)
		out.Note = NoteAborted
		return
	case parting:
		c.sendResets(out)
	case insisting:
		c.insist(out)
	case lingering:
		if c.OwesACK() {
			out.send(c.ack(now))
		}
	}
	c.local, c.phase = Closed, done
	out.Note = NoteAborted
}

// reset is the RST that the peer must accept whether it is in SYN-RECEIVED or
// beyond: SEG.SEQ is its RCV.NXT (RFC 5961 §3.2).
func (c *Conversation) reset() Segment { return Segment{Seq: c.sndNxt, Flags: RST} }

// segmentSent takes the kernel's word that a segment of our four-tuple left.
func (c *Conversation) segmentSent(now Instant, ev *Event, out *Output) {
	s := &ev.Segment
	switch {
	case c.established:
		c.connectionSent(now, ev, out)
	case s.Flags.Has(RST):
		if (c.phase == resetting || c.phase == insisting) && s.Seq == c.sndNxt {
			c.resetSeen(now, ev.Stamp, out)
		}
	case s.Flags.Has(SYN) && s.Seq == c.iss && !c.answered:
		// Stacked devices show a segment more than once; the last stamp is
		// nearest to the wire.
		c.synSent, c.seen = ev.Stamp, true
		if c.phase == opening || c.phase == comparing {
			c.deadline = now.Add(c.Timeout)
		}
		out.Note = NoteSYNSent
	}
}

// resetSeen closes the conversation: the peer in SYN-RECEIVED returns to LISTEN
// (RFC 9293 §3.10.7.4, second check).
func (c *Conversation) resetSeen(now Instant, stamp Stamp, out *Output) {
	d, ok := c.interval(now, c.synAckGot, stamp)
	if ok && !c.reacted && c.phase == resetting {
		out.observe(Observation{Kind: Reaction, Duration: d})
	}
	c.reacted = true // also if it could not be measured: a later RST answers a later SYN-ACK
	c.local, c.peer = Closed, Listen
	out.Note = NoteResetSent
	if c.cookies.stage == cookiesPending {
		c.wait(reopening, now)
		return
	}
	linger := c.Linger
	if ok && resendsAfter <= d && d < longestWait {
		linger = max(linger, d+firstWait+resendsAfter)
	}
	c.wait(lingering, now.Add(linger))
}

// A peer in SYN-RECEIVED says its SYN-ACK again after firstWait, and lets twice as much go by each time
// (RFC 6298 §5.5). Where the path has taken the RSTs to those before, the next may meet a host that lets none
// out: for as long as the peer does not wait longer than longestWait it finds the conversation, which notes
// that.
const firstWait, longestWait = time.Second, 4 * time.Second

// sendFailed books an unsent SYN as ours. A RST that failed to leave is tried
// again when its timer goes off. Of a connection it is ours too if nothing comes any
// more until it has left, and how long it took to close.
func (c *Conversation) sendFailed(now Instant, out *Output) {
	if k := &c.conn; c.established {
		k.kept, k.silenced = true, true
		c.keeps(now)
	}
	if c.phase == opening && !c.seen {
		c.discard(now, DiscardSendError, out)
	}
}

// timeout is the running phase's timer going off.
func (c *Conversation) timeout(now Instant, ev *Event, out *Output) {
	switch {
	case c.phase == connected:
		c.connectionTimeout(now, ev, out)
	case c.phase == parting:
		c.partingTimeout(now, out)
	case c.phase == insisting:
		c.insistingTimeout(now, out)
	case c.phase == measuring:
		c.measureTimeout(now, out)
	case c.phase == lingering && ev.Kind == RetransmissionTimeout:
		c.ackAgain(now, out)
	case c.phase == lingering:
		c.phase = done
		out.Note = NoteDone
	case c.phase == resetting && c.resets < maxResets:
		// No RST of our kernel's was seen leaving: something between it and
		// the tap swallowed the SYN-ACK or the RST. Send our own.
		c.resets++
		out.send(c.reset())
		c.deadline = now.Add(max(c.ResetGrace, resetRetry))
		out.Note = NoteResetOwn
	case c.phase == resetting:
		c.local = Closed
		c.endCookieCheck(NotKnown, out)
		c.insistOn(now)
		out.Note = NoteResetUnseen
	case c.phase == comparing:
		c.local = Closed
		c.endCookieCheck(NotKnown, out)
		c.wait(lingering, now.Add(c.Linger))
		out.Note = NoteTimeout
	case c.seen:
		c.fail(now, c.Silence(), NoteTimeout, out)
	case !c.overdue:
		// The SYN has not left, so the network has lost nothing. It may be
		// waiting for its neighbour's address: our kernel tells by an ICMP
		// error if that fails.
		c.overdue = true
		c.deadline = now.Add(c.Linger)
		out.Note = NoteSYNUnsent
	default:
		c.discard(now, DiscardSendError, out)
	}
}

// resetRetry is how long after a RST of our own the next one goes if the first
// was not seen leaving.
const resetRetry = 10 * time.Millisecond

// Silence is the verdict of a probe without an answer in time.
func (c *Conversation) Silence() Reason {
	if c.hint != OK {
		return c.hint
	}
	return Timeout
}

// late reports whether an answer came after the timeout by its stamp: how long
// it waited for us to read it is not the network's doing. Of one without a
// stamp to trust nothing is known, and the timer decides.
func (c *Conversation) late(now Instant, stamp Stamp) bool {
	d, ok := c.interval(now, c.synSent, stamp)
	return ok && d > c.Timeout+c.grace()
}

// interval is the time between two stamps, from a to b, if it can be trusted:
// both lie on one stretch of the packet clock, and the monotonic clock has
// room for it since OPEN.
func (c *Conversation) interval(now Instant, a, b Stamp) (time.Duration, bool) {
	d, ok := b.Sub(a)
	return d, ok && d >= 0 && d <= now.Sub(c.opened)
}
