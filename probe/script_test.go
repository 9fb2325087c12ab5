package probe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

// starts are the initial sequence numbers that every script is played with:
// the ordinary, and those at which arithmetic modulo 2^32 shows.
var starts = func() []script.Start {
	var list []script.Start
	numbers := []probe.Seq{0, 1000, 1<<31 - 1, 1<<32 - 1}
	for _, iss := range numbers {
		for _, irs := range numbers {
			list = append(list, script.Start{ISS: iss, IRS: irs})
		}
	}
	return list
}()

// readScripts returns the scripts of testdata/script: the sources by name, and
// all of them parsed.
func readScripts(t testing.TB) (sources map[string][]byte, scripts []*script.Script) {
	t.Helper()
	files, err := filepath.Glob("testdata/script/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	sources = make(map[string][]byte)
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := script.Parse(file, src)
		if err != nil {
			t.Fatal(err)
		}
		sources[file] = src
		scripts = append(scripts, parsed...)
	}
	return sources, scripts
}

// TestScripts plays every script from every start.
func TestScripts(t *testing.T) {
	_, scripts := readScripts(t)
	for _, s := range scripts {
		name := strings.TrimSuffix(filepath.Base(s.File), ".script")
		if s.Value != "" {
			name += "/" + s.Value
		}
		t.Run(name, func(t *testing.T) {
			for _, start := range starts {
				if _, err := s.Run(start); err != nil {
					t.Fatalf("ISS %d, IRS %d: %v", start.ISS, start.IRS, err)
				}
			}
		})
	}
}

// TestScriptsQuoteTheirRule holds every script to a first line that says what
// it pins.
func TestScriptsQuoteTheirRule(t *testing.T) {
	sources, _ := readScripts(t)
	for file, src := range sources {
		first, _, _ := strings.Cut(string(src), "\n")
		if !strings.HasPrefix(first, "# ") {
			t.Errorf("%s:1: begins with %q, not with a comment", file, first)
		}
	}
}

// TestTranscript compares the transcript of one conversation, as a person
// would read it, with testdata/transcript.golden.
func TestTranscript(t *testing.T) {
	const file = "testdata/script/syn_then_synack_then_duplicate.script"
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := script.Parse(file, src)
	if err != nil {
		t.Fatal(err)
	}
	start := script.Start{ISS: 1<<32 - 1, IRS: 1<<31 - 1}
	transcript, err := parsed[0].Run(start)
	if err != nil {
		t.Fatal(err)
	}
	got := printTranscript(&transcript, start)
	want, err := os.ReadFile("testdata/transcript.golden")
	if err != nil || got != string(want) {
		t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, got, want)
	}
}

// printTranscript writes a line per record: when it was handled, the event,
// both states after it, and the note.
func printTranscript(t *probe.Transcript, start script.Start) string {
	var b strings.Builder
	for _, r := range t.Records() {
		what := r.Event.Kind.String()
		switch r.Event.Kind {
		case probe.Open, probe.SegmentSent:
			what += " " + script.FormatSegment(&r.Event.Segment, start.ISS, start.IRS)
		case probe.SegmentArrives:
			what += " " + script.FormatSegment(&r.Event.Segment, start.IRS, start.ISS)
		}
		fmt.Fprintf(&b, "%-12v %-11v %-13v %-75s %s\n", script.Since(r.At), r.Local, r.Peer, what, r.Note)
	}
	return b.String()
}
