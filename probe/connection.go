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
	left      Seq    // the end of what was seen leaving with nothing missing before it
	lastACK   Seq    // Last.ACK.sent of RFC 7323 §4.3
	leaves    gaps   // what was seen leaving beyond that
	gaps      gaps   // what came ahead of RCV.NXT
	theirFIN  Seq    // its sequence number, if finCame

	offered    OptionSet // in our SYN
	timestamps bool      // negotiated, and so on
	sack       bool
	sndShift   uint8  // Snd.Wind.Shift of RFC 7323 §2.2
	rcvShift   uint8  // Rcv.Wind.Shift
	mss        uint16 // octets of data that a segment of ours may have: Eff.snd.MSS
	ownMSS     uint16 // octets; announced in our SYN
	tsBase     uint32 // TSval at the monotonic clock's zero
	tsRecent   uint32 // TS.Recent

	narrow      bool  // the path was known to be when we opened
	progress    bool  // the peer has sent something that a peer in SYN-RECEIVED does not send
	crossed     bool  // the peer's FIN was sent before ours came
	synAcks     uint8 // SYN-ACKs that came again before it
	unheard     uint8 // and a round trip or more after our ACK
	finAsked    bool  // CLOSE was called: our FIN follows the data
	finTimes    uint8 // how often our FIN was sent
	finLeft     bool  // and seen leaving
	finAlone    bool  // before what goes before it: this host kept that
	prompted    bool  // what prompts its acknowledgement was seen leaving
	asked       uint8 // prompts that went to a peer that had acknowledged nothing
	resets      uint8 // RSTs that came and may answer one of those
	finAcked    bool
	finCame     bool  // the peer's FIN has arrived, if not yet in order
	finTaken    bool  // and in order
	finAnswered bool  // and our acknowledgement of it was seen leaving
	simultan    bool  // the FINs crossed: we passed CLOSING
	threeWay    bool  // ACK and FIN were one segment
	finished    bool  // both FINs are acknowledged
	tornDown    bool  // and the whole was observed
	ackReacted  bool  // our reaction to the SYN-ACK is observed
	ackLeft     bool  // an acknowledgement of the SYN-ACK was seen leaving
	resent      bool  // what is at SND.UNA was sent again, and not seen leaving since
	dataAgain   bool  // our last octet was sent more than once
	ackOwed     bool  // something that came was not acknowledged
	ackTwice    bool  // the handshake's ACK went again
	kept        bool  // our host kept a segment from leaving: how long all took is not the peer's doing
	silenced    bool  // nor its silence, since it has not acknowledged all since
	partings    uint8 // how often the RSTs went that end it
	withheld    uint8 // how often those that go again after that were not seen leaving
	partingLeft uint8 // which of them were seen leaving: bits in the order of partingSeqs
	ackKept     bool  // the peer's FIN came again, and our acknowledgement was not seen leaving since
	aborted     bool  // by ABORT
	crowded     bool  // a segment of ours waited for room under the limits
	excused     bool  // and the peer for it
	gone        bool  // the peer has said by a RST that it has nothing open
	prompts     bool  // the next conversation is to prompt the peer
	delayed     bool  // our FIN's acknowledgement was delayed: no figure is made of its stamp
	quick       uint8 // segments that are still acknowledged at once
	ahead       uint8 // segments that were because they came out of order
	answers     uint8 // to what came after the end
	icmp        Reason

	handshake         time.Duration // its round trip
	srtt, rttvar, rto time.Duration // RFC 6298
	timedEnd          Seq           // the acknowledgement that ends the measurement under way
	timedAt           Instant       // when it began; 0: none is under way

	retransmitAt Instant // 0: off, as with the others
	closeAt      Instant
	ackAt        Instant
	pushedAt     Instant // no acknowledgement before for the end of what there was to send
	challengeAt  Instant // no challenge ACK before
	synAckAt     Instant // when the SYN-ACK came again last

	ackSent   Stamp  // the handshake's ACK, transmitted
	lastSent  Stamp  // our last octet, transmitted
	finSent   Stamp  // our FIN, transmitted
	finAckGot Stamp  // its acknowledgement, received
	finGot    Stamp  // the peer's FIN, received
	finWhole  Stamp  // and all octets before it
	textGot   Stamp  // what brought octets last, received
	halfClose uint32 // octets received after our FIN
	received  uint32 // octets received

	lag lag
}

const (
	// smallestMSS is RFC 9293 §3.7.1's for a peer that announces none (MUST-15).
	smallestMSS = 536
	// smallestMSS6 is the same for IPv6: its least MTU, 1280, less the headers.
	smallestMSS6 = 1220
	// leastMSS keeps a peer that announces next to nothing from making a
	// segment of each octet (CVE-2019-11479): net.ipv4.tcp_min_snd_mss, which is
	// 48, with timestamps in each segment.
	leastMSS = 48 - timestampsLen
	// typicalMSS is what Packets reckons with.
	typicalMSS = 1220
	// timestampsLen is what RFC 7323's option takes of each segment.
	timestampsLen = 12
	// initialSegments is RFC 6928's initial window. The network is not to be
	// filled, so that no window beyond it is ever used.
	initialSegments = 10
	// atOnce is how many segments one event may have led to for data to be sent
	// still: a FIN and an ACK have room behind it.
	atOnce = 4
	// minRTO and maxRTO bound the retransmission timer (RFC 6298 §2.4, §2.5).
	minRTO = time.Second
	maxRTO = 60 * time.Second
	// quickACKs is how many segments are acknowledged at once; those after them
	// together, so that a peer that streams costs a segment each ackDelay or eighth of a window.
	quickACKs = 8
	aheadACKs = 32 // as many because they come out of order
	ackDelay  = 10 * time.Millisecond
	// roomDelay is how long a segment waits that there is no room for, before room is looked
	// for again.
	roomDelay = 50 * time.Millisecond
	// resendsAfter is the least time after which a SYN-ACK that comes again was
	// sent again. Sooner it is the network's copy: the first retransmission
	// timeout is 1 s (RFC 6298 §2.1), in Linux, gVisor and lwIP alike.
	resendsAfter = 500 * time.Millisecond
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
	k.ownMSS = 1<<16 - 1
	if syn.Options.Has(OptMSS) {
		k.ownMSS = syn.Options.MSS
	}
}

// AnnouncedMSS is the MSS of our SYN: the most octets that the peer sends in a segment.
func (c *Conversation) AnnouncedMSS() uint16 { return c.conn.ownMSS }

// limitSegments sets Eff.snd.MSS, "the minimum of the send MSS and the largest
// transmission size permitted by the IP layer" less the options (RFC 9293
// §3.7.1, MUST-16). What our own network lets through is what we announce.
func (k *connection) limitSegments(theirs *Options, v6 bool) {
	mss := int(smallestMSS) // "If an MSS Option is not received" (MUST-15)
	if v6 {
		mss = smallestMSS6
	}
	if theirs.Has(OptMSS) {
		mss = int(theirs.MSS)
	}
	mss = min(mss, int(k.ownMSS))
	if k.timestamps {
		mss -= timestampsLen
	}
	k.mss = uint16(max(mss, leastMSS))
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
	k.recover, k.left = c.sndNxt, c.sndNxt
	both := k.offered & s.Options.Set
	k.timestamps, k.sack = both&OptTimestamps != 0, both&OptSACKPermitted != 0
	if both&OptWindowScale != 0 {
		k.sndShift = min(s.Options.WindowScale, 14) // RFC 7323 §2.3
	} else {
		k.rcvShift = 0
	}
	if k.limitSegments(&s.Options, c.IPv6); k.narrow {
		k.shrinkSegments(c.IPv6)
	}
	if k.timestamps {
		k.tsRecent = s.Options.TSVal
	}
	k.quick = quickACKs
	k.rto = minRTO
	// Our SYN goes once, so that Karn's algorithm has nothing against its answer. If
	// the peer's first SYN-ACK was lost the timer is too patient, and no worse.
	if rtt > 0 {
		k.measureRTT(rtt)
	}
	c.local, c.peer = Established, SynReceived
	c.established, c.phase = true, connected
	k.handshake = rtt
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
func (c *Conversation) connectionTimeout(now Instant, ev *Event, out *Output) {
	k := &c.conn
	switch ev.Kind {
	case UserTimeout:
		if !c.waitsOn(now) {
			c.giveUp(now, out)
		}
	case RetransmissionTimeout:
		if ev.Narrow {
			k.shrinkSegments(c.IPv6)
		}
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
