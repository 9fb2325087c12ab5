package probe

// The ICMP and ICMPv6 types that say that a datagram did not arrive (RFC 792;
// RFC 4443 §2.1).
const (
	icmpUnreachable      = 3
	icmpTimeExceeded     = 11
	icmpParameterProblem = 12

	icmp6Unreachable      = 1
	icmp6PacketTooBig     = 2
	icmp6TimeExceeded     = 3
	icmp6ParameterProblem = 4
)

// Failure is the verdict that an error about a SYN leads to, or OK for one
// that does not say that the SYN is lost: source quench, which "TCP
// implementations MUST silently discard" (RFC 9293 §3.9.2.2; RFC 6633), a
// redirect, or a type without a meaning yet. RFC 5461 lets a TCP in SYN-SENT give up on any of the others; we
// send one SYN, and the quote proves that it was this one that did not arrive.
func (e *ICMP) Failure() Reason {
	if e.V6 {
		switch e.Type {
		case icmp6Unreachable:
			switch e.Code {
			// Administratively prohibited; "Codes 5 and 6 are more informative
			// subsets of code 1" (RFC 4443 §3.1).
			case 1, 5, 6:
				return Prohibited
			}
			return Unreachable
		case icmp6PacketTooBig, icmp6TimeExceeded, icmp6ParameterProblem:
			return Unreachable
		}
		return OK
	}
	switch e.Type {
	case icmpUnreachable:
		switch e.Code {
		// Network, host, and communication administratively prohibited
		// (RFC 1812 §5.2.7.1).
		case 9, 10, 13:
			return Prohibited
		}
		return Unreachable
	case icmpTimeExceeded, icmpParameterProblem:
		return Unreachable
	}
	return OK
}

// endsHandshake reports whether a peer in SYN-RECEIVED gives the connection up for an error
// about its SYN-ACK, as Linux does (net/ipv4/tcp_ipv4.c, tcp_v4_err; net/ipv6/icmp.c,
// icmpv6_err_convert).
func (e *ICMP) endsHandshake() bool {
	if e.V6 {
		return e.Type == icmp6Unreachable && (e.Code == 1 || e.Code >= 4)
	}
	return e.Type == icmpUnreachable && e.Code <= 1
}

// NoNeighbour reports whether an error is what a host says of a datagram whose neighbour does not
// answer ARP or ND: host unreachable, or address unreachable (net/ipv4/route.c,
// ipv4_link_failure; net/ipv6/route.c, ip6_link_failure).
func (e *ICMP) NoNeighbour() bool {
	if e.V6 {
		return e.Type == icmp6Unreachable && e.Code == 3
	}
	return e.Type == icmpUnreachable && e.Code == 1
}

// Rejects reports whether an error that this host sends to the peer says of its SYN-ACK what
// makes it give the connection up: a firewall of this host has it made. Where it quotes anything
// else the peer has taken our ACK, and does not.
func (c *Conversation) Rejects(e *ICMP) bool {
	return c.established && e.Seq == c.irs && e.endsHandshake()
}

// Disowns reports whether a segment is the RST of a peer that, as far as it has said, knows of no
// connection: one that has given up in SYN-RECEIVED says so, and so does one that resets it first.
func (c *Conversation) Disowns(s *Segment) bool {
	return c.phase == connected && !c.conn.progress && s.Flags.Has(RST) && s.Seq == c.rcvNxt
}

// icmpArrives believes an error only if it quotes our exact sequence number
// (RFC 5927 §4.1).
func (c *Conversation) icmpArrives(now Instant, ev *Event, out *Output) {
	if c.established {
		c.softError(now, ev, out)
		return
	}
	if ev.ICMP.Seq != c.iss {
		// One that quotes the RST which closed this conversation is genuine,
		// and of no interest.
		if !c.answered || ev.ICMP.Seq != c.sndNxt {
			out.reject(RejectBadQuote, NoteBadICMP)
		}
		return
	}
	out.Note = NoteICMP
	r := ev.ICMP.Failure()
	switch {
	case r == OK || c.settled:
	case c.late(now, ev.Stamp):
		c.fail(now, c.Silence(), NoteTimeout, out)
	default:
		c.fail(now, r, NoteICMP, out)
	}
}

// softError takes an error about a segment of a connection: "a TCP
// implementation MUST NOT abort the connection" for one (RFC 9293 §3.9.2.2, MUST-56), only explain by
// it why nothing more was heard (RFC 5461 §2.2). It is believed if it quotes a segment
// that is in flight, and that exactly: RFC 5927 §4.1 asks for "SND.UNA =< SEG.SEQ <
// SND.NXT", which lets through who guesses any octet of them. The first one in flight is
// the one that goes again; the other is our FIN.
func (c *Conversation) softError(now Instant, ev *Event, out *Output) {
	k, q := &c.conn, ev.ICMP.Seq
	switch {
	case c.inFlight() > 0 && (q == k.sndUna || k.finTimes > 0 && !k.finAcked && q == k.dataEnd):
		out.Note = NoteICMP
		out.Narrow = ev.ICMP.tooBig() && k.shrinkSegments(ev.ICMP.V6)
		if r := ev.ICMP.Failure(); r != OK && !out.Narrow { // what is smaller may arrive
			k.icmp = r
		}
		if out.Narrow && q == k.sndUna && c.phase == connected {
			// It has not arrived, and what is smaller need not wait for the timer
			// (net/ipv4/tcp_input.c, tcp_simple_retransmit).
			k.retransmitAt, k.timedAt, k.recover = now.Add(k.rto), 0, c.sndNxt
			c.sendAgain(now, out)
		}
	case uint32(q.Sub(c.iss)) <= uint32(c.sndNxt.Sub(c.iss)), c.tw.touches > 0 && q == c.tw.seq:
		out.Note = NoteICMP // of an ACK, of what has arrived all the same, or of what will go again
	default:
		out.reject(RejectBadQuote, NoteBadICMP)
	}
}

// tooBig reports whether a segment did not fit the path: "fragmentation needed
// and DF set" (RFC 792) or Packet Too Big (RFC 4443 §3.2).
func (e *ICMP) tooBig() bool {
	if e.V6 {
		return e.Type == icmp6PacketTooBig
	}
	return e.Type == icmpUnreachable && e.Code == 4
}
