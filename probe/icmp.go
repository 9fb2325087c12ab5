package probe

// The ICMP and ICMPv6 types of errors (RFC 792; RFC 4443 §2.1).
const (
	icmpUnreachable  = 3
	icmpSourceQuench = 4

	icmp6Unreachable = 1
)

// Failure is the verdict that an error about a SYN leads to, or OK for one
// that concerns no SYN: source quench, which RFC 6633 §3 has hosts discard in
// silence. RFC 5461 lets a TCP in SYN-SENT give up on any of the others; we
// send one SYN, and the quote proves that it was this one that did not arrive.
func (e *ICMP) Failure() Reason {
	if e.V6 {
		if e.Type == icmp6Unreachable {
			switch e.Code {
			// Administratively prohibited; "codes 5 and 6 are more informative
			// subsets of code 1" (RFC 4443 §3.1).
			case 1, 5, 6:
				return Prohibited
			}
		}
		return Unreachable
	}
	switch e.Type {
	case icmpSourceQuench:
		return OK
	case icmpUnreachable:
		switch e.Code {
		// Network, host, and communication administratively prohibited
		// (RFC 1812 §5.2.7.1).
		case 9, 10, 13:
			return Prohibited
		}
	}
	return Unreachable
}

// icmpArrives believes an error only if it quotes our exact sequence number
// (RFC 5927 §4.1).
func (c *Conversation) icmpArrives(now Instant, ev *Event, out *Output) {
	if ev.ICMP.Seq != c.iss {
		// One that quotes the RST which closed this conversation is genuine,
		// and of no interest.
		if !c.answered || ev.ICMP.Seq != c.sndNxt {
			out.reject(RejectBadQuote, NoteBadICMP)
		}
		return
	}
	out.Note = NoteICMP
	if r := ev.ICMP.Failure(); r != OK && !c.settled {
		c.fail(now, r, NoteICMP, out)
	}
}
