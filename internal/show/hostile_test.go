package show_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// hostile is a conversation as no network makes one: any event in any order, stamps
// that go back, segments of any kind.
func hostile(r *rand.Rand, tuple probe.FourTuple) *show.Conversation {
	var tr probe.Transcript
	tr.Reset(tuple, probe.Kind(r.IntN(6)))
	tr.Offset = r.Int64()
	var out probe.Output
	for range r.IntN(100) {
		ev := probe.Event{
			Kind: probe.EventKind(r.IntN(20)), Segment: oddSegment(r),
			ICMP: probe.ICMP{V6: r.IntN(2) == 0, Type: uint8(r.Uint32()), Code: uint8(r.Uint32()), Seq: probe.Seq(r.Uint32())},
		}
		ev.Segment.Len = r.Uint32() >> r.IntN(32)
		if r.IntN(2) == 0 {
			ev.Stamp = probe.Stamp{Wall: tr.Offset + r.Int64N(1e12) - 5e11, Clock: 1}
		}
		if r.IntN(10) == 0 {
			ev.Stamp.Wall = -r.Int64()
		}
		out.Note = probe.Note(r.IntN(60))
		tr.Add(probe.Instant(r.Int64N(1e12)), &ev, new(probe.Conversation), &out)
	}
	return show.Of(&tr)
}

// Whatever came, it is drawn within the terminal, a line a segment, and every form
// of it can be read again.
func TestHostileConversations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var list []*show.Conversation
	packets := 0
	for range 300 {
		tuple := tuple4
		if r.IntN(2) == 0 {
			tuple = tuple6
		}
		c := hostile(r, tuple)
		list = append(list, c)
		width := r.IntN(150)
		for line := range strings.Lines(ladder(t, c, show.TextOptions{Width: width})) {
			line = strings.TrimSuffix(line, "\n")
			if columns := max(width, 60); width > 0 && show.Width(line) > columns || show.SafeText(line) != line {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
		for _, o := range []show.SegmentOptions{{}, {Absolute: true, Stamp: true}} {
			for _, line := range segmentLines(c, o) {
				if show.SafeText(line) != line {
					t.Errorf("%q", line)
				}
			}
		}
		packets += len(segmentLines(c, show.SegmentOptions{}))
		b, err := json.Marshal(c.JSON())
		var back show.ConversationJSON
		if err != nil || json.Unmarshal(b, &back) != nil || len(back.Steps) != len(c.Steps) {
			t.Errorf("%v: %s", err, b)
		}
	}
	rows := tshark(t, capture(t, list...), "frame.number", "ip.checksum.status", "tcp.checksum.status")
	if len(rows) != packets {
		t.Errorf("%d packets of %d", len(rows), packets)
	}
	for _, row := range rows {
		if strings.Contains(row[1]+row[2], "0") {
			t.Errorf("packet %s has a bad checksum: IP %s, TCP %s", row[0], row[1], row[2])
		}
	}
}
