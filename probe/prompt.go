package probe

import "time"

// Linux delays the acknowledgement of a FIN, by the next tick of its clock and
// after data by 40 ms (net/ipv4/tcp_input.c, tcp_fin enters the "pingpong" mode;
// tcp_output.c, tcp_send_delayed_ack). That time belongs to neither the peer's
// kernel's round trip nor its application, and would be taken from the latter's.
//
// So a delayed acknowledgement is recognised, and the next conversation with that
// peer prompts: behind its FIN go two segments that the peer has no use for,
// <SEQ=SND.UNA-1><ACK=RCV.NXT><CTL=ACK>, as a keep-alive is (RFC 9293 §3.8.4), to
// which "an acknowledgment should be sent in reply" (§3.10.7.4). Two, because one may
// be lost, and how late an acknowledgement is does not tell a delay on purpose from a
// host that is slow: what comes after a prompt counts, however late. A peer whose
// application closes at once answers by one segment and is not prompted.
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
)

// prompt asks for an acknowledgement, behind a FIN.
func (c *Conversation) prompt(now Instant, out *Output) {
	for range prompts {
		s := c.ack(now)
		s.Seq = c.conn.sndUna.Add(^uint32(0))
		out.send(s)
	}
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
