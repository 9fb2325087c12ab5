package engine

import (
	"errors"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A loss is an interface or an address that this host has lost. Answers that were under
// way to it are no more, which says nothing of whoever sent them.
type loss struct {
	ifindex int32 // 0: not an interface
	address addr  // the zero Addr: not an address
}

// lossesEvery is how often the loop looks for losses, at most.
const lossesEvery = time.Millisecond

// errLost is a finding about this host, not an error of a call.
var errLost = errors.New("the interface or the address that they went by was taken down or away: probes under way are discarded as link_down")

// lookForLosses asks for them before the ring is read, so that what was answered
// before is read before they are noticed.
func (s *Shard) lookForLosses() {
	if s.now.Sub(s.looked) >= lossesEvery {
		s.looked = s.now
		s.net.Lost(s.lose)
	}
}

func (s *Shard) addLoss(ifindex int, a addr, dark bool) {
	if dark {
		s.dark = append(s.dark, int32(ifindex))
		return
	}
	s.losses = append(s.losses, loss{int32(ifindex), a.WithZone("")})
}

// noticeLosses spoils every conversation without a verdict whose SYN left by what is
// lost, once all frames from before are handled.
func (s *Shard) noticeLosses() {
	if len(s.losses)+len(s.dark) > 0 {
		s.forgetLowest()
		s.dark = s.dark[:0]
	}
	if len(s.losses) == 0 {
		return
	}
	for i := range s.homes {
		h := &s.homes[i]
		if !h.lost && s.isLost(s.table.locals[i], h.via) {
			h.lost, h.gone, h.failed = true, s.now, s.now
		}
	}
	for i := range s.table.len() {
		sl := s.table.slot(i)
		if sl.target == free || s.table.isSettled(sl) || !s.isLost(s.table.locals[sl.local], sl.via) {
			continue
		}
		s.trouble(s.entries[sl.target], errLost)
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardLinkDown})
	}
	s.losses = s.losses[:0]
}

// isLost reports whether what went from an address by some interfaces went by what is
// lost.
func (s *Shard) isLost(from addr, via [2]int32) bool {
	for _, l := range s.losses {
		switch {
		case l.address.IsValid():
			if l.address == from {
				return true
			}
		case l.ifindex == 0 || l.ifindex == via[0] || l.ifindex == via[1]:
			return true
		}
	}
	return false
}

// leftBy notes an interface that the SYN was seen leaving by: of stacked devices the
// first and the last.
func (sl *slot) leftBy(ifindex int32) {
	if sl.via[0] == 0 {
		sl.via[0] = ifindex
	}
	sl.via[1] = ifindex
}

// loopback is the number of that interface in every network namespace: LOOPBACK_IFINDEX
// of include/net/flow.h.
const loopback = 1

// madeHere reports whether a firewall of this host has made what arrives by the loopback
// interface: it has rejected a segment of ours instead of letting it out. A RST in the peer's name
// is such if the SYN left by another interface, and was answered, or has not left, and an ICMP
// error if the SYN has not left. Where it rejects only some, the SYN may leave all the same, since
// one that is refused in the midst of a batch is tried again. Another address of this host's own may
// answer by loopback what came to it over the wire, and our kernel says there of a SYN that waits in
// this host that its neighbour is silent, which is a verdict.
func (s *Shard) madeHere(sl *slot, f *frame) bool {
	p := &f.packet
	switch {
	case f.ifindex != loopback:
		return false
	case p.Kind == wire.KindICMPError:
		return sl.via[0] == 0 && !p.ICMP.NoNeighbour()
	case !p.Segment.Flags.Has(probe.RST):
		return false
	}
	return sl.via[0] == 0 || sl.via[0] > loopback && sl.via[1] > loopback && s.table.isAnswered(sl)
}

// A home is an address of ours that SYNs have left from.
type home struct {
	via    [2]int32 // the interfaces by which the last one did
	lost   bool
	gone   probe.Instant // when that was noticed
	failed probe.Instant // when it was in vain for the last time to send from there
	back   probe.Instant // when one left again after it was lost, and others began to be excused; 0: never
	until  probe.Instant // when that ended, or will
	whole  probe.Instant // when that was last for as long as it may be; 0: never
}

const (
	// homing is how long after this host came back others may not know where to find it: a
	// neighbour that asked for us in vain asks again once a second (net/core/neighbour.c).
	homing = 2 * time.Second
	// found is how long so once somebody's answer has come: the others ask as often.
	found = time.Second
	// homingEvery is how often silence is excused for longer than this host was away: an
	// interface that goes for an instant again and again would hide peers that are dead.
	homingEvery = 30 * time.Second
)

// isBack notes that a SYN has left.
func (s *Shard) isBack(sl *slot, at probe.Instant) {
	for len(s.homes) <= int(sl.local) {
		s.homes = append(s.homes, home{})
	}
	h := &s.homes[sl.local]
	h.via = sl.via
	if !h.lost {
		return
	}
	h.lost = false
	span := min(homing, h.failed.Sub(h.gone))
	if h.whole == 0 || at.Sub(h.whole) >= homingEvery {
		h.whole, span = at, homing
	}
	if span > 0 {
		h.back, h.until = at, at.Add(span)
		s.homing = max(s.homing, h.until)
	}
}

// isAway notes that nothing could be sent from an address of ours, by its number.
func (s *Shard) isAway(local int32) {
	if int(local) < len(s.homes) && s.homes[local].lost {
		s.homes[local].failed = s.now
	}
}

// isFound notes that somebody has answered to an address of ours.
func (s *Shard) isFound(sl *slot, at probe.Instant) {
	if at >= s.homing || int(sl.local) >= len(s.homes) {
		return
	}
	h := &s.homes[sl.local]
	h.until = min(h.until, at.Add(found))
}

// excuse spoils a conversation that runs out of time without an answer, if that began
// while others were still looking for this host. Whoever has answered has found it.
func (s *Shard) excuse(i int32) {
	sl := s.table.slot(i)
	if int(sl.local) >= len(s.homes) || s.table.isSettled(sl) || s.table.isAnswered(sl) || !s.table.hasLeft(sl) {
		return
	}
	if h, left := &s.homes[sl.local], s.leftAt(sl); h.back != 0 && h.back <= left && left <= h.until {
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardLinkDown})
	}
}

// leftAt is when the SYN of a conversation that runs out of time without an answer left.
func (s *Shard) leftAt(sl *slot) probe.Instant {
	if sent := s.table.synSent(sl); sent.Clock == s.clock.stretch {
		return s.moment(sent) // whenever the timer goes off
	}
	return s.now.Add(-s.entries[sl.target].manner.params.Timeout) // the clock has been set since, and the timer alone tells
}

// excuseLate does what is done when the timer goes off before something is handled that came
// after that, by its stamp: it ends the conversation as the timer would, which the loop has not
// come to. What is lost may not be noticed yet, since all of the ring is handled before.
func (s *Shard) excuseLate(i int32, stamp probe.Stamp) {
	sl := s.table.slot(i)
	if s.table.isSettled(sl) || s.table.isAnswered(sl) || !s.table.hasLeft(sl) {
		return
	}
	if d, ok := stamp.Sub(s.table.synSent(sl)); !ok || d <= s.entries[sl.target].manner.params.Timeout {
		return
	}
	if s.isLost(s.table.locals[sl.local], sl.via) {
		s.trouble(s.entries[sl.target], errLost)
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardLinkDown})
		return
	}
	s.excuse(i)
	s.excuseHeld(i, sl)
	s.excuseBefore(i, sl)
}
