package probe

import "time"

// A connection is what a conversation keeps beyond the handshake: the send and
// receive sequence variables of RFC 9293 §3.3.1, the timers, and the stamps
// that the figures are made of.
type connection struct {
	sndUna    Seq    // SND.UNA
	sndWnd    uint32 // SND.WND, in octets
	maxSndWnd uint32 // MAX.SND.WND of RFC 5961 §5
	sndWL1    Seq    // SND.WL1
	sndWL2    Seq    // SND.WL2
	rcvWnd    uint32 // RCV.WND, in octets: it never closes, since what comes is counted and not kept
	dataEnd   Seq    // the sequence number after our last octet: our FIN's
	recover   Seq    // SND.NXT when the timer went off last: what lies before goes again, as room is made
	gaps      gaps   // what came ahead of RCV.NXT
	theirFIN  Seq    // its sequence number, if finCame

	offered    OptionSet // in our SYN
	timestamps bool      // negotiated, and so on
	sack       bool
	sndShift   uint8  // Snd.Wind.Shift of RFC 7323 §2.2
	rcvShift   uint8  // Rcv.Wind.Shift
	mss        uint16 // octets of data that a segment of ours may have
	tsBase     uint32 // TSval at the monotonic clock's zero
	tsRecent   uint32 // TS.Recent

	progress   bool  // the peer has sent something that a peer in SYN-RECEIVED does not send
	synAcks    uint8 // SYN-ACKs that came again before it
	finAsked   bool  // CLOSE was called: our FIN follows the data
	finTimes   uint8 // how often our FIN was sent
	finLeft    bool  // and seen leaving
	finAcked   bool
	finCame    bool // the peer's FIN has arrived, if not yet in order
	finTaken   bool // and in order
	simultan   bool // the FINs crossed: we passed CLOSING
	threeWay   bool // ACK and FIN were one segment
	finished   bool // both FINs are acknowledged
	tornDown   bool // and the whole was observed
	ackReacted bool // our reaction to the SYN-ACK is observed
	ackLeft    bool // the handshake's ACK was seen leaving
	dataLeft   bool // our last octet was
	ackOwed    bool // something that came was not acknowledged
	quick      uint8
	resets     uint8 // RSTs sent in answer to what came after ours
	icmp       Reason

	srtt, rttvar, rto time.Duration // RFC 6298
	timedEnd          Seq           // the acknowledgement that ends the measurement under way
	timedAt           Instant       // when it began; 0: none is under way

	retransmitAt Instant // 0: off, as with the others
	closeAt      Instant
	ackAt        Instant
	challengeAt  Instant // no challenge ACK before

	ackSent   Stamp  // the handshake's ACK, transmitted
	lastSent  Stamp  // our last octet, transmitted
	finSent   Stamp  // our FIN, transmitted
	finAckGot Stamp  // its acknowledgement, received
	finGot    Stamp  // the peer's FIN, received
	halfClose uint32 // octets received after our FIN
	received  uint32 // octets received
}

const (
	// smallestMSS is RFC 9293 §3.7.1's for a peer that announces none (MUST-15).
	smallestMSS = 536
	// typicalMSS is what Packets reckons with.
	typicalMSS = 1220
	// timestampsLen is what RFC 7323's option takes of each segment.
	timestampsLen = 12
	// initialSegments is RFC 6928's initial window. The network is not to be
	// filled, so that no window beyond it is ever used.
	initialSegments = 10
	// atOnce is how many segments of data one event sends at most.
	atOnce = 3
	// minRTO and maxRTO bound the retransmission timer (RFC 6298 §2.4, §2.5).
	minRTO = time.Second
	maxRTO = 60 * time.Second
	// quickACKs is how many segments are acknowledged at once; those after them
	// together, so that a peer that streams costs no more than a hundred
	// segments a second.
	quickACKs = 8
	ackDelay  = 10 * time.Millisecond
	// challengeEvery is RFC 5961 §7's throttle, per connection.
	challengeEvery = 500 * time.Millisecond
	// delayedACK is from when on an acknowledgement is taken for a delayed one,
	// beyond the round trip.
	delayedACK = 20 * time.Millisecond
)

// offer notes what our SYN offers.
func (k *connection) offer(now Instant, syn *Segment) {
	k.offered = syn.Options.Set
	k.rcvWnd = max(uint32(syn.Window), 1)
	k.rcvShift = min(syn.Options.WindowScale, 14)
	k.tsBase = syn.Options.TSVal - uint32(now/1e6)
}

// establish enters ESTABLISHED: "If SND.UNA > ISS (our SYN has been ACKed),
// change the connection state to ESTABLISHED, form an ACK segment
// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> and send it" (RFC 9293 §3.10.7.3, fourth
// check).
func (c *Conversation) establish(now Instant, s *Segment, rtt time.Duration, out *Output) {
	k := &c.conn
	k.sndUna, k.sndWnd, k.maxSndWnd = c.sndNxt, uint32(s.Window), uint32(s.Window)
	k.sndWL1, k.sndWL2 = s.Seq, s.Ack
	k.dataEnd = c.sndNxt.Add(c.Send)
	k.recover = c.sndNxt
	both := k.offered & s.Options.Set
	k.timestamps, k.sack = both&OptTimestamps != 0, both&OptSACKPermitted != 0
	if both&OptWindowScale != 0 {
		k.sndShift = min(s.Options.WindowScale, 14) // RFC 7323 §2.3
	} else {
		k.rcvShift = 0
	}
	k.mss = smallestMSS
	if s.Options.Has(OptMSS) && s.Options.MSS > 0 {
		k.mss = max(s.Options.MSS, 64)
	}
	if k.timestamps {
		k.mss -= min(timestampsLen, k.mss-1)
		k.tsRecent = s.Options.TSVal
	}
	k.quick = quickACKs
	k.rto = minRTO
	if rtt > 0 {
		k.measureRTT(rtt)
	}
	c.local, c.peer = Established, SynReceived
	c.established, c.phase = true, connected
	out.send(c.ack(now))
	c.proceed(now, out)
}

// proceed sends what may be sent, and calls CLOSE behind it or sets the time for
// that.
func (c *Conversation) proceed(now Instant, out *Output) {
	k := &c.conn
	closes := c.Kind == ActiveClose && c.local == Established
	if closes && (c.Hold == 0 || c.FINWithData && c.Send > 0) {
		k.finAsked = true
	}
	c.transmit(now, out)
	if closes && !k.finAsked && k.closeAt == 0 && c.sndNxt == k.dataEnd {
		k.closeAt = now.Add(c.Hold)
	}
}

// synchronized hands a segment to what the conversation is about by now.
func (c *Conversation) synchronized(now Instant, ev *Event, out *Output) {
	switch {
	case c.phase == connected:
		c.connectionArrives(now, ev, out)
	case c.phase == measuring:
		c.measureArrives(now, ev, out)
	case c.local == TimeWait:
		c.timeWaitArrives(now, ev, out)
	default:
		c.closedArrives(now, ev, out)
	}
}

// connectionTimer returns the timer that goes off first.
func (c *Conversation) connectionTimer() (EventKind, Instant) {
	k := &c.conn
	kind, at := UserTimeout, c.deadline
	for _, t := range [...]struct {
		kind EventKind
		at   Instant
	}{{RetransmissionTimeout, k.retransmitAt}, {Close, k.closeAt}, {ACKTimeout, k.ackAt}} {
		if t.at != 0 && t.at < at {
			kind, at = t.kind, t.at
		}
	}
	return kind, at
}

// connectionTimeout is one of them going off.
func (c *Conversation) connectionTimeout(now Instant, kind EventKind, out *Output) {
	k := &c.conn
	switch kind {
	case UserTimeout:
		c.giveUp(now, out)
	case RetransmissionTimeout:
		c.retransmit(now, out)
	case Close:
		k.closeAt, k.finAsked = 0, true
		out.Note = NoteClose
		c.transmit(now, out)
	case ACKTimeout:
		out.Note = NoteACK
		out.send(c.ack(now))
	}
}
