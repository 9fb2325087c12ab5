package show_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

const scripts = "../../probe/testdata/script/"

var (
	tuple4 = probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.18.0.2:4433")}
	tuple6 = probe.FourTuple{Local: netip.MustParseAddrPort("[2001:db8::1]:61000"), Remote: netip.MustParseAddrPort("[2001:db8:0:1:2:3:4:5]:4433")}
)

// start has initial sequence numbers that wrap soon.
var start = script.Start{ISS: 1<<32 - 2, IRS: 1<<31 - 1}

// play plays a script against the conversation itself and returns what was
// recorded: probe's own transcript.
func play(t testing.TB, name string, tuple probe.FourTuple) *probe.Transcript {
	t.Helper()
	file := scripts + name + ".script"
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := script.Parse(file, src)
	if err != nil {
		t.Fatal(err)
	}
	return playScript(parsed[0], tuple)
}

// playScript leaves out of what a script says of a segment that left only what
// script.Run does not compare: a segment that the conversation asked for leaves as
// it asked for it, with window and options. All have a TTL.
func playScript(s *script.Script, tuple probe.FourTuple) *probe.Transcript {
	events := s.Events(start)
	var tr probe.Transcript
	tr.Reset(tuple, s.Params.Kind)
	tr.Offset = 1_800_000_000_000_000_000 - 1_000_000_000_000 // as package script has its clocks
	c := probe.New(s.Params)
	var asked []probe.Segment
	for i := range events {
		ev := events[i].Event
		switch ev.Kind {
		case probe.Open, probe.Reopen:
			asked = append(asked, ev.Segment)
		case probe.SegmentSent:
			for j := len(asked) - 1; j >= 0; j-- {
				if a := &asked[j]; a.Seq == ev.Segment.Seq && a.Flags == ev.Segment.Flags && a.Len == ev.Segment.Len {
					ev.Segment = *a
					break
				}
			}
			ev.Segment.TTL = 64
		case probe.SegmentArrives:
			if ev.Segment.TTL == 0 {
				ev.Segment.TTL = 57
			}
		}
		var out probe.Output
		c, out = probe.Step(c, events[i].At, ev)
		asked = append(asked, out.Segments()...)
		tr.Add(events[i].At, &ev, &c, &out)
	}
	return &tr
}

// all returns every script's conversation, IPv4 and IPv6 in turn.
func all(t testing.TB) map[string]*show.Conversation {
	t.Helper()
	files, err := filepath.Glob(scripts + "*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	list := make(map[string]*show.Conversation)
	for i, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := script.Parse(file, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range parsed {
			tuple := tuple4
			if i%2 == 1 {
				tuple = tuple6
			}
			list[filepath.Base(file)+s.Value] = show.Of(playScript(s, tuple))
		}
	}
	return list
}
