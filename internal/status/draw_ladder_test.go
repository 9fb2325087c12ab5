package status

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A played is a script's conversation.
type played struct {
	name string
	tr   probe.Transcript
	c    *show.Conversation
}

// play returns the conversations of the scripts that a pattern names.
func play(t testing.TB, pattern string) []played {
	t.Helper()
	all := playTranscripts(t, pattern)
	for i := range all {
		all[i].c = show.Of(&all[i].tr)
	}
	return all
}

func playTranscripts(t testing.TB, pattern string) []played {
	t.Helper()
	files, err := filepath.Glob("../../probe/testdata/script/" + pattern + ".script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no script %s: %v", pattern, err)
	}
	var all []played
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		scripts, err := script.Parse(file, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scripts {
			tr, err := s.Run(script.Start{ISS: 1<<32 - 2, IRS: 900})
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(filepath.Base(file), ".script")
			if s.Value != "" {
				name += "/" + s.Value
			}
			tr.Number = uint64(len(all) + 1)
			tr.Offset = 1_800_000_000_000_000_000 - 1_000_000_000_000 // script's wall clock less its monotonic one
			tr.Tuple = probe.FourTuple{
				Local:  netip.MustParseAddrPort("198.18.0.1:61000"),
				Remote: netip.MustParseAddrPort("198.18.0.2:443"),
			}
			all = append(all, played{name: name, tr: tr})
		}
	}
	return all
}

// overlaps returns which labels of a picture are in each other's way, and which leave
// it.
func overlaps(c *canvas, w, h float64) []string {
	var bad []string
	for i := range c.labels {
		a := c.labels[i].box()
		for _, p := range a.corner {
			if p.x < 0 || p.y < 0 || p.x > w || p.y > h {
				bad = append(bad, fmt.Sprintf("%q leaves the picture at %.0f, %.0f", c.labels[i].text, p.x, p.y))
				break
			}
		}
		for j := range i {
			if c.labels[i].over(&c.labels[j]) {
				bad = append(bad, fmt.Sprintf("%q is over %q at %.0f, %.0f", c.labels[i].text, c.labels[j].text, a.corner[0].x, a.corner[0].y))
			}
		}
	}
	return bad
}

// Nothing that is written on a ladder covers something else, whatever the
// conversation was.
func TestLadderLabelsApart(t *testing.T) {
	for _, p := range play(t, "*") {
		for _, g := range []geometry{wideGeometry(), narrowGeometry()} {
			l := drawLadder(p.c, g)
			if most := 150 * float64(len(l.rungs)+1); l.height > most {
				t.Errorf("%s, %s: %.0f high, more than %.0f", p.name, g.id, l.height, most)
			}
			for _, bad := range overlaps(&l.canvas, l.width, l.height) {
				t.Errorf("%s, %s: %s", p.name, g.id, bad)
			}
		}
	}
}
