package probe

import "time"

// A lag is for how long a peer has waited for this host: from the stamp of a segment
// that wants an answer to the stamp of the answer, what timers of ours went off late, and
// what our host kept from leaving until it let it out. A loop that does not run, or a host
// that does not send, makes a connection last that much longer, and is no fault of the
// peer's.
type lag struct {
	since   Stamp         // of the first segment that is not answered yet; Wall 0: none waits
	expects Seq           // RCV.NXT then
	read    Instant       // when that was handled
	went    time.Duration // for how long the peer went on after it
	delayed bool          // it may be answered after ackDelay
	short   uint8         // short waits that total has
	closing bool          // some wait came after the first FIN
	late    bool          // some wait came after what PeerCloseTime begins with
	paused  time.Duration // what short waits made the peer wait, from one of these on
	pause   time.Duration // what the last wait did, if the peer waited for its end
	ended   Stamp         // which was then; Wall 0: what it did is known
	total   time.Duration // what the connection may last longer
	reached Instant       // up to when total has what there was: nothing is in it twice
	kept    Instant       // when the first of what was not seen leaving was sent, or refused; 0: all has left
	before  time.Duration // total at that moment
	long    time.Duration // for how long the peer has waited, if it may give up for that
	spoke   Stamp         // of what left first after that
	fin     Stamp         // of our acknowledgement of the peer's FIN, if it left late
}

const (
	// tardy is from when on an answer is late: the loop's own way there is shorter.
	tardy = 10 * time.Millisecond
	// impatience is the least time after which a FIN that was not acknowledged comes again: if
	// there were octets before it, two round trips and two ticks of the peer's clock
	// (RFC 8985 §7.2; net/ipv4/tcp_output.c, tcp_schedule_loss_probe). What comes sooner is a copy.
	impatience = 2 * time.Millisecond
	// longWait is from when on a wait is no busy host's. Shorter ones are added to the
	// timeout as often as a connection needs answers, shortWaits times: a peer that
	// speaks when it likes would else be let wait for ever.
	longWait   = 100 * time.Millisecond
	shortWaits = 8
	// touchTardy is by how much a four-tuple may be used again later than it was to.
	touchTardy = 500 * time.Millisecond
)

// owe notes that what has arrived is answered by what is yet to leave, or, if octets
// were new, that the peer has gone on without our answer.
func (c *Conversation) owe(now Instant, ev *Event, fresh bool, out *Output) {
	k := &c.conn
	l := &k.lag
	if fresh {
		l.paused, l.ended = c.pauses(now, ev.Stamp), Stamp{}
	}
	switch {
	case l.since.Wall != 0:
		if d, ok := c.interval(now, l.since, ev.Stamp); ok && fresh {
			l.went = d
		}
		l.delayed = l.delayed && out.nSegments == 0
	case out.nSegments > 0 || k.ackAt != 0:
		l.since, l.expects, l.read, l.went, l.delayed = ev.Stamp, c.rcvNxt, now, 0, out.nSegments == 0
	}
	// An application that gave up while it was let wait says nothing after it has heard us.
	if d, ok := c.interval(now, l.spoke, ev.Stamp); fresh && ok && d > k.handshake {
		l.long, l.spoke = 0, Stamp{}
	}
}

// begins notes that a time of the peer's begins, in which it has not waited for us yet.
func (l *lag) begins() { l.late, l.paused, l.ended = false, 0, Stamp{} }

// pauses is what short waits have made the peer wait, up to what it did at a moment: what comes a
// round trip after our answer, and neither sooner nor later, may have waited for that.
func (c *Conversation) pauses(now Instant, at Stamp) time.Duration {
	l, rtt := &c.conn.lag, c.conn.handshake
	if d, ok := c.interval(now, l.ended, at); ok && rtt-ackDelay/2 <= d && d <= rtt+tardy {
		return l.paused + l.pause
	}
	return l.paused
}

// answers notes that a segment has left, by which what came before it was made is answered: a
// prompt may have lain here. For what came later the peer waits from there on.
func (c *Conversation) answers(now Instant, s *Segment, left Stamp) {
	l := &c.conn.lag
	if l.since.Wall != 0 {
		if s.Flags.Has(ACK) && s.Ack.Less(l.expects) {
			return
		}
		d, ok := c.interval(now, l.since, left)
		l.pause, l.ended = d-l.went, left
		if l.delayed {
			d -= ackDelay
		}
		if l.since = (Stamp{}); ok {
			c.lagged(now, d, d-l.went)
		}
		if s.Flags.Has(ACK) && s.Ack.Less(c.rcvNxt) {
			l.since, l.expects, l.read, l.went, l.delayed = left, c.rcvNxt, now, 0, c.conn.ackAt != 0
		}
	}
	if l.long > 0 && l.spoke.Wall == 0 {
		l.spoke = left
	}
}

// noRoom notes that the limits keep a segment back, or what a timer is to send (no flags). It goes
// when there is room; data and a FIN are as if lost. How long the peer took meanwhile is our doing,
// and what it did not do, unless all that was kept back had left before.
func (c *Conversation) noRoom(now Instant, s *Segment) {
	k, w := &c.conn, &c.tw
	switch {
	case c.phase == measuring && s.Flags == 0 && w.next != 0 && now >= w.next:
		if w.kept == 0 {
			w.kept = now
		}
		w.next = now.Add(roomDelay)
		return
	case c.phase != connected:
		return
	}
	switch due := s.Flags == 0; {
	case due && k.retransmitAt != 0 && now >= k.retransmitAt:
		k.excused = k.excused || k.left.Less(c.sndNxt)
		k.retransmitAt = now.Add(roomDelay)
	case s.SegLen() > 0:
		k.excused = k.excused || k.left.Less(s.End())
	case due || k.lag.since.Wall != 0 && k.ackAt == 0: // else that is yet to go
		k.excused = true
		k.ackAt = now.Add(roomDelay)
	default: // a prompt, or a challenge ACK, which nobody waits for
		return
	}
	k.crowded = true
}

// keeps notes that our host is to let something out, or has refused to.
func (c *Conversation) keeps(now Instant) {
	if l := &c.conn.lag; l.kept == 0 {
		l.kept, l.before = now, l.total
	}
}

// letOut notes that all that there is to send has left, the last of it as stamped. A
// queue of this host's that says nothing of what it drops, or holds it for long, keeps
// it no less than one that refuses it.
func (c *Conversation) letOut(now Instant, left Stamp) {
	k := &c.conn
	if k.lag.kept == 0 {
		return
	}
	at := now // or before, if our loop was late to hear of it: the SYN left at c.deadline − …
	if d, ok := c.interval(now, c.synSent, left); ok {
		at = min(at, c.deadline.Add(d-c.Timeout-c.grace()))
	}
	l := &k.lag
	d := at.Sub(l.kept)
	l.kept = 0
	if k.kept || d >= longWait {
		reached := l.reached
		l.reached = 0
		c.lagged(now, d, d-(l.total-l.before)) // other waits meanwhile are in it already
		l.reached = max(l.reached, reached)
	}
}

// lagged takes a wait of d up to now. The peer is to wait no longer than it was let: the
// USER TIMEOUT moves out by what we took since the peer's last octets, idle, though by no
// more than Timeout in all.
func (c *Conversation) lagged(now Instant, d, idle time.Duration) {
	k := &c.conn
	l := &k.lag
	if d <= tardy {
		return
	}
	l.closing = l.closing || k.finLeft || k.finCame
	l.late = true
	if d >= longWait {
		l.long, l.spoke = max(l.long, d), Stamp{}
	}
	from := max(now.Add(-idle), l.reached)
	if idle <= tardy || now <= from || idle < longWait && l.short == shortWaits && !k.crowded {
		return
	}
	if idle < longWait {
		l.short++
	}
	before := c.grace()
	l.total, l.reached = l.total+now.Sub(from), now
	if c.phase == connected {
		c.deadline = c.deadline.Add(c.grace() - before)
	}
}

// grace is how much longer than Timeout the connection may last.
func (c *Conversation) grace() time.Duration { return min(c.conn.lag.total, c.Timeout) }

// waitsOn moves the USER TIMEOUT out if the peer waits for an answer that has not left yet,
// since what it waits for was read late: answers count what they took when they leave. It
// reports whether there is time left. An answer that doesn't leave for long is one that was kept,
// and of one that there was no room for nobody knows when it will.
func (c *Conversation) waitsOn(now Instant) bool {
	l := &c.conn.lag
	d, ok := c.interval(now, c.synSent, l.since)
	if l.since.Wall == 0 || !ok || now.Sub(l.read) >= longWait || c.conn.crowded {
		return false
	}
	d = now.Sub(c.deadline.Add(d - c.Timeout - c.grace())) // the SYN left at c.deadline − …
	if l.delayed {
		d -= ackDelay
	}
	c.lagged(now, d, d-l.went)
	return now < c.deadline
}

// slowed reports whether what the peer did at a moment may be that late because it waited for
// us: late says whether it has, and it may have done so until then, or often for a little.
func (c *Conversation) slowed(now Instant, late bool, at Stamp) bool {
	return late || c.conn.crowded || c.waited(now, at, tardy+ackDelay) || c.pauses(now, at) > tardy
}

// waited reports whether at a moment the peer had been waiting for us since d before.
func (c *Conversation) waited(now Instant, at Stamp, d time.Duration) bool {
	d0, ok := c.interval(now, c.conn.lag.since, at)
	return ok && c.conn.lag.since.Wall != 0 && d0 >= d
}

// peerFINAgain is the peer's FIN after we have taken it: our ACK was lost, unless we have
// not sent it in time, or it has crossed that which we have sent too late.
func (c *Conversation) peerFINAgain(now Instant, at Stamp, out *Output) {
	k := &c.conn
	if k.lag.fin.Wall != 0 {
		if d, ok := c.interval(now, k.lag.fin, at); !ok || d <= 2*k.handshake+tardy {
			return
		}
	}
	d, ok := c.interval(now, k.finWhole, at)
	late := ok && d >= impatience // an older acknowledgement may have left meanwhile
	if k.finAnswered || !late && !c.waited(now, at, impatience) {
		out.observe(Observation{Kind: FINRetransmit, Side: Peer})
	}
}

// answersFIN notes that our first acknowledgement of the peer's FIN has left.
func (c *Conversation) answersFIN(now Instant, left Stamp) {
	k := &c.conn
	if d, ok := c.interval(now, k.finWhole, left); ok && d > impatience {
		k.lag.fin = left
	}
}

// ours reports whether a connection that the peer gives up is one that we have let wait, and
// that has said nothing since: applications do so while they wait, and after a long wait also
// when it has ended.
func (c *Conversation) ours(now Instant, at Stamp) bool {
	l := &c.conn.lag
	crosses, ok := c.interval(now, l.spoke, at)
	return l.long >= resendsAfter || l.long > 0 && (!ok || crosses <= c.conn.handshake+tardy) ||
		c.waited(now, at, longWait) || c.behind(now, at) || l.kept != 0 && now.Sub(l.kept) >= resendsAfter
}

// behind reports whether at a moment what a timer of ours was to send had been due for long,
// and the loop did not run.
func (c *Conversation) behind(now Instant, at Stamp) bool {
	kind, due := c.Timer()
	d, ok := c.interval(now, c.synSent, at) // the SYN left at c.deadline − …
	return ok && kind != UserTimeout && due != 0 && c.deadline.Add(d-c.Timeout-c.grace()).Sub(due) >= longWait
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

// tooFew reports whether so many touches are less than half of those that a TIME-WAIT is
// measured by.
func (c *Conversation) tooFew(touches uint16) bool {
	return 2*time.Duration(touches)*(touchEvery+touchJitter) < c.Limit
}
