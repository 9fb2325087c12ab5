package probe

import "time"

// segment forms a segment from SND.NXT's side with everything that each has.
func (c *Conversation) segment(now Instant, seq Seq, f Flags, n uint32) Segment {
	k := &c.conn
	s := Segment{Seq: seq, Ack: c.rcvNxt, Flags: f | ACK, Len: n, Window: uint16(min(k.rcvWnd>>k.rcvShift, 65535))}
	if k.timestamps {
		s.Options.Set = OptTimestamps
		s.Options.TSVal, s.Options.TSEcr = c.tsval(now), k.tsRecent
	}
	if k.sack && k.gaps.n > 0 {
		k.gaps.option(&s.Options)
	}
	k.ackOwed, k.ackAt, k.lastACK = false, 0, c.rcvNxt
	return s
}

// tsval is RFC 7323's timestamp clock, in milliseconds.
func (c *Conversation) tsval(now Instant) uint32 { return c.conn.tsBase + uint32(now/1e6) }

// ack forms <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>.
func (c *Conversation) ack(now Instant) Segment { return c.segment(now, c.sndNxt, ACK, 0) }

// inFlight is how many sequence numbers are sent and not acknowledged.
func (c *Conversation) inFlight() uint32 { return uint32(c.sndNxt.Sub(c.conn.sndUna)) }

// sndRoom is how many octets the windows let out now: the peer's and our own.
func (k *connection) sndRoom(c *Conversation) uint32 {
	window := min(k.sndWnd, initialSegments*uint32(k.mss))
	if n := c.inFlight(); n < window {
		return window - n
	}
	return 0
}

// transmit sends new data as far as the windows let it, and our FIN behind it if
// CLOSE was called.
func (c *Conversation) transmit(now Instant, out *Output) {
	k := &c.conn
	for c.sndNxt.Less(k.dataEnd) && out.nSegments < atOnce {
		n := c.usable()
		if n == 0 {
			break
		}
		c.sendNew(now, n, out)
	}
	switch {
	case c.sndNxt.Less(k.dataEnd):
		if k.retransmitAt == 0 {
			k.retransmitAt = now.Add(k.rto) // to probe the window
		}
	case k.finAsked && k.finTimes == 0:
		c.sendFIN(now, 0, out)
	}
}

// usable is how many octets the next segment has, or 0 to wait for the window
// to open: "A TCP implementation MUST include a SWS avoidance algorithm in the
// sender" (RFC 9293 §3.8.6.2.1, MUST-38), by which a segment is full, or the
// last, or at least half the largest window.
func (c *Conversation) usable() uint32 {
	k := &c.conn
	d := uint32(k.dataEnd.Sub(c.sndNxt))
	n := min(d, k.sndRoom(c), uint32(k.mss))
	if n == uint32(k.mss) || n == d || n > 0 && n >= k.maxSndWnd/2 {
		return n
	}
	return 0
}

// sendNew sends n octets from SND.NXT on. The last carry PSH, and our FIN if it
// is to.
func (c *Conversation) sendNew(now Instant, n uint32, out *Output) {
	k := &c.conn
	last := c.sndNxt.Add(n) == k.dataEnd
	if last && k.finAsked && c.FINWithData {
		c.sendFIN(now, n, out)
		return
	}
	f := ACK
	if last {
		f |= PSH
	}
	out.send(c.segment(now, c.sndNxt, f, n))
	c.sndNxt = c.sndNxt.Add(n)
	c.startTimers(now)
}

// sendFIN sends our FIN, behind n octets of data. "CLOSE … FIN-WAIT-1", or from
// CLOSE-WAIT LAST-ACK (RFC 9293 §3.10.4).
func (c *Conversation) sendFIN(now Instant, n uint32, out *Output) {
	k := &c.conn
	f := FIN | ACK
	if n > 0 {
		f |= PSH
	}
	out.send(c.segment(now, c.sndNxt, f, n))
	c.sndNxt = c.sndNxt.Add(n + 1)
	k.finTimes, k.closeAt = 1, 0
	if c.local == CloseWait {
		c.local = LastAck
	} else {
		c.local = FinWait1
		if c.Prompt {
			c.prompt(now, out)
		}
	}
	c.startTimers(now)
}

// startTimers starts the retransmission timer if it does not run (RFC 6298
// §5.1), and times this segment if none is being timed.
func (c *Conversation) startTimers(now Instant) {
	k := &c.conn
	c.keeps(now)
	if k.retransmitAt == 0 {
		k.retransmitAt = now.Add(k.rto)
	}
	if k.timedAt == 0 {
		k.timedAt, k.timedEnd = now, c.sndNxt
	}
}

// measureRTT is RFC 6298 §2.2 to §2.4.
func (k *connection) measureRTT(r time.Duration) {
	if k.srtt == 0 {
		k.srtt, k.rttvar = r, r/2
	} else {
		k.rttvar += ((k.srtt - r).Abs() - k.rttvar) / 4
		k.srtt += (r - k.srtt) / 8
	}
	k.rto = min(max(k.srtt+4*k.rttvar, minRTO), maxRTO)
}

// retransmit is the retransmission timer going off: "Retransmit the earliest
// segment that has not been acknowledged by the TCP receiver", "back off the
// timer" (RFC 6298 §5.4, §5.5). A window that is closed is probed by it too
// (RFC 9293 §3.8.6.1).
func (c *Conversation) retransmit(now Instant, out *Output) {
	k := &c.conn
	k.rto = min(2*k.rto, maxRTO)
	k.retransmitAt = now.Add(k.rto)
	k.timedAt = 0 // Karn's algorithm: RFC 6298 §3
	if c.inFlight() == 0 {
		if k.retransmitAt = 0; c.sndNxt.Less(k.dataEnd) {
			// "The transmitting host SHOULD send the first zero-window probe when
			// a zero window has existed for the retransmission timeout period",
			// and SWS avoidance is overridden by it too.
			out.Note = NoteWindowProbe
			d := uint32(k.dataEnd.Sub(c.sndNxt))
			c.sendNew(now, max(min(d, k.sndRoom(c), uint32(k.mss)), 1), out)
			c.transmit(now, out)
		}
		return
	}
	out.Note = NoteRetransmit
	if k.resent || k.left.LessEq(k.sndUna) { // it was not seen leaving
		k.kept, k.silenced = true, true
	}
	k.recover = c.sndNxt
	c.sendAgain(now, out)
}

// sendAgain sends the earliest segment that is not acknowledged.
func (c *Conversation) sendAgain(now Instant, out *Output) {
	k := &c.conn
	n := min(uint32(max(k.dataEnd.Sub(k.sndUna), 0)), c.inFlight(), uint32(k.mss))
	fin := k.finTimes > 0 && k.sndUna.Add(n) == k.dataEnd && (n == 0 || c.FINWithData)
	f := ACK
	if n > 0 && k.sndUna.Add(n) == k.dataEnd {
		f |= PSH
		k.dataAgain = true
	}
	if fin {
		f |= FIN
		k.finTimes = min(k.finTimes+1, 250)
		if k.finLeft { // else none has left that this repeats
			out.observe(Observation{Kind: FINRetransmit, Side: Local})
		}
	}
	out.send(c.segment(now, k.sndUna, f, n))
	k.resent = true
	c.keeps(now)
	switch {
	case !fin || !c.Prompt || c.local != FinWait1:
	case k.resets > 0: // a RST that comes now answers this FIN
		k.asked, k.prompted = 0, false
	default:
		c.prompt(now, out)
	}
}

// Large reports whether a connection has more to send than a segment holds that every path takes.
func (p *Params) Large() bool {
	if p.IPv6 {
		return p.Send > smallestMSS6
	}
	return p.Send > smallestMSS
}

// CameThrough reports whether the peer has acknowledged all of that, and no segment had to be small.
func (c *Conversation) CameThrough() bool {
	k := c.conn // a copy, which is asked whether its segments are large
	return c.Large() && k.finAcked && k.shrinkSegments(c.IPv6)
}

// shrinkSegments is what an ICMP error of a segment too big for the path leads
// to: RFC 8201 §4 and RFC 1191 §3 tell the size, which is not known here, but not
// less than every path takes. It reports whether they were larger.
func (k *connection) shrinkSegments(v6 bool) bool {
	least := uint16(smallestMSS)
	if v6 {
		least = smallestMSS6
	}
	if k.timestamps {
		least -= timestampsLen
	}
	larger := k.mss > least
	k.mss = min(k.mss, least)
	return larger
}

// acknowledged takes SEG.ACK, which lies beyond SND.UNA: "Any segments on the
// retransmission queue that are thereby entirely acknowledged are removed".
func (c *Conversation) acknowledged(now Instant, ack Seq, out *Output) {
	k := &c.conn
	k.sndUna, k.icmp, k.resent = ack, OK, false
	if k.left.Less(ack) {
		k.left = k.leaves.add(ack, ack, ack)
	}
	if ack == c.sndNxt { // what went again and did not leave, nobody waits for any more
		k.leaves, k.silenced = gaps{}, false
		k.excused = k.excused && k.lag.since.Wall != 0
		c.letOut(now, Stamp{})
	}
	if k.timedAt != 0 && k.timedEnd.LessEq(ack) {
		if d := now.Sub(k.timedAt); d > 0 {
			if k.srtt > 0 && d > k.srtt+delayedACK && out.Note == NoteNone {
				out.Note = NoteDelayedACK
			}
			k.measureRTT(d)
		}
		k.timedAt = 0
	}
	switch {
	case c.inFlight() == 0:
		k.retransmitAt = 0 // RFC 6298 §5.2
	case ack.Less(k.recover):
		// What was lost with the segment that went again is lost too.
		k.retransmitAt = now.Add(k.rto)
		c.sendAgain(now, out)
	default:
		k.retransmitAt = now.Add(k.rto) // §5.3
	}
}
