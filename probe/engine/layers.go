package engine

import (
	"errors"
	"slices"
	"time"

	"github.com/probed/probed/probe"
)

// A layer is an interface that SYNs were seen leaving by before they left by another: a bridge,
// a macvlan, a VLAN or a bond, or a device whose frames are copied to another, which looks the same.
type layer struct {
	ifindex int32
	through bool          // they were, and nothing that left by it last has been answered since
	passed  probe.Instant // when one was last
	doubted probe.Instant // when something that did was last; 0: never
}

// maxLayers is how many are known at a time: devices come and go, with new numbers each time.
const maxLayers = 16

// doubtFor is for how long an interface explains no silence once it has shown something last that was
// answered. Where a layer may be seen or not, to be dead is not to be hidden: a failure of this
// host's that is booked as the target's is seen by whoever looks for it, a target's failure that
// is booked as this host's by nobody.
const doubtFor = 10 * time.Minute

// errBelow is a finding about this host, not an error of a call.
var errBelow = errors.New("SYNs to it were seen leaving by an upper interface (a bridge, macvlan, VLAN, bond) and not by the one below, " +
	"as those did that it answered: a queue or a rule of this host drops them between the two")

// layer is what is known of an interface, nil if nothing is.
func (s *Shard) layer(ifindex int32) *layer {
	for i := range s.layers {
		if s.layers[i].ifindex == ifindex {
			return &s.layers[i]
		}
	}
	return nil
}

// noteThrough notes that a SYN which was seen leaving by an interface left by another then, at once or, as
// it may where a queue is in between, later.
func (s *Shard) noteThrough(ifindex int32, atOnce bool) {
	l := s.layer(ifindex)
	switch {
	case l == nil && !atOnce:
		return
	case l == nil:
		if len(s.layers) == maxLayers {
			s.layers = slices.Delete(s.layers, 0, 1)
		}
		s.layers = append(s.layers, layer{ifindex: ifindex})
		l = &s.layers[len(s.layers)-1]
	}
	l.through, l.passed = l.through || atOnce, s.now
}

// isAbove reports whether what leaves by an interface for a target leaves by another then, as far as is known. What the
// target has answered last has come through it, or something since: one guest's device is not above another's because
// a bridge has once sent by both what it knew no port for.
func (s *Shard) isAbove(ifindex int32, e *entry) bool {
	l := s.layer(ifindex)
	return l != nil && l.through && l.passed.Add(stackDelay) >= e.reachedAt && (l.doubted == 0 || s.now.Sub(l.doubted) >= doubtFor)
}

// noteLowest notes by which interface a SYN left last that is answered. That may be a layer: a macvlan
// has neighbours in this host that are reached through no other device. But it is doubtful where
// the target was reached through another before, or where the SYN has come through one to it: then
// something goes by it that is not seen below.
func (s *Shard) noteLowest(sl *slot, e *entry) {
	last := sl.via[1]
	if len(s.layers) == 0 || last == 0 {
		return
	}
	if l := s.layer(last); l != nil && (last != sl.via[0] || e.lowest != 0 && e.lowest != last) {
		l.through, l.doubted = false, s.now
	}
	if e.lowest == 0 {
		e.known = s.now
	}
	e.lowest, e.reachedAt = last, max(e.reachedAt, s.leftAt(sl))
}

// forgetLowest forgets by what is lost or dark targets were reached: a guest on this host has a device of its own,
// and may have gone with it; and a bridge that has no other way to them than by a cable that was pulled shows
// what nobody below it does, or its guests alone. Whose way led through a layer that is dark nobody knows, nor which
// are dark if there were too many to tell of.
func (s *Shard) forgetLowest() {
	if len(s.layers) == 0 {
		return
	}
	all := slices.ContainsFunc(s.dark, func(ifindex int32) bool { return ifindex == 0 || s.layer(ifindex) != nil })
	for _, e := range s.entries {
		if e != nil && e.lowest != 0 && (all || slices.Contains(s.dark, e.lowest) || s.isLost(addr{}, [2]int32{e.lowest, e.lowest})) {
			e.lowest = 0
		}
	}
}

// excuseBelow spoils a conversation without an answer whose SYN was seen no further than a layer,
// where the target's answers are to such as left by another device below it: this host has dropped it. Of a
// target that had not answered when it left nothing of the kind was known.
func (s *Shard) excuseBelow(i int32) {
	sl := s.table.slot(i)
	e, last := s.entries[sl.target], sl.via[1]
	if e.lowest == 0 || e.lowest == last || s.table.isSettled(sl) || s.table.isAnswered(sl) || !s.isAbove(last, e) || s.leftAt(sl) < e.known {
		return
	}
	s.trouble(e, errBelow)
	s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardSendError})
}

// mayDrop reports whether a segment of a connection is seen leaving by the layer that its SYN left
// by first: what is below may drop it yet, and if it does not, shows it too, unless it is lost or dark. A RST ends what
// it ends at its first sighting.
func (s *Shard) mayDrop(sl *slot, f *frame) bool {
	seen, e := int32(f.ifindex), s.entries[sl.target]
	return seen != sl.via[1] && seen == sl.via[0] && !f.packet.Segment.Flags.Has(probe.RST) && e.lowest != 0 && s.isAbove(seen, e)
}
