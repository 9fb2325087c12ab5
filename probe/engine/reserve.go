package engine

import (
	"math"
	"time"

	"github.com/probed/probed/probe"
)

// What a conversation sends after its SYN it sends when its peer has done something,
// and the peer may be late. So that a second has room for that, too, the room is
// reserved: a SYN goes only if what left in the last second and what conversations
// that are open may still send is no more than the limit. Each segment then moves from
// what is reserved to what was sent, and only what goes beyond that waits.
//
// A half_open without a second handshake is not like that: its only other segment is the
// RST that our kernel sends a round trip later, and both are booked when the SYN goes.

// reservedFor is how long room is reserved of all that a conversation may send: a peer may
// close after half an hour, its TIME-WAIT last minutes, and what is kept for those who are
// dead others don't have. Then room is kept for the RSTs of one that was answered, since those of
// many may go together when their time is up, until resetsReservedFor after the SYN. What goes
// later waits for room, and SYNs make way for it; and so does, without that, what goes beyond what
// a connection is reckoned with: after a loss, to acknowledge a stream.
const (
	reservedFor       = 2 * time.Second
	resetsReservedFor = 10 * time.Second
	resetsReserved    = 2
)

// surplus is for how many segments more room is reserved of a connection that the peer
// closes, where the limit is not low: acknowledgements of what it sends before its FIN. One
// that we close seldom needs all that it is reckoned with, which are prompts.
const surplus = 2

// lowLimit is below what there is less than the surplus.
const lowLimit = 32

// needs returns how many packets a probe needs room for under a limit.
func (m *manner) needs(limit int) int {
	if m.params.Kind == probe.HalfOpen || m.params.Kind == probe.ActiveClose {
		return m.packets
	}
	return m.packets + max(0, min(surplus*min(limit, lowLimit)/lowLimit, limit-m.packets))
}

// A reservation is a conversation that room was reserved for, and until when.
type reservation struct {
	until probe.Instant
	conv  ref
}

// A lending is what goes beside the schedule.
type lending struct {
	window   window
	reserved int
}

// reserve books a conversation whose SYN goes now, and which may send as many packets in all.
func (s *Shard) reserve(i int32, sl *slot, e *entry, packets int) {
	a, booked := e.peer.address, e.manner.booked
	s.window.add(s.now, booked)
	a.window.add(s.now, booked)
	if e.counted {
		s.lend(a, booked)
	}
	if packets > booked {
		s.setReserved(sl, e, packets-booked)
		s.reservations.push(reservation{s.now.Add(reservedFor), s.table.ref(i)})
	}
}

// setReserved has a conversation keep room for so many packets more.
func (s *Shard) setReserved(sl *slot, e *entry, packets int) {
	packets = min(packets, math.MaxUint8)
	more := packets - int(sl.reserved)
	sl.reserved = uint8(packets)
	s.reserved += more
	a := e.peer.address
	a.reserved += int32(more)
	if e.counted {
		s.lent.reserved += more
		a.lent.reserved += more
	}
}

// forEnd is how many packets of those that a connection is reckoned with are not for a
// segment of ours but for what is to end it: a FIN and an ACK, or RSTs. What a peer streams
// and how small it has us cut our data does not use them up.
func forEnd(local probe.State, seg *probe.Segment) int {
	switch f := seg.Flags; {
	case f.Has(probe.SYN), f.Has(probe.FIN), f.Has(probe.RST):
	case local == probe.Established, seg.Len > 0:
		return 2
	case local == probe.FinWait1, local == probe.FinWait2:
		return 1
	}
	return 0
}

// within reports whether room is reserved for the next segment of a connection.
func within(sl *slot, local probe.State, seg *probe.Segment) bool {
	return int(sl.reserved) > forEnd(local, seg)
}

// roomFor reports whether there is room for so many packets more of a target under all
// limits, beside what is reserved.
func (s *Shard) roomFor(e *entry, packets int) bool {
	a := e.peer.address
	return (!e.counted || s.lends(a, packets) <= s.now) &&
		s.window.room(s.now, packets+s.taken()-s.wanted, s.limits.Global) <= s.now &&
		a.window.room(s.now, packets+a.taken()-int(a.wanted), s.limits.PerAddress) <= s.now
}

// setWanted has so many packets of a connection wait for room. SYNs make way for those that it
// is reckoned with, if it is the schedule's.
func (s *Shard) setWanted(sl *slot, e *entry, packets int) {
	if sl.whole == none {
		return
	}
	w := s.table.wholes.at(sl.whole)
	if e.counted {
		packets = 0
	}
	more := int32(max(0, min(packets, e.manner.packets-int(sl.packets)))) - w.wanted
	w.wanted += more
	s.want(e.peer.address, more)
}

// want has so many packets more of an address wait. Others' SYNs make way for no more than
// the address may send in a second: the rest waits for that.
func (s *Shard) want(a *address, more int32) {
	before := min(int(a.wanted), s.limits.PerAddress)
	a.wanted += more
	s.wanted += min(int(a.wanted), s.limits.PerAddress) - before
}

// limitAddresses changes the limit of each address.
func (s *Shard) limitAddresses(most int) {
	if most == s.limits.PerAddress {
		return
	}
	s.limits.PerAddress, s.wanted = most, 0
	counted := make(map[*address]bool)
	for _, w := range s.table.wholes.all {
		if w == nil || w.slot == none || w.wanted == 0 {
			continue
		}
		if a := s.entries[s.table.slot(w.slot).target].peer.address; !counted[a] {
			counted[a] = true
			s.wanted += min(int(a.wanted), most)
		}
	}
}

// mayGo reports whether a segment of a connection may go: the peer decides when ours go, and how
// many what it streams and the sizes that it takes ask for, so that those which nothing is
// reserved for go only where there is room. SYNs have waited for it. RSTs go again, and so need room that is there still: a reload
// may take away all that is open, and lower the limits. Those at our end are the last.
func (s *Shard) mayGo(sl *slot, e *entry, c *probe.Conversation, ev *probe.Event, seg *probe.Segment) bool {
	p := &e.manner.params
	switch {
	case p.Kind == probe.HalfOpen:
		// Its SYNs have waited for room, for a RST behind each too: our kernel's, from a reserved port.
		return seg.Flags.Has(probe.SYN) || ev.Kind == probe.Abort ||
			p.ResetGrace == 0 && int(sl.packets) < e.manner.packets || within(sl, c.Local(), seg) || s.roomFor(e, 1)
	case seg.Flags.Has(probe.SYN),
		ev.Kind == probe.Abort && (ev.Discard == probe.DiscardShutdown || !c.Parts()):
		return true
	case c.Parts():
		return s.roomFor(e, max(0, 1-int(sl.reserved)))
	}
	return within(sl, c.Local(), seg) || s.roomFor(e, 1)
}

// postpones has an acknowledgement wait, or what goes again, or a SYN by which a TIME-WAIT is
// measured, that is due and that there is no room for.
func (s *Shard) postpones(i int32) bool {
	sl := s.table.slot(i)
	if sl.whole == none {
		return false
	}
	e, c := s.entries[sl.target], &s.table.wholes.at(sl.whole).Conversation
	if !c.Connected() && !c.Measures() || within(sl, c.Local(), &probe.Segment{Flags: probe.ACK}) || s.roomFor(e, 1) {
		return false
	}
	s.setWanted(sl, e, 1)
	s.keepBack(sl, e, c, &probe.Segment{})
	kind, at := c.Timer()
	s.table.arm(i, kind, at)
	return true
}

// keepBack tells a conversation that a segment did not go, or cannot yet what a timer is to send.
func (s *Shard) keepBack(sl *slot, e *entry, c *probe.Conversation, seg *probe.Segment) {
	ev := probe.Event{Kind: probe.NoRoom, Segment: *seg}
	c.Step(s.now, &ev, &s.output)
	if e.recorder != nil && sl.transcript != none {
		s.transcribe(sl, e, c, &ev)
	}
}

// bookFurther books a segment that is not a conversation's first: out of what it has
// reserved, if it is within that, or by itself.
func (s *Shard) bookFurther(sl *slot, e *entry, within bool) {
	a := e.peer.address
	if within && sl.reserved > 0 {
		s.setReserved(sl, e, int(sl.reserved)-1)
	}
	if e.counted { // beyond what is reserved, too
		s.lend(a, 1)
	}
	s.window.add(s.now, 1)
	a.window.add(s.now, 1)
}

// bookedAgain is how many RSTs of our kernel's are booked of a half_open beyond those that are with its
// SYN: Linux says its SYN-ACK five times again (tcp_synack_retries). Whoever says it more often, or what
// acknowledges anything else, takes nobody's room: our kernel's answers are one for one.
const bookedAgain = 5

// bookKernels books a RST of a half_open that was seen leaving and is our kernel's, but for those that were
// booked with the SYN and follow the SYN-ACK, however late that came: where this host let none out for a
// while, peers say the SYN-ACK again, a second later or more, and our kernel answers that.
func (s *Shard) bookKernels(i int32, seq probe.Seq, left probe.Stamp) {
	sl := s.table.slot(i)
	e := s.entries[sl.target]
	with := e.manner.booked / 2
	switch n := int(sl.rsts / kernelsRST); {
	case sl.whole != none:
	case sl.rsts&ourRSTs > 0: // booked as it was queued
		sl.rsts -= ourRST
	case n >= with+bookedAgain || seq != sl.small.FirstOctet():
	case n < with && s.moment(left).Sub(s.moment(sl.small.SYNACKGot())) < time.Second:
		sl.rsts += kernelsRST
	default:
		sl.rsts += kernelsRST
		s.bookFurther(sl, e, false)
	}
}

// RSTs that go again, for which no room is reserved any more, wait for room under the limits,
// too: many were silent at once where a path is broken, and all that insist send when the loop
// ends. They are looked at again every insistsEvery, for insistFor: who insists gives up then,
// and of those that nobody saw leave one round is over.
const (
	insistsEvery = 250 * time.Millisecond
	insistFor    = 10 * time.Second
)

// noRoomToInsist reports whether a conversation has RSTs to send again that there is no room
// for.
func (s *Shard) noRoomToInsist(sl *slot) bool {
	if !s.table.insists(sl) || s.table.owesACK(sl) { // a last ACK is one segment, and this host lets none out
		return false
	}
	return !s.roomFor(s.entries[sl.target], s.table.resets(sl))
}

// noRoomToPart reports the same of one that was reset, if not yet to be seen, and is to be
// once more.
func (s *Shard) noRoomToPart(sl *slot) bool {
	if !s.table.parts(sl) {
		return false
	}
	return s.now.Sub(s.table.insistsAt(sl)) < insistFor && !s.roomFor(s.entries[sl.target], max(0, s.table.resets(sl)-int(sl.reserved)))
}

// insistsLater sets the timer of such a conversation anew, or gives it up, unless the
// round is over.
func (s *Shard) insistsLater(i int32) bool {
	sl := s.table.slot(i)
	switch waited := s.now.Sub(s.table.insistsAt(sl)); {
	case waited < insistFor:
		s.setWanted(sl, s.entries[sl.target], s.table.resets(sl))
		s.table.arm(i, probe.RetransmissionTimeout, s.now.Add(insistsEvery))
	case sl.held != 0:
		return false
	default:
		s.release(i)
	}
	return true
}

// bookQueued is bookFurther for one that is in the batch, and leaves with it.
func (s *Shard) bookQueued(sl *slot, e *entry, within bool) {
	s.bookFurther(sl, e, within)
	if len(s.booked) == 0 {
		s.bookedFrom = s.now
	}
	s.booked = append(s.booked, e.peer.address)
}

// haveLeft puts down when what bookQueued has booked had left.
func (s *Shard) haveLeft() {
	if len(s.booked) == 0 {
		return
	}
	s.read()
	s.window.leftSince(s.bookedFrom, s.now)
	for i, a := range s.booked {
		a.window.leftSince(s.bookedFrom, s.now)
		s.booked[i] = nil
	}
	s.booked = s.booked[:0]
}

// giveBack gives back what conversations have reserved for too long.
func (s *Shard) giveBack() {
	s.giveBackOf(&s.reservations, func(sl *slot, r reservation) int {
		if !s.table.isAnswered(sl) || sl.reserved == 0 {
			return 0
		}
		s.resets.push(reservation{r.until.Add(resetsReservedFor - reservedFor), r.conv})
		return min(int(sl.reserved), resetsReserved)
	})
	s.giveBackOf(&s.resets, func(*slot, reservation) int { return 0 })
}

// giveBackOf has the conversations whose time is up keep room for so many packets as keeps says.
func (s *Shard) giveBackOf(q *queue[reservation], keeps func(*slot, reservation) int) {
	for q.len() > 0 {
		r := q.first()
		is := s.table.is(r.conv)
		if is && s.now < r.until {
			return
		}
		if q.pop(); is {
			sl := s.table.slot(r.conv.slot)
			s.setReserved(sl, s.entries[sl.target], keeps(sl, r))
		}
	}
}

// reservedRecheck is how long a probe beside the schedule waits at most for room that is
// reserved: it may be given back at any time.
const reservedRecheck = 20 * time.Millisecond

// recheck returns when to look for room again that would be there at a moment, if of
// what is reserved nothing were given back.
func (s *Shard) recheck(at probe.Instant, reserved int) probe.Instant {
	if reserved > 0 {
		return min(at, s.now.Add(reservedRecheck))
	}
	return at
}

// maxGap bounds the time from one of those who wait for an address coming back to the next.
const maxGap = 100 * time.Millisecond

// again returns when a target that has found no room comes back. It queues behind those
// that wait already: if all came back at once, all but one would have come for nothing.
// Where room is reserved, which may be given back at any time, they come one by one, as fast
// as the limit could let them go.
func (a *address) again(now probe.Instant, packets, most int) probe.Instant {
	at := a.window.room(now, packets*(1+int(a.waiting))+a.taken(), most)
	if a.reserved+a.wanted == 0 {
		return at
	}
	gap := min(limitSpan*time.Duration(packets)/time.Duration(max(most, 1)), maxGap)
	a.turn = min(max(a.turn, now).Add(gap), now.Add(limitSpan))
	return min(at, a.turn)
}

// taken is what is to leave yet.
func (a *address) taken() int { return int(a.unsent) + int(a.reserved+a.wanted) }

// taken is what is to leave yet to all addresses.
func (s *Shard) taken() int { return s.unsent + s.reserved + s.wanted }
