package probe

import "time"

// Linux delays the acknowledgement of a FIN, by the next tick of its clock and
// after data by 40 ms (net/ipv4/tcp_input.c, tcp_fin enters the "pingpong" mode;
// tcp_output.c, tcp_send_delayed_ack). That time belongs to neither the peer's
// kernel's round trip nor its application, and would be taken from the latter's.
//
// So a delayed acknowledgement is recognised, and the next conversation with that
// peer prompts: behind its FIN goes a segment that the peer has no use for,
// <SEQ=SND.UNA-1><ACK=RCV.NXT><CTL=ACK>, as a keep-alive is (RFC 9293 §3.8.4), to
// which "an acknowledgment should be sent in reply" (§3.10.7.4). A peer whose
// application closes at once answers by one segment and is not prompted.
const (
	// delayedFINACK is the least by which the acknowledgement of a FIN comes
	// later than the handshake's answer if it was delayed, or a quarter of that
	// where it is longer.
	delayedFINACK = time.Millisecond
	// delayedAllTheSame is that for a peer that was prompted: the prompt was
	// lost, and it is Linux's 40 ms after data.
	delayedAllTheSame = 35 * time.Millisecond
	// closedAtOnce is the CLOSE-WAIT below which the peer needs no prompting.
	closedAtOnce = 500 * time.Microsecond
)

// prompt forms the segment that asks for an acknowledgement.
func (c *Conversation) prompt(now Instant) Segment {
	s := c.ack(now)
	s.Seq = c.conn.sndUna.Add(^uint32(0))
	return s
}

// Prompts reports whether the next conversation with the peer should prompt it.
func (c *Conversation) Prompts() bool { return c.conn.prompts }

// promptness learns from the acknowledgement of our FIN, which took rtt. It
// reports whether it was delayed for no reason that a figure is about: the
// peer's own FIN did not come with it.
func (c *Conversation) promptness(rtt time.Duration, withFIN bool) (delayed bool) {
	k := &c.conn
	late := rtt - k.handshake
	switch {
	case k.handshake <= 0:
	case c.Prompt:
		k.delayed = !withFIN && late > max(delayedAllTheSame, k.handshake)
	case withFIN:
		k.prompts = late > delayedFINACK+k.handshake
	default:
		k.prompts = true
		k.delayed = late > max(delayedFINACK, k.handshake/4)
	}
	return k.delayed
}

// closedAfter learns from the peer's CLOSE-WAIT.
func (c *Conversation) closedAfter(d time.Duration) {
	if c.Prompt && d < closedAtOnce {
		c.conn.prompts = false
	}
}
