package status

import (
	"testing"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// crowded is a conversation of as many steps as are kept, all of them at once and
// none like the one before.
func crowded(t testing.TB) *show.Conversation {
	c := play(t, "active_close_simultaneous")[0].c
	steps := c.Steps[:len(c.Steps)-1]
	notes := []string{"data", "data ahead of its turn", "outside the window", "acknowledgement not believed", "challenge ACK"}
	for n := len(steps); n < probe.MaxRecords; n++ {
		s := steps[4+n%2]
		s.At += time.Duration(n) * time.Microsecond
		s.Segment.Len, s.Segment.Seq = uint32(n*n), s.Segment.Seq+probe.Seq(n*1000)
		s.Note = notes[n%len(notes)]
		steps = append(steps, s)
	}
	c.Steps = steps
	return c
}

// A flood of segments is drawn as well, in little time.
func TestLadderCrowded(t *testing.T) {
	c := crowded(t)
	for _, g := range []geometry{wideGeometry(), narrowGeometry()} {
		l := drawLadder(c, g)
		for _, bad := range overlaps(&l.canvas, l.width, l.height) {
			t.Errorf("%s: %s", g.id, bad)
		}
	}
}

func BenchmarkLadder(b *testing.B) {
	c := crowded(b)
	for b.Loop() {
		ladderSVG(c)
		narrowLadderSVG(c)
	}
}
