package engine

import (
	"errors"
	"time"

	"github.com/probed/probed/probe"
)

// A SYN for a neighbour whose link address is not known waits in this host, for
// seconds, and all that wait leave together when it is. So that this is no burst
// above the limits, few are let wait for one address. Our kernel answers those
// with an ICMP error in the end, and those are the verdicts.
const (
	maxUnsent = 3
	// unsentAfter is the least time after which a SYN that the tap has not
	// seen leaving is taken to lie in this host.
	unsentAfter = 2 * time.Millisecond
)

// A departure is a SYN that was handed to the kernel and is to be looked for.
type departure struct {
	at   probe.Instant
	conv ref
}

// noticeUnsent looks for the SYNs that should have been seen leaving by now.
func (s *Shard) noticeUnsent() {
	n := 0
	for n < len(s.leaving) && s.leaving[n].at.Add(unsentAfter) <= s.caughtUp {
		r := s.leaving[n].conv
		n++
		sl := &s.table.slots[r.slot]
		if sl.generation == r.generation && !sl.conv.Left() && !sl.conv.Settled() {
			sl.unsent = true
			sl.target.peer.address.unsent++
		}
	}
	if n > 0 {
		s.leaving = s.leaving[:copy(s.leaving, s.leaving[n:])]
	}
}

// noteSent keeps account of a SYN that lay in this host and does no more.
func (s *Shard) noteSent(sl *slot) {
	if sl.unsent && (sl.conv.Left() || sl.conv.Settled()) {
		sl.unsent = false
		a := sl.target.peer.address
		a.unsent--
		if sl.conv.Left() {
			// It leaves only now: what goes later goes after it.
			packets := sl.target.Params.Packets()
			s.window.add(s.now, packets)
			a.window.add(s.now, packets)
		}
	}
}

// errNoReset is a finding about this host, not an error of a call.
var errNoReset = errors.New("no RST of this host's kernel was seen leaving after the SYN-ACK, so that probed sends its own: " +
	"a firewall rule or rp_filter keeps the SYN-ACK from the kernel or its RST from leaving")

// trouble reports what this host has against a target's segments.
func (s *Shard) trouble(e *entry, err error) {
	if text := err.Error(); text != e.trouble {
		e.trouble = text
		s.cfg.Observer.Trouble(e.Target, err)
	}
}
