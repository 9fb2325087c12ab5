package engine

import "github.com/probed/probed/probe"

// What the schedule leaves of the limits is for probes with a Count, which a web client
// may ask for, and for answers to strays. However many are asked for, they get no more
// than that, so that the schedule's go when they are due. Where it leaves nothing there is one a second of each
// address and of all.

// spare returns how many packets of any second under a limit are not the targets':
// more of theirs than on average fall due in some seconds, and a probe goes whole.
func (d demand) spare(limit, largest int) int {
	if d == 0 {
		return limit
	}
	return limit - max(int((d+d/8+packetPerSecond-1)/packetPerSecond), largest)
}

// lends returns when packets may be sent beside the schedule: now, or later.
func (s *Shard) lends(a *address, packets int) probe.Instant {
	at := s.lent.window.room(s.now, packets+s.lent.reserved, max(s.demand.spare(s.limits.Global, s.largest), packets))
	if a.lent != nil {
		at = max(at, a.lent.window.room(s.now, packets+a.lent.reserved, max(a.demand.spare(s.limits.PerAddress, s.largest), packets)))
	}
	return at
}

// lend notes that packets were sent beside the schedule.
func (s *Shard) lend(a *address, packets int) {
	if a.lent == nil {
		a.lent = new(lending)
	}
	s.lent.window.add(s.now, packets)
	a.lent.window.add(s.now, packets)
}
