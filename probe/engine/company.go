package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// Waking up is most of what a probe costs while there are few of them: what was in the
// processor's caches is not there any more. So the time of targets is parted into
// stretches of a share of their interval, and whichever probe of a stretch is due first takes the
// others along, a burst and a pause at a time. While one can take all of its stretch along, the
// loop wakes as the next stretch begins, so that it sleeps once a stretch, and reads what has
// been answered meanwhile when it sends anyhow. A probe so goes when it is due or up to a
// stretch and two milliseconds earlier, never later, and since the stretches stand still, each
// time with the same others. One with a jitter goes when chance says. Where so many are due
// that a loop is never without one, none goes early.
const (
	stretchShare = 40
	maxStretch   = 25 * time.Millisecond
	// few is the demand up to which stretches are twice as long.
	few = 1000 * packetPerSecond
	// maxCompany is how many one takes along.
	maxCompany = 31
	// early is how much sooner than asked a wait may end (Network.Wait). A stretch begins so much
	// before its time, lest the loop wait again.
	early = 2 * time.Millisecond
)

// A company is whom the last probe that was due may take along.
type company struct {
	due  probe.Instant // when that was
	room int           // for so many more
	all  bool          // there are others, and it has room for all of a stretch, as far as is known
}

// stretch is how long a target's stretches are, and 0 if it goes when it is due.
func (s *Shard) stretch(e *entry) probe.Instant {
	if e.throttled || e.jitters || e.counted {
		return 0
	}
	d := min(e.interval/stretchShare, maxStretch)
	// Of a peer with little more room than it needs, a burst is much of that.
	if s.demand <= few && (e.peer == nil || e.peer.address.demand < demand(s.limits.PerAddress)*packetPerSecond/4) {
		d *= 2
	}
	return probe.Instant(max(d, 1))
}

// longest is how long stretches are at most.
func (s *Shard) longest() time.Duration {
	if s.demand <= few {
		return 2 * maxStretch
	}
	return maxStretch
}

// next returns the target that comes next, and whether it is to go: it is due, or is one of
// the stretch that is under way.
func (s *Shard) next() (x timed[int32], goes bool) {
	if x, goes = s.schedule.first(s.now); goes {
		return x, true
	}
	x, soon := s.schedule.first(s.now.Add(s.longest() + early))
	if !soon {
		return x, false
	}
	c, stretch := &s.company, s.stretch(s.entries[x.value])
	return x, stretch > 0 && (c.room > 0 && x.at/stretch == c.due/stretch || c.all && x.at/stretch*stretch <= s.now+min(probe.Instant(early), stretch))
}

// take notes that a target goes.
func (c *company) take(x timed[int32], now, stretch probe.Instant) {
	if x.at > now && c.room > 0 && stretch > 0 && x.at/stretch == c.due/stretch {
		c.room--
		c.all = c.room > 0
		return
	}
	c.due, c.room = x.at, maxCompany
}

// wake is when a target is to go that does not yet.
func (s *Shard) wake(x timed[int32]) probe.Instant {
	if stretch := s.stretch(s.entries[x.value]); stretch > 0 && s.company.all {
		return x.at / stretch * stretch
	}
	return x.at
}
