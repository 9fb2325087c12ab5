package show_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	var asked, left []probe.Segment
	for i := range events {
		ev := events[i].Event
		switch ev.Kind {
		case probe.Open, probe.Reopen:
			asked = append(asked, ev.Segment)
		case probe.SegmentSent:
			same := func(a probe.Segment) bool {
				return a.Seq == ev.Segment.Seq && a.Flags == ev.Segment.Flags && a.Len == ev.Segment.Len
			}
			if j := slices.IndexFunc(asked, same); j >= 0 {
				ev.Segment = asked[j]
				left, asked = append(left, asked[j]), slices.Delete(asked, j, j+1)
			} else if j := slices.IndexFunc(left, same); j >= 0 {
				ev.Segment = left[j] // seen on a second device
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

// all returns every script's conversation, IPv4 and IPv6 in turn, each
// from a port of its own.
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
			tuple.Local = netip.AddrPortFrom(tuple.Local.Addr(), uint16(61000+len(list)))
			list[filepath.Base(file)+s.Value] = show.Of(playScript(s, tuple))
		}
	}
	return list
}
