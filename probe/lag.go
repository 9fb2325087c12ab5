package probe

import "time"

// A lag is for how long a peer has waited for this host: from the stamp of a segment
// that wants an answer to the stamp of the answer, and what timers of ours went off late.
// A loop that does not run, or a host that does not send, makes a connection last that
// much longer, and is no fault of the peer's.
type lag struct {
	since   Stamp   // of the first segment that is not answered yet; Wall 0: none waits
	read    Instant // when that was handled
	total   time.Duration
	closing bool // some of it came after the first FIN
}

const (
	// tardy is from when on an answer is late: the loop's own way there is shorter.
	tardy = 10 * time.Millisecond
	// resendsFIN is the least time after which a FIN that comes again was sent again:
	// Linux waits for 200 ms, and nobody less (RFC 6298 §2.4 would have a second).
	resendsFIN = 100 * time.Millisecond
	// touchTardy is by how much a four-tuple may be used again later than it was to.
	touchTardy = 500 * time.Millisecond
)

// owe notes that what has arrived is answered by what is yet to leave.
func (c *Conversation) owe(now Instant, ev *Event, out *Output) {
	if l := &c.conn.lag; out.nSegments > 0 && l.since.Wall == 0 {
		l.since, l.read = ev.Stamp, now
	}
}

// answers notes that a segment has left, by which all that came before is answered.
func (c *Conversation) answers(now Instant, left Stamp) {
	l := &c.conn.lag
	if l.since.Wall == 0 {
		return
	}
	d, ok := c.interval(now, l.since, left)
	if l.since = (Stamp{}); ok && d > tardy {
		c.lagged(d)
	}
}

// lagged has the peer wait no longer than it was let: the USER TIMEOUT moves out by what
// we took, though by no more than it was in all.
func (c *Conversation) lagged(d time.Duration) {
	k := &c.conn
	before := c.grace()
	k.lag.total += d
	k.lag.closing = k.lag.closing || k.finLeft || k.finCame
	if c.phase == connected {
		c.deadline = c.deadline.Add(c.grace() - before)
	}
}

// grace is how much longer than Timeout the connection may last.
func (c *Conversation) grace() time.Duration { return min(c.conn.lag.total, c.Timeout) }

// waited reports whether at a moment the peer had been waiting for us since d before.
func (c *Conversation) waited(now Instant, at Stamp, d time.Duration) bool {
	d0, ok := c.interval(now, c.conn.lag.since, at)
	return ok && c.conn.lag.since.Wall != 0 && d0 >= d
}

// peerFINAgain is the peer's FIN after we have taken it: our ACK was lost, unless we have
// not sent it in time, or it has crossed that which we have sent too late.
func (c *Conversation) peerFINAgain(now Instant, at Stamp, out *Output) {
	if !c.conn.lag.closing && (c.conn.finAnswered || !c.waited(now, at, resendsFIN)) {
		out.observe(Observation{Kind: FINRetransmit, Side: Peer})
	}
}

// ours reports whether a connection that the peer gives up is one that we have let
// wait: applications do so after a second or more, kernels later.
func (c *Conversation) ours(now Instant, at Stamp) bool {
	return c.conn.lag.total >= resendsAfter || c.waited(now, at, resendsAfter)
}

// overran reports whether a connection that has closed did so within Timeout but for us.
func (c *Conversation) overran(now Instant, at Stamp) bool {
	d, ok := c.interval(now, c.synSent, at)
	return ok && d > c.Timeout
}

// touchedLate reports whether the four-tuple was used again so late that the answer is
// to another question.
func (c *Conversation) touchedLate(now Instant) bool {
	d, ok := c.interval(now, c.tw.lastAck, c.tw.sent)
	return ok && c.tw.left && d > c.After+touchTardy
}

// touchedSeldom reports whether less than half of the touches were made that a
// TIME-WAIT is measured by.
func (c *Conversation) touchedSeldom() bool {
	return 2*time.Duration(c.tw.touches)*(touchEvery+touchJitter) < c.Limit
}
