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
// stretch earlier, never later, and since the stretches stand still, each time with the
// same others. One with a jitter goes when chance says. Where so many are due that a loop
// is never without one, none goes early.
const (
	stretchShare = 40
	maxStretch   = 25 * time.Millisecond
	// maxCompany is how many one takes along.
	maxCompany = 31
)

// A company is whom the last probe that was due may take along.
type company struct {
	due  probe.Instant // when that was
	room int           // for so many more
	all  bool          // there are others, and it has room for all of a stretch, as far as is known
}

// stretch is how long a target's stretches are, and 0 if it goes when it is due.
func (e *entry) stretch() probe.Instant {
	if e.throttled || e.jitters || e.counted {
		return 0
	}
	return probe.Instant(max(min(e.interval/stretchShare, maxStretch), 1))
}

// next returns the target that comes next, and whether it is to go: it is due, or is one of
// the stretch that is under way.
func (s *Shard) next() (x timed[int32], goes bool) {
	if x, goes = s.schedule.first(s.now); goes {
		return x, true
	}
	x, soon := s.schedule.first(s.now.Add(maxStretch))
	if !soon {
		return x, false
	}
	c, stretch := &s.company, s.entries[x.value].stretch()
	return x, stretch > 0 && (c.room > 0 && x.at/stretch == c.due/stretch || c.all && x.at/stretch*stretch <= s.now)
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
	if stretch := s.entries[x.value].stretch(); stretch > 0 && s.company.all {
		return x.at / stretch * stretch
	}
	return x.at
}
