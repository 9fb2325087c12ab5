package probe_test

import (
	"slices"
	"testing"
	"time"

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

// The room of a transcript is used again, but not that of a long one: it would be every target's in the end.
func TestTranscriptGivesBack(t *testing.T) {
	c := probe.New(fuzzParams[0])
	var tr probe.Transcript
	var out probe.Output
	fill := func(events int) {
		tr.Reset(probe.FourTuple{}, probe.HalfOpen)
		for i := range events {
			tr.Add(probe.Instant(i), &probe.Event{Kind: probe.Spoiled}, &c, &out)
		}
	}
	const short = 10
	fill(short)
	if n := testing.AllocsPerRun(10, func() { fill(short) }); n > 0 {
		t.Errorf("a short one after a short one takes memory %v times", n)
	}
	fill(probe.MaxRecords)
	fill(short)
	if n := cap(tr.Records()); n > 2*short {
		t.Errorf("a short one after a long one has room for %d records", n)
	}
}

// A flood of what is not believed does not push a conversation out of its own transcript:
// what happened stays, in order, and each figure with its record.
func TestTranscriptKeepsWhatWasBelieved(t *testing.T) {
	const forged = 500
	c := probe.New(probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: time.Second, Prompt: true})
	var tr, since probe.Transcript
	tr.Reset(probe.FourTuple{}, probe.ActiveClose)
	since.Reset(probe.FourTuple{}, probe.ActiveClose)
	now := probe.Instant(time.Second)
	to := &tr
	step := func(ev probe.Event) {
		now = now.Add(time.Millisecond)
		ev.Stamp = probe.Stamp{Wall: int64(now), Clock: 1}
		var out probe.Output
		c, out = probe.Step(c, now, ev)
		to.Add(now, &ev, &c, &out)
	}
	arrives := func(f probe.Flags, seq, ack probe.Seq) {
		step(probe.Event{Kind: probe.SegmentArrives, Segment: probe.Segment{Flags: f, Seq: seq, Ack: ack, Window: 1000}})
	}
	sent := func(f probe.Flags, seq, ack probe.Seq) {
		step(probe.Event{Kind: probe.SegmentSent, Segment: probe.Segment{Flags: f, Seq: seq, Ack: ack}})
	}
	flood := func() {
		for range forged {
			arrives(probe.RST|probe.ACK, 77777777, 99)
		}
	}
	syn := probe.Segment{Flags: probe.SYN, Window: 1000}
	step(probe.Event{Kind: probe.Open, Segment: syn})
	flood()
	sent(probe.SYN, 0, 0)
	flood()
	arrives(probe.SYN|probe.ACK, 0, 1)
	sent(probe.ACK, 1, 1)
	sent(probe.FIN|probe.ACK, 1, 1)
	sent(probe.ACK, 0, 1)
	flood()
	arrives(probe.ACK, 1, 2)
	to = &since
	flood()
	arrives(probe.FIN|probe.ACK, 1, 2)
	sent(probe.ACK, 2, 2)
	flood()
	tr.Extend(&since)
	var notes []probe.Note
	for _, r := range tr.Records() {
		if !r.Note.Disbelieves() {
			notes = append(notes, r.Note)
		}
	}
	want := []probe.Note{probe.NoteOpen, probe.NoteSYNSent, probe.NoteSYNACK, probe.NoteLeft, probe.NoteFINLeft, probe.NotePrompt, probe.NoteFINAcked, probe.NotePeerFIN, probe.NoteLeft}
	if !slices.Equal(notes, want) {
		t.Errorf("%v, want %v", notes, want)
	}
	if n := len(tr.Records()); n != probe.MaxDisbelieved+len(want) || tr.Lost != 0 {
		t.Errorf("%d records and %d lost", n, tr.Lost)
	}
	kinds := map[probe.ObservationKind]probe.Note{
		probe.HandshakeRTT: probe.NoteSYNACK, probe.FINACKRTT: probe.NoteFINAcked, probe.CloseWaitTime: probe.NotePeerFIN,
		probe.Verdict: probe.NotePeerFIN, probe.Teardown: probe.NoteLeft,
	}
	for i := range tr.Figures() {
		f := &tr.Figures()[i]
		note, ok := kinds[f.Kind]
		if at := tr.RecordOf(f); ok && (at < 0 || tr.Records()[at].Note != note) {
			t.Errorf("%v is with record %d", f.Kind, at)
		}
		delete(kinds, f.Kind)
	}
	if len(kinds) > 0 {
		t.Errorf("without %v", kinds)
	}
}
