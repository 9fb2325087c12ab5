package probe

import "time"

// Linux delays the acknowledgement of a FIN, by the next tick of its clock and
// after data by 40 ms (net/ipv4/tcp_input.c, tcp_fin enters the "pingpong" mode;
// tcp_output.c, tcp_send_delayed_ack). That time belongs to neither the peer's
// kernel's round trip nor its application, and would be taken from the latter's.
//
// So a delayed acknowledgement is recognised, and the next conversation with that
// peer prompts: behind its FIN go two segments that the peer has no use for, since they lie
// before SND.UNA, <SEQ=promptSeq><ACK=RCV.NXT><CTL=ACK>, as a keep-alive does (RFC 9293 §3.8.4), to
// which "an acknowledgment should be sent in reply" (§3.10.7.4). Two, because one may
// be lost, and how late an acknowledgement is does not tell a delay on purpose from a
// host that is slow: what comes after a prompt counts, however late. A peer whose
// application closes at once answers by one segment and is not prompted.
//
// A prompt may come before our ACK and our FIN, or they may be lost. A peer that uses SYN
// cookies holds nothing then, and takes any segment with an ACK bit for the handshake's
// (net/ipv4/syncookies.c, __cookie_v4_check). It is answered by a RST, since its cookie is
// wrong, as what comes later shows: see askedFor.
const (
	// prompts is how many go behind each FIN.
	prompts = 2
	// promptAnyway is by how much the acknowledgement of a FIN, without a prompt,
	// may come later than the handshake's answer and be taken for one that was not
	// delayed: Linux's tick may come soon, and then that is how wrong it is.
	promptAnyway = 100 * time.Microsecond
	// delayedWithFIN is the same of one that comes with the peer's FIN. It was
	// delayed only if the application took that long.
	delayedWithFIN = time.Millisecond
	// closedAtOnce is the CLOSE-WAIT below which the peer needs no prompting.
	closedAtOnce = 500 * time.Microsecond
	// cookieReach is more than what a SYN cookie can be off by and be taken for another. It is
	// reckoned with SEG.SEQ-1 for the ISS and holds an index of 16 sizes of segments at most:
	// of a segment at ISS or a little before the peer would read another size, open a
	// connection that lies so far behind ours, and never acknowledge our FIN.
	cookieReach = 64
	// promptKeeps is for how long after our FIN's acknowledgement a RST to a prompt before it
	// may be under way yet.
	promptKeeps = 500 * time.Millisecond
)

// prompt asks for an acknowledgement, behind a FIN.
func (c *Conversation) prompt(now Instant, out *Output) {
	k := &c.conn
	for range prompts {
		s := c.ack(now)
		s.Seq = c.promptSeq()
		out.send(s)
	}
	if k.sndUna == c.FirstOctet() {
		k.asked = prompts // those before went long ago
	}
}

// promptSeq is a prompt's SEG.SEQ: SND.UNA-1, or what no SYN cookie is taken for.
func (c *Conversation) promptSeq() Seq {
	seq := c.conn.sndUna.Add(^uint32(0))
	if seq.Less(c.iss.Add(cookieReach)) {
		seq = c.iss.Add(^uint32(cookieReach - 1))
	}
	return seq
}

// askedFor reports whether a RST, at RCV.NXT, may answer a prompt: <SEQ=SEG.ACK><CTL=RST> is what
// a host without the connection says to a segment (RFC 9293 §3.10.7.1). A peer whose SYN cookie
// waits for our ACK says so of prompts alone. One that has really closed, or never opened, says it of our
// ACK and our FIN too, so that one RST more than there were prompts is believed; and our FIN goes
// again without prompts, so that any is that answers it. So is what comes long after the FIN's acknowledgement.
func (c *Conversation) askedFor(now Instant, ev *Event) bool {
	s, k := &ev.Segment, &c.conn
	if s.Flags.Has(ACK) || s.Seq != c.irs.Add(1) || k.resets >= k.asked {
		return false
	}
	if d, ok := c.interval(now, k.finAckGot, ev.Stamp); k.finAcked && (!ok || d >= promptKeeps) {
		return false
	}
	k.resets++
	return true
}

// Prompts reports whether the next conversation with the peer should prompt it.
func (c *Conversation) Prompts() bool { return c.conn.prompts }

// promptness learns from the acknowledgement of our FIN, which took rtt if that is
// known: the FIN was sent once. It reports whether it may have been delayed for no
// reason that a figure is about.
func (c *Conversation) promptness(rtt time.Duration, known, withFIN bool) (delayed bool) {
	k := &c.conn
	known = known && k.handshake > 0 && k.handshake < resendsAfter
	late := rtt - k.handshake
	switch {
	case c.Prompt && k.prompted: // else this host kept the prompts
	case withFIN:
		k.prompts = known && late > delayedWithFIN+k.handshake
	default:
		k.prompts = true
		k.delayed = !known || late > promptAnyway
	}
	return k.delayed
}

// closedAfter learns from the peer's CLOSE-WAIT.
func (c *Conversation) closedAfter(d time.Duration) {
	if c.Prompt && d < closedAtOnce {
		c.conn.prompts = false
	}
}
