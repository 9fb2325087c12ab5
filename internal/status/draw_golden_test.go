package status

import (
	flags "flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

var rewrite = flags.Bool("update", false, "rewrite the golden files")

// The ladders of some conversations are as a person has looked at them. -update
// rewrites them.
func TestLadderGolden(t *testing.T) {
	for _, name := range []string{
		"active_close_four_way", "active_close_three_way", "active_close_simultaneous", "active_close_fin_lost",
		"syn_then_silence", "syn_then_rst_odd_flags", "syn_then_icmp_host_unreachable", "time_wait_reuse_recycled",
	} {
		p := play(t, name)[0]
		for _, drawn := range []struct {
			suffix string
			svg    string
		}{{"", string(ladderSVG(p.c))}, {".narrow", string(narrowLadderSVG(p.c))}} {
			file := filepath.Join("testdata", "ladder", name+drawn.suffix+".svg")
			got := strings.ReplaceAll(drawn.svg, "><", ">\n<")
			if *rewrite {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%s: it is drawn otherwise (%v): look at it, then -update", file, err)
			}
		}
	}
}

// Long addresses, and those with a zone, have their place as well.
func TestLadderLongAddresses(t *testing.T) {
	for _, p := range play(t, "active_close_*") {
		p.c.Tuple = probe.FourTuple{
			Local:  netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:61000"),
			Remote: netip.MustParseAddrPort("[fe80::1111:2222:3333:4444%very-long-if0]:65535"),
		}
		for _, g := range []geometry{wideGeometry(), narrowGeometry()} {
			l := drawLadder(p.c, g)
			for _, bad := range overlaps(&l.canvas, l.width, l.height) {
				t.Errorf("%s, %s: %s", p.name, g.id, bad)
			}
		}
	}
}

// What comes from outside is text in a picture as well.
func TestLadderHostile(t *testing.T) {
	c := play(t, "active_close_four_way")[0].c
	const bad = "</text><script>alert(1)</script>\"'&\x1b[31m\u202e"
	c.Tuple.Remote = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(bad), 443)
	for i := range c.Steps {
		c.Steps[i].Note = bad
	}
	for i := range c.Marks {
		c.Marks[i].Name = bad
	}
	for _, svg := range []string{string(ladderSVG(c)), string(narrowLadderSVG(c))} {
		if strings.Contains(svg, "<script") || strings.ContainsAny(svg, "\x1b\u202e") {
			t.Errorf("a note has become a part of the picture: %.300s", svg[strings.Index(svg, "script")-100:])
		}
	}
}

// A conversation is shown from its beginning, with how many steps are missing, and one
// that nothing was opened for says so.
func TestLadderGaps(t *testing.T) {
	c := play(t, "time_wait_duration_linux")[0].c
	c.Lost, c.LostAt = 12, 8
	if svg := string(ladderSVG(c)); !strings.Contains(svg, "… 12 steps not kept …") {
		t.Error("steps are missing, and the ladder does not say so")
	}
	none := show.Conversation{
		Kind: probe.HalfOpen, Settled: true, Reason: probe.NotResolved,
		Steps: []show.Step{{Local: probe.Closed, Note: probe.NoteNotOpened.String()}},
	}
	svg := string(ladderSVG(&none))
	for _, want := range []string{"not opened", "verdict: not_resolved"} {
		if !strings.Contains(svg, want) {
			t.Errorf("a probe without an address: no %q", want)
		}
	}
	empty := show.Conversation{}
	if svg := string(ladderSVG(&empty)); !strings.Contains(svg, "unsettled") {
		t.Error("an empty one is not drawn")
	}
}

// An exchange that repeats itself is not drawn over and over.
func TestLadderShortens(t *testing.T) {
	c := play(t, "time_wait_duration_linux")[0].c
	var steps []show.Step
	steps = append(steps, c.Steps[:8]...)
	touch := c.Steps[8:11] // the timer, our SYN, the ACK
	if touch[1].Way != show.Out || touch[2].Way != show.In {
		t.Fatalf("the script has changed: %v", touch)
	}
	for n := range 15 {
		for _, s := range touch {
			s.At += time.Duration(n) * time.Second
			s.Wall += int64(n) * int64(time.Second)
			steps = append(steps, s)
		}
	}
	c.Steps = steps
	c.Marks = nil
	svg := string(ladderSVG(c))
	if !strings.Contains(svg, "… 12 more like these, 12 s …") {
		t.Error("fifteen touches are not shortened")
	}
	if n := strings.Count(svg, "still in TIME-WAIT</text>"); n != 3 {
		t.Errorf("%d touches are drawn, want 3", n)
	}
}

// The scale is one: of gaps that are neither stretched nor broken, each is as high as
// it is long.
func TestLadderToScale(t *testing.T) {
	for _, p := range play(t, "*") {
		l := drawLadder(p.c, wideGeometry())
		if l.oneWay == 0 {
			continue
		}
		for i := 1; i < len(l.rungs); i++ {
			a, b := &l.rungs[i-1], &l.rungs[i]
			if a.band != "" || b.band != "" {
				continue
			}
			y0, y1 := l.near[i-1], l.near[i]
			straight := true
			for _, s := range l.cuts() {
				if s.y0 < y1 && s.y1 > y0 {
					straight = false
				}
			}
			want := float64(b.when-a.when) * l.perNS
			// Each moment of the peer's between the two may have been nudged.
			if high := y1 - y0; straight && (high < want-0.01 || high > want+4*nudge) {
				t.Errorf("%s: %v is %.1f high, want %.1f", p.name, b.when-a.when, high, want)
			}
		}
	}
}

// Nothing arrives before it is sent.
func TestLadderRunsDownwards(t *testing.T) {
	for _, p := range play(t, "*") {
		l := drawLadder(p.c, wideGeometry())
		last := 0.0
		for i := range l.rungs {
			r := &l.rungs[i]
			if l.near[i] < last {
				t.Errorf("%s: rung %d goes up", p.name, i)
			}
			last = l.near[i]
			if r.band == "" && r.way == show.Out && l.far[i] <= l.near[i] || (r.way == show.In || r.way == show.Error) && l.far[i] >= l.near[i] {
				t.Errorf("%s: rung %d arrives before it is sent: %.0f, %.0f", p.name, i, l.near[i], l.far[i])
			}
		}
	}
}
