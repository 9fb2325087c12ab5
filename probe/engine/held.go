package engine

import (
	"errors"
	"time"

	"github.com/probed/probed/probe"
)

// A peer that none of our RSTs has reached, because this host has let none out, still
// holds the connection, and answers the next SYN on its four-tuple by what it has to say
// about that: a challenge ACK (RFC 5961 §4.2), the old SYN-ACK again, or nothing, since it
// says so twice a second at most. That is our own doing. So such a four-tuple is held: it
// is taken again only if there is no other, and then a probe that is not answered is none
// of the peer's failures. A RST that was seen leaving, or an answer, ends that.
const (
	// heldFor is how long. Linux sends its SYN-ACK five times again, and forgets the
	// connection 64 s after the first (net.ipv4.tcp_synack_retries); in LAST-ACK it sends
	// its FIN eight times again, and forgets that after 108 s (tcp_orphan_retries).
	heldFor = tupleMemory
	// maxHeld bounds how many are held, the oldest of which are let go: 10 MiB of half_open.
	maxHeld = 1 << 16
)

// errHeld is a finding about this host, not an error of a call.
var errHeld = errors.New("no RST was seen leaving that was to close the connection before on the same four-tuple, " +
	"and the peer, which may still hold it, does not answer a SYN")

// seconds is a moment by the clock of slot.held, which is never 0.
func seconds(at probe.Instant) uint8 { return max(uint8(at/probe.Instant(time.Second)), 1) }

// holding is for how long a slot's four-tuple is to be held yet, 0 or less: no more.
func (s *Shard) holding(sl *slot) time.Duration {
	if sl.held == 0 {
		return 0
	}
	return time.Duration(int8(sl.held-seconds(s.now))) * time.Second
}

// hold holds a conversation's four-tuple, unless it does already.
func (s *Shard) hold(i int32) {
	sl := s.table.slot(i)
	if sl.held != 0 {
		return
	}
	sl.held = seconds(s.now.Add(heldFor))
	s.holds.push(s.table.ref(i))
}

// letGoOldest keeps what is held within its bound.
func (s *Shard) letGoOldest() {
	for ; s.holds.len() > maxHeld; s.holds.pop() {
		r := s.holds.first()
		if !s.table.is(r) {
			continue
		}
		sl := s.table.slot(r.slot)
		sl.held = seconds(s.now.Add(-2 * time.Second)) // over, and not to be held anew
		switch {
		case s.table.alarm(r.slot).kind == probe.TimeWaitTimeout:
			s.table.arm(r.slot, probe.TimeWaitTimeout, s.now)
		case s.table.insists(sl) && !s.table.owesACK(sl): // it would stay for half a minute and more
			s.release(r.slot)
		}
	}
}

// noteHeld holds the four-tuple of a conversation that has given up waiting for its RST
// to leave.
func (s *Shard) noteHeld(i int32, c *probe.Conversation) {
	switch s.output.Note {
	case probe.NoteResetUnseen:
		s.hold(i)
	case probe.NoteResetAgain:
		if c.Closed() && c.Peer() != probe.Closed {
			s.hold(i)
		}
	}
}

// holdUnsent holds the four-tuple of a conversation that is discarded since its SYN was
// not seen leaving: that lies in this host and may leave yet.
func (s *Shard) holdUnsent(i int32) {
	if sl := s.table.slot(i); s.table.isSettled(sl) && !s.table.hasLeft(sl) {
		s.hold(i)
	}
}

// noteUnheld lets go of a four-tuple whose peer has answered our SYN.
func (s *Shard) noteUnheld(sl *slot, ev *probe.Event, wasAnswered, wasSettled bool) {
	if ev.Kind == probe.SegmentArrives && !wasSettled && !wasAnswered && (s.table.isAnswered(sl) || s.table.isSettled(sl)) {
		sl.held = 0
	}
}

// resetLeaves lets go of a four-tuple on which a RST was seen leaving: the answer to what
// the peer said of the connection before, if nothing else has come.
func (s *Shard) resetLeaves(i int32) {
	sl := s.table.slot(i)
	if sl.whole != none {
		s.table.wholes.at(sl.whole).reset = true
	}
	if sl.held == 0 {
		return
	}
	s.excuseHeld(i, sl)
	sl.held = 0
}

// excuseHeld spoils a conversation without an answer on a four-tuple that is held.
func (s *Shard) excuseHeld(i int32, sl *slot) {
	if sl.held != 0 && !s.table.isSettled(sl) && !s.table.isAnswered(sl) && s.table.hasLeft(sl) {
		s.trouble(s.entries[sl.target], errHeld)
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardSendError})
	}
}

// errBefore is a finding about this host, not an error of a call.
var errBefore = errors.New("no RST has closed the connection that a probed which was killed had on the same four-tuple, " +
	"and the peer, which still holds it, answers a SYN by a challenge ACK")

// noteBefore notes what a peer says of a connection that it holds on a guarded port's
// four-tuple: whether that is of a life before ours, which was killed and closed nothing. It
// is if nobody of this life has used the four-tuple, and what the peer acknowledges was not
// sent in this life, by the clock of sequence numbers, which outlives us. So whoever
// answers every SYN like this has failures by the second round of the ports at the latest, and
// so has who forges that.
// It reports whether that is news: the first RST to it is not rationed.
func (s *Shard) noteBefore(sl *slot, e *entry, ev *probe.Event) bool {
	w, tuple := s.table.wholes.at(sl.whole), s.tuple(sl, e)
	was := w.before
	w.before = w.fresh && !s.sentSince(&tuple, ev.Segment.Ack)
	return w.before && !was
}

// sentSince reports whether a number may be of what was sent since this life began. Of a
// life that is older than the clock can tell, half of all may be.
func (s *Shard) sentSince(tuple *probe.FourTuple, ack probe.Seq) bool {
	born := s.secret.iss(tuple, s.born)
	if s.now.Sub(s.born) >= issSpan {
		return born.Less(ack)
	}
	return uint32(ack.Sub(born)) <= uint32(s.secret.iss(tuple, s.now).Sub(born))+1<<16 // no connection sends more
}

// excuseBefore spoils a conversation that would fail by that: our RST to it has closed the
// connection before, or the four-tuple is held.
func (s *Shard) excuseBefore(i int32, sl *slot) {
	if sl.whole == none {
		return
	}
	w := s.table.wholes.at(sl.whole)
	if w.before && w.Left() && !w.Settled() && !w.Answered() && w.Silence() == probe.ChallengeACK {
		if !w.reset {
			s.hold(i)
		}
		s.trouble(s.entries[sl.target], errBefore)
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardSendError})
	}
}

// lingersOn reports whether a conversation that has lingered keeps its four-tuple, and
// sets the timer anew if so. One whose last ACK was not seen leaving leaves the peer in
// LAST-ACK.
func (s *Shard) lingersOn(i int32) bool {
	sl := s.table.slot(i)
	if sl.held == 0 && s.table.owesACK(sl) {
		s.hold(i)
	}
	more := s.holding(sl)
	if more <= 0 {
		return false
	}
	if e := s.entries[sl.target]; !sl.handed {
		s.handOver(sl, e)
	} else if sl.transcript != none {
		s.record(sl, e)
	}
	s.table.arm(i, probe.TimeWaitTimeout, s.now.Add(more))
	return true
}

// giveUp frees the slot of a conversation whose four-tuple is needed. The next one
// inherits that it is held.
func (s *Shard) giveUp(i int32) {
	sl := s.table.slot(i)
	s.hold(i)
	s.inherited = sl.held
	if s.table.isOpen(sl) {
		s.count(false)
	}
	s.release(i)
}
