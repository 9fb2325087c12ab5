package status

import (
	"cmp"
	"slices"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A reached is a state of the peer's, and where on its line it came to it.
type reached struct {
	y     float64
	state probe.State
}

// peerStates says where the peer's states are on its line. A conversation infers
// them as segments leave and arrive at our end; the peer was in them when it sent or
// got those segments.
func (l *ladder) peerStates() []reached {
	var all []reached
	fin := -1 // the last rung on which our FIN left
	for i := range l.rungs {
		r := &l.rungs[i]
		if r.way == show.Out && l.c.Steps[r.step].Segment.Flags.Has(probe.FIN) {
			fin = i
		}
		if r.peer == probe.Unknown {
			continue
		}
		now := reached{l.far[i], r.peer}
		switch f := l.c.Steps[r.step].Segment.Flags; {
		case r.peer == probe.Closing && fin >= 0:
			// "FIN-WAIT-1 --> CLOSING: rcv FIN": it was our FIN that did it.
			now.y = l.far[fin]
		case r.way == show.In && f&(probe.SYN|probe.FIN|probe.RST) == 0 && len(all) > 0:
			// A bare ACK tells of what arrived there before it.
			now.y = max(now.y, all[len(all)-1].y)
		}
		for len(all) > 0 && all[len(all)-1].y >= now.y {
			all = all[:len(all)-1] // it was never in that one, or not for any time
		}
		all = append(all, now)
	}
	return all
}

// drawPeer writes the peer's states.
func (l *ladder) drawPeer() {
	lowest := 0.0
	for _, r := range l.peerStates() {
		y := max(r.y+4, lowest)
		l.line(l.right, r.y, l.right+7, y-4, "lad-tick")
		l.write(label{x: l.right + l.peerGauge, y: y, size: l.state, class: "lad-state lad-guess", text: r.state.String()})
		lowest = y + l.state + 2
	}
}

func sortSpans(all []span) {
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.y0, b.y0) })
}
