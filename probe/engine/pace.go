package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

const (
	// burst is how many SYNs go out together at most: more would measure their
	// own queue.
	burst = 16
	// burstGap is the pause between two bursts when more probes are due.
	burstGap = 50 * time.Microsecond
	// paceWindow is how long the loop must have been behind without coming nearer for
	// it to hurry, and paceKeeps how long it goes on so when it is behind no more.
	paceWindow = 10 * time.Millisecond
	paceKeeps  = time.Second
)

// paces are the bursts and pauses of a loop that cannot keep up with the ones before:
// what is asked of it comes first then, and the system calls are fewer.
var paces = [...]struct {
	burst int
	gap   time.Duration
}{{burst, burstGap}, {burst, 20 * time.Microsecond}, {burst, 0}, {2 * burst, 0}, {4 * burst, 0}}

// A pace is how fast a loop sends. After a moment in which it was held up it catches up
// at the usual one; only where that is not enough for what the schedule asks does it
// hurry.
type pace struct {
	level int
	since probe.Instant // it was behind from here on; 0: it is not
	lag   time.Duration // then
	asked probe.Instant // when this level was needed last
}

// burst and gap are what the level says.
func (p *pace) burst() int         { return paces[p.level].burst }
func (p *pace) gap() time.Duration { return paces[p.level].gap }

// behind notes that more was due than went, the earliest of it lag ago.
func (p *pace) behind(now probe.Instant, lag time.Duration) {
	if p.since != 0 && now.Sub(p.since) < paceWindow {
		return
	}
	if p.since != 0 {
		if lag >= p.lag && p.level < len(paces)-1 {
			p.level++
		}
		p.asked = now
	}
	p.since, p.lag = now, lag
}

// abreast notes that all that was due has gone, or had to wait for other reasons.
func (p *pace) abreast(now probe.Instant) {
	p.since = 0
	if p.level > 0 && now.Sub(p.asked) >= paceKeeps {
		p.level--
		p.asked = now
	}
}
