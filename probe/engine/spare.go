package engine

import "github.com/probed/probed/probe"

// What the schedule leaves of the limits is for those who ask: for probes with a Count,
// which a web client may ask for, and for answers to strays, which a forger may. However
// much they ask, they get no more than that, so that the schedule's probes go when they
// are due. Where it leaves nothing, there is a probe, or an answer, a second of each
// address and of all.

// strayPart is the part of what the schedule leaves that answers to strays may take.
const strayPart = 2

// spare returns how many packets of any second under a limit are not the targets':
// more of theirs than on average fall due in some seconds, and a probe goes whole.
func (d demand) spare(limit, largest int) int {
	if d == 0 {
		return limit
	}
	return limit - max(int((d+d/8+packetPerSecond-1)/packetPerSecond), largest)
}

// lends returns when packets may be sent beside the schedule, if they get a part of
// what it leaves: now, or later.
func (s *Shard) lends(a *address, packets, part int) probe.Instant {
	at := s.lent.room(s.now, packets, max(s.demand.spare(s.limits.Global, s.largest)/part, packets))
	if a.lent != nil {
		at = max(at, a.lent.room(s.now, packets, max(a.demand.spare(s.limits.PerAddress, s.largest)/part, packets)))
	}
	return at
}

// lend notes that packets were sent beside the schedule.
func (s *Shard) lend(a *address, packets int) {
	if a.lent == nil {
		a.lent = new(window)
	}
	s.lent.add(s.now, packets)
	a.lent.add(s.now, packets)
}

// answers takes the packet of an answer to a stray, if there is room for it.
func (s *Shard) answers(a *address) bool {
	if s.lends(a, 1, strayPart) > s.now || s.window.room(s.now, 1, s.limits.Global) > s.now || a.window.room(s.now, 1, s.limits.PerAddress) > s.now {
		return false
	}
	s.lend(a, 1)
	s.window.add(s.now, 1)
	a.window.add(s.now, 1)
	return true
}
