package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

const (
	// burst is how many SYNs go out together at most: more would measure their
	// own queue. Of 10,000 probes a second over a veth whose other end has a core of
	// its own the median round trip was 7 µs in bursts of 1, 17 of 4, and 32 of 16 or
	// all that were due (go test -bench Pacing ./internal/host); bursts of 1 cost twice
	// the processor time of all at once, of 4 a fifth more.
	burst = 4
	// burstGap is the pause between two bursts when more probes are due.
	burstGap = 50 * time.Microsecond
	// paceWindow is how long the loop must have been behind without coming nearer for
	// it to hurry, and paceKeeps how long it goes on so when it is behind no more.
	paceWindow = 10 * time.Millisecond
	paceKeeps  = time.Second
)

// paces are what bursts and pauses become for a loop that cannot keep up with the ones
// before: what is asked of it comes first then, and the system calls are fewer.
var paces = [...]struct{ burst, gap int }{{1, 2}, {4, 2}, {4, 1}, {4, 0}, {8, 0}, {16, 0}} // times the usual burst, half the usual gap

// A pace is how fast a loop sends. After a moment in which it was held up it catches up
// at the usual one; only where that is not enough for what the schedule asks does it
// hurry.
type pace struct {
	usual    int
	usualGap time.Duration

	level int
	since probe.Instant // it was behind from here on; 0: it is not
	lag   time.Duration // then
	asked probe.Instant // when this level was needed last
}

func newPace(usual int, gap time.Duration) pace {
	if usual <= 0 {
		usual = burst
	}
	if gap <= 0 {
		gap = burstGap
	}
	return pace{usual: usual, usualGap: gap}
}

// burst and gap are what the level says.
func (p *pace) burst() int         { return p.usual * paces[p.level].burst }
func (p *pace) gap() time.Duration { return p.usualGap / 2 * time.Duration(paces[p.level].gap) }

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
