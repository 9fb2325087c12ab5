package engine

import (
	"errors"
	"time"

	"github.com/probed/probed/probe"
)

// A SYN for a neighbour whose link address is not known waits in this host, for
// seconds, and all that wait leave together when it is. So that this is no burst
// above the limits, few are let wait for one address, and what waits counts for
// them until it has left. Our kernel answers those with an ICMP error in the end,
// and those are the verdicts.
const (
	maxUnsent = 3
	// unsentAfter is the least time after which a SYN that the tap has not seen
	// leaving is taken to lie in this host: longer than a queue of our own
	// should be.
	unsentAfter = 100 * time.Millisecond
	// scoutEvery is how often one more goes all the same: if it leaves at once, a queue
	// has dropped the others, which would else be waited for.
	scoutEvery = time.Second
)

// A departure is a SYN that was handed to the kernel and is to be looked for.
type departure struct {
	at   probe.Instant
	conv ref
}

// noticeUnsent looks for the SYNs that should have been seen leaving by now.
func (s *Shard) noticeUnsent() {
	for s.leaving.len() > 0 && s.leaving.first().at.Add(unsentAfter) <= s.caughtUp {
		r := s.leaving.first().conv
		s.leaving.pop()
		if !s.table.is(r) {
			continue
		}
		if sl := s.table.slot(r.slot); !s.table.hasLeft(sl) && !s.table.isSettled(sl) {
			e := s.entries[sl.target]
			a := e.peer.address
			sl.unsent, sl.passed = true, a.passed
			s.setUnsent(a, e.manner.booked)
		}
	}
}

func (s *Shard) setUnsent(a *address, more int) {
	a.unsent += int32(more)
	s.unsent += more
}

// noteSent keeps account of what lies in this host when a SYN has left, or is
// waited for no more.
func (s *Shard) noteSent(sl *slot, e *entry) {
	left := s.table.hasLeft(sl)
	if !left && !s.table.isSettled(sl) {
		return
	}
	sl.unsent = false
	a, packets := e.peer.address, e.manner.booked
	if sl.passed == a.passed {
		s.setUnsent(a, -packets)
	}
	if left {
		// It leaves only now: what goes later goes after it.
		s.window.add(s.now, packets)
		a.window.add(s.now, packets)
	}
}

// passUnsent notes that a SYN has left without having waited. The neighbour is
// known, then, and what it does not let wait any more was dropped by a queue.
func (s *Shard) passUnsent(sl *slot, e *entry) {
	if s.unsent == 0 { // as nearly always: the address is not looked at
		return
	}
	if a := e.peer.address; !sl.unsent && a.unsent > 0 {
		s.setUnsent(a, -int(a.unsent))
		a.passed++
	}
}

// errUnsent is a finding about this host, not an error of a call.
var errUnsent = errors.New("SYNs to it are not seen leaving: its neighbour does not answer ARP or ND, " +
	"NAT on this host gives them another source or destination, or they wait in a queue")

// errNoReset is a finding about this host, not an error of a call.
var errNoReset = errors.New("no RST of this host's kernel was seen leaving in time after the SYN-ACK, so that probed sends its own: " +
	"a firewall rule or rp_filter keeps the SYN-ACK from the kernel or its RST from leaving, or it waits in a queue")

// errBypassed is a finding about this host, not an error of a call.
var errBypassed = errors.New("no RST of this host's kernel was seen leaving in time after the SYN-ACK, so that probed sends its own " +
	"and goes on with transmit: raw for ten minutes: packets past this host's firewall are unknown to a rule that asks for their connection's state")

// What goes past a firewall is taken to be hindered by that once our kernel did not
// reset enoughUnreset probes of a peer one after another, and is tried again later.
const (
	enoughUnreset = 3
	rawAgain      = 10 * time.Minute
)

// noReset notes that our kernel did not reset a SYN-ACK within grace. A firewall that
// follows connections knows of none whose SYN went past it, and keeps the SYN-ACK
// from the kernel: so what goes past it is the first to be given up, with this peer.
// Where the tap has lost frames, the RST may have been among them.
func (s *Shard) noReset(sl *slot, e *entry, grace time.Duration) {
	p := e.peer
	switch {
	case s.drops > 0 && s.now.Sub(s.dropped) < grace+time.Second:
	case !sl.direct:
		if e.resetsItself = true; e.resetsUnseen {
			return
		}
		e.resetsUnseen = true
		s.cfg.Observer.Trouble(e.Target, errNoReset)
	case sl.packets == 2 && s.now >= p.raw: // the conversation's first
		if p.unreset++; p.unreset < enoughUnreset {
			return
		}
		p.unreset, p.raw = 0, s.now.Add(rawAgain)
		if !e.hindered {
			e.hindered = true
			s.cfg.Observer.Trouble(e.Target, errBypassed)
		}
	}
}

// errInOurName is a finding about this host, not an error of a call.
var errInOurName = errors.New("a RST that is not of probed's making was seen leaving on one of its connections: " +
	"a firewall of this host rejects what the peer sends (reject with tcp reset), so that the probe is discarded")

// errRejected is a finding about this host, not an error of a call.
var errRejected = errors.New("an ICMP error of this host's own in answer to the SYN-ACK was seen leaving: " +
	"a firewall of this host rejects it, and where the peer gives the connection up for that the probe is discarded")

// errRejectedPast is a finding about this host, not an error of a call.
var errRejectedPast = errors.New("a firewall of this host rejects what the peer sends by a RST or an ICMP error that was seen leaving, so that probed " +
	"goes on with transmit: raw for ten minutes: packets past this host's firewall are unknown to a rule that asks for their connection's state")

// rejects notes that a firewall of this host has rejected what the peer of a connection sent.
// What goes past one that follows connections is rejected for that, and goes by raw sockets from
// then on. err says so of what does not.
func (s *Shard) rejects(sl *slot, e *entry, err error) {
	p := e.peer
	switch {
	case !sl.direct && !e.rejects:
		e.rejects = true
		s.cfg.Observer.Trouble(e.Target, err)
	case sl.direct && s.now >= p.raw:
		p.unreset, p.raw = 0, s.now.Add(rawAgain)
		if !e.hindered {
			e.hindered = true
			s.cfg.Observer.Trouble(e.Target, errRejectedPast)
		}
	}
}

// noteRejected notes an ICMP error of this host's that answers a SYN-ACK.
func (s *Shard) noteRejected(i int32, icmp *probe.ICMP) {
	sl := s.table.slot(i)
	if sl.whole == none {
		return
	}
	if w := s.table.wholes.at(sl.whole); w.Rejects(icmp) {
		w.rejected = true
		s.rejects(sl, s.entries[sl.target], errRejected)
	}
}

// excuseRejected spoils a connection that the peer resets at its beginning, if this host has
// rejected its SYN-ACK.
func (s *Shard) excuseRejected(i int32, seg *probe.Segment) {
	sl := s.table.slot(i)
	if sl.whole == none || !s.table.wholes.at(sl.whole).rejected {
		return
	}
	if w := s.table.wholes.at(sl.whole); !w.Settled() && w.Disowns(seg) {
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardSendError})
	}
}

// trouble reports what this host has against a target's segments.
func (s *Shard) trouble(e *entry, err error) {
	if text := err.Error(); !e.troubled || text != *e.trouble {
		e.trouble, e.troubled = new(text), true
		s.cfg.Observer.Trouble(e.Target, err)
	}
}

// untroubled notes that a segment has left.
func (e *entry) untroubled() {
	if e.troubled {
		e.trouble, e.troubled = nil, false
	}
}
