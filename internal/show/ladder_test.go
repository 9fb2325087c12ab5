package show_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

func ladder(t testing.TB, c *show.Conversation, o show.TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := c.WriteLadder(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// flood is a conversation of which not all steps are kept: a hundred copies of the
// SYN-ACK arrive before our RST leaves.
func flood(t testing.TB) *show.Conversation {
	t.Helper()
	src := "# more than is kept\nhalf_open timeout 900ms linger 5s grace 50ms\n+0 open\n> S 0 win 64240 <mss 1460>\n+10us sent S 0\n"
	src += strings.Repeat("+1ms < S. 0 ack 1 win 65160 <mss 1460>\n", 101)
	src += "+10us sent R 1\n+5s TIME-WAIT TIMEOUT\n"
	parsed, err := script.Parse("flood", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c := show.Of(playScript(parsed[0], tuple4))
	if c.Lost == 0 {
		t.Fatal("every step was kept")
	}
	return c
}

// drawn are the conversations with a golden file.
func drawn(t testing.TB) map[string]*show.Conversation {
	t.Helper()
	far := probe.FourTuple{
		Local:  netip.MustParseAddrPort("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:1]:61255"),
		Remote: netip.MustParseAddrPort("[2001:db8:ffff:ffff:ffff:ffff:ffff:2]:65535"),
	}
	list := map[string]*show.Conversation{"lost": flood(t)}
	for name, scripted := range map[string]string{
		"answered": "syn_then_synack_all_options", "timeout": "syn_then_silence", "refused": "syn_then_rst",
		"icmp": "syn_then_icmp_host_unreachable", "discarded": "syn_then_synack_clock_stepped",
		"four_way": "active_close_four_way", "three_way": "active_close_three_way", "simultaneous": "active_close_simultaneous",
		"half_close": "active_close_half_close_data", "fin_missing": "active_close_fin_missing", "reset": "active_close_rst_exact",
		"passive": "passive_close_separate", "send": "passive_close_response_and_fin",
		"reuse": "time_wait_reuse_recycled", "challenge": "time_wait_reuse_challenge_ack", "duration": "time_wait_duration_linux",
	} {
		list[name] = show.Of(play(t, scripted, tuple4))
	}
	list["ipv6"] = show.Of(play(t, "active_close_four_way", far))
	list["icmp6"] = show.Of(play(t, "syn_then_icmp6_prohibited", far))
	return list
}

var update = flag.Bool("update", false, "rewrite the golden files")

// The ladder of each kind of conversation, as testdata/ladder has it: .txt plain,
// .sgr colored.
func TestLadder(t *testing.T) {
	for name, c := range drawn(t) {
		for _, width := range []int{80, 120} {
			for _, color := range []bool{false, true} {
				file := fmt.Sprintf("testdata/ladder/%s.%d.txt", name, width)
				if color {
					file = fmt.Sprintf("testdata/ladder/%s.%d.sgr", name, width)
				}
				golden(t, file, ladder(t, c, show.TextOptions{Width: width, Color: color}))
			}
		}
	}
}

// golden compares with a file of testdata, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// No line is wider than the terminal, or than 60 columns, whatever the
// conversation; color adds nothing but itself; and no escape is there without it.
func TestLadderFits(t *testing.T) {
	list := all(t)
	for name, c := range drawn(t) {
		list["drawn "+name] = c
	}
	for name, c := range list {
		for _, width := range []int{1, 60, 61, 72, 80, 105, 106, 107, 120, 132, 500} {
			plain := ladder(t, c, show.TextOptions{Width: width})
			for line := range strings.Lines(plain) {
				line = strings.TrimSuffix(line, "\n")
				if n := show.Width(line); n > max(width, 60) {
					t.Errorf("%s at %d: %d columns: %q", name, width, n, line)
				}
				if line != strings.TrimRight(line, " ") || line != show.SafeText(line) {
					t.Errorf("%s at %d: %q", name, width, line)
				}
			}
			colored := ladder(t, c, show.TextOptions{Width: width, Color: true})
			if sgr.ReplaceAllString(colored, "") != plain {
				t.Errorf("%s at %d: color changes the text:\n%s\n%s", name, width, colored, plain)
			}
		}
		if got, want := ladder(t, c, show.TextOptions{}), ladder(t, c, show.TextOptions{Width: 80}); got != want {
			t.Errorf("%s: a width that is not known is not 80", name)
		}
	}
}

// Every figure that was measured is somewhere in the ladder, at any width.
func TestLadderHasEveryFigure(t *testing.T) {
	for name, c := range all(t) {
		for _, width := range []int{60, 80, 120} {
			text := strings.Join(strings.Fields(ladder(t, c, show.TextOptions{Width: width})), " ")
			for _, m := range c.Marks {
				if want := m.Name + " " + show.FormatDuration(m.Duration); !strings.Contains(strings.NewReplacer("│ ", "", "│", "").Replace(text), want) {
					t.Errorf("%s at %d: no %q", name, width, want)
				}
			}
			if !strings.Contains(text, "verdict: "+c.Verdict()) {
				t.Errorf("%s at %d: no verdict", name, width)
			}
		}
	}
}
