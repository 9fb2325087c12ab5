package probe

// Linux makes the ISN of a SYN cookie from the SYN: "The output should be:
// HASH(sec1,saddr,sport,daddr,dport,sec1) + sseq + (count * 2^24) + …"
// (net/ipv4/syncookies.c, secure_tcp_syn_cookie), with count the minute. So two
// handshakes on one four-tuple within a minute, whose SYNs lie some distance
// apart, have ISNs that lie exactly as far apart. An ISN by RFC 6528 goes by the
// clock instead.

// reopenDistance lies between the ISSs of the two SYNs. No ISN clock covers it
// between the first handshake and the second.
const reopenDistance = 1 << 30

// A cookieStage says how far the check for SYN cookies has come.
type cookieStage uint8

const (
	cookiesUnasked cookieStage = iota // no check, or it is over
	cookiesPending                    // after the first SYN-ACK
	cookiesAsked                      // after the second SYN
)

// A cookieCheck keeps of the first handshake what the second is compared with.
type cookieCheck struct {
	stage cookieStage
	irs   Seq
	peer  Fingerprint
}

// reopen sends the second SYN.
func (c *Conversation) reopen(now Instant, syn Segment, out *Output) {
	c.cookies.stage = cookiesAsked
	c.iss = c.iss.Add(reopenDistance)
	c.sndNxt = c.iss.Add(1)
	c.answered, c.seen, c.local, c.peer = false, false, SynSent, Unknown
	c.wait(comparing, now.Add(c.Timeout))
	syn.Seq = c.iss
	out.Note = NoteReopen
	out.send(syn)
}

// ofFirstHandshake reports whether a segment is the first SYN-ACK again while
// the second is awaited: our RST was lost.
func (c *Conversation) ofFirstHandshake(s *Segment) bool {
	first := c.cookies.stage == cookiesAsked && s.Ack.Add(reopenDistance) == c.sndNxt
	return first && s.Seq == c.cookies.irs && s.Flags&(SYN|RST) == SYN
}

// compareCookies concludes from the second SYN-ACK.
func (c *Conversation) compareCookies(s *Segment, out *Output) {
	out.Note = NoteSYNACK
	if s.Seq == c.cookies.irs.Add(reopenDistance) {
		c.endCookieCheck(Yes, out)
	} else {
		c.endCookieCheck(No, out)
	}
}

// endCookieCheck tells what was learned of the peer, if a check was under way.
func (c *Conversation) endCookieCheck(t Tristate, out *Output) {
	if c.cookies.stage != cookiesUnasked {
		c.cookies.stage = cookiesUnasked
		c.cookies.peer.SYNCookies = t
		out.observe(Observation{Kind: PeerSeen, Peer: c.cookies.peer})
	}
}
