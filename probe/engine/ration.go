package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// A ration lets through so many at once, and one every so often: it is when the last of
// them would have gone if none had gone at once (the generic cell rate algorithm's
// theoretical arrival time). The zero value is untouched.
type ration probe.Instant

// has reports whether there is one left.
func (r ration) has(now probe.Instant, every time.Duration, atOnce int) bool {
	return probe.Instant(r).Sub(now) <= every*time.Duration(atOnce-1)
}

// take takes one.
func (r *ration) take(now probe.Instant, every time.Duration) {
	*r = ration(max(probe.Instant(*r), now).Add(every))
}

const (
	// refusedAtOnce and refusedEvery ration what goes to an address in answer to
	// what nobody believes: whoever forges its segments has no more sent to it, and leaves
	// the limit per address to probes. One that has more targets, whose peers may all
	// hold connections of a life before, has refusedApiece for each of them at once.
	refusedAtOnce = 8
	refusedApiece = 2
	refusedEvery  = 500 * time.Millisecond
	// refusalsAtOnce bounds them to all addresses together, and refusalShare is the part
	// of the global limit that they are in the long run.
	refusalsAtOnce = 64
	refusalShare   = 100
)

// mayRefuse reports whether a RST, or a challenge ACK, may go to an address in answer to what is not believed,
// and counts it.
func (s *Shard) mayRefuse(a *address) bool {
	every := refusalShare * time.Second / time.Duration(max(s.limits.Global, 1))
	atOnce := min(refusalsAtOnce, s.limits.Global/refusalShare+1)
	if !s.refusals.has(s.now, every, atOnce) || !a.refused.has(s.now, refusedEvery, max(refusedAtOnce, refusedApiece*int(a.users))) {
		return false
	}
	s.refusals.take(s.now, every)
	a.refused.take(s.now, refusedEvery)
	return true
}
