package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// Waking up is most of what a probe costs while there are few of them: what was in the
// processor's caches is not there any more. So the time of targets is parted into
// stretches of a share of their interval, and whichever probe of a stretch is due first takes the
// others along, a burst and a pause at a time. A probe so goes when it is due or up to a
// stretch earlier, never later, and since the stretches stand still, each time with the
// same others. One with a jitter goes when chance says. Where so many are due that a loop
// is never without one, none goes early.
const (
	stretchShare = 40
	maxStretch   = 25 * time.Millisecond
	// maxCompany is how many one takes along.
	maxCompany = 15
)

// A company is whom the last probe that was due may take along.
type company struct {
	due  probe.Instant // when that was
	room int           // for so many more
}

// along returns the target that comes next, and whether it goes along though it is not due.
func (s *Shard) along() (timed[int32], bool) {
	if s.company.room == 0 {
		return timed[int32]{}, false
	}
	x, soon := s.schedule.first(s.now.Add(maxStretch))
	if !soon {
		return x, false
	}
	e := s.entries[x.value]
	stretch := probe.Instant(max(min(e.interval/stretchShare, maxStretch), 1))
	return x, !e.throttled && !e.jitters && !e.counted && x.at/stretch == s.company.due/stretch
}
