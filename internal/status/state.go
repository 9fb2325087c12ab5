package status

import "github.com/probed/probed/internal/recorder"

// A state is what became of a target's last probe. Its text is also the name of
// its shape and of its colour.
type state string

// The states, the worst first.
const (
	down    state = "down"    // the probe failed
	ours    state = "ours"    // it has no verdict, by our own fault
	unknown state = "unknown" // there has been none
	up      state = "up"
)

// stateOf is the state after a probe.
func stateOf(last recorder.Sample) state {
	switch {
	case last.Discard != 0:
		return ours
	case last.Failed():
		return down
	default:
		return up
	}
}

// states are all of them, the worst first.
var states = []state{down, ours, unknown, up}
