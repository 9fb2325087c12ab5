package probe_test

import (
	"slices"
	"testing"

	"github.com/probed/probed/probe"
)

// A transcript that is handed over in two parts, wherever it is cut, is the whole one
// once they are joined: its records, figures and what it counts as lost.
func TestTranscriptInTwoParts(t *testing.T) {
	for _, events := range []int{0, 1, 5, probe.FirstRecords, probe.MaxRecords - 1, probe.MaxRecords, probe.MaxRecords + 1, 3 * probe.MaxRecords} {
		for _, cut := range []int{0, 1, 4, probe.FirstRecords - 1, probe.FirstRecords, probe.FirstRecords + 1, probe.MaxRecords, 2 * probe.MaxRecords} {
			if cut > events {
				continue
			}
			var whole, first, since probe.Transcript
			c := probe.New(fuzzParams[0])
			var out probe.Output
			for i := range events {
				ev := probe.Event{Kind: probe.SegmentArrives, Segment: probe.Segment{Flags: probe.SYN | probe.ACK, Seq: probe.Seq(i), Ack: 101}}
				switch i {
				case 0:
					ev = probe.Event{Kind: probe.Open, Segment: probe.Segment{Flags: probe.SYN, Seq: 100}}
				case cut, events - 1:
					ev = probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardTapDrop}
				}
				c.Step(probe.Instant(i), &ev, &out)
				whole.Add(probe.Instant(i), &ev, &c, &out)
				if i < cut {
					first.Add(probe.Instant(i), &ev, &c, &out)
				} else {
					since.Add(probe.Instant(i), &ev, &c, &out)
				}
			}
			first.Extend(&since)
			if !slices.Equal(first.Records(), whole.Records()) || !slices.Equal(first.Figures(), whole.Figures()) || first.Lost != whole.Lost {
				t.Fatalf("%d events, cut at %d: %d records, %d lost, %v; not %d, %d, %v", events, cut,
					len(first.Records()), first.Lost, first.Figures(), len(whole.Records()), whole.Lost, whole.Figures())
			}
		}
	}
}
