package ping_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// TestLines has the line of every conversation that is specified.
func TestLines(t *testing.T) {
	t.Parallel()
	var plain, coloured strings.Builder
	for i, name := range names(t) {
		remote := remote4
		if i%2 == 1 {
			remote = remote6
		}
		tr := play(t, name, uint64(i+1), remote)
		c := show.Of(tr)
		to := target("", remote, c.Kind)
		if c.Kind != probe.HalfOpen {
			to.Timeout = 5 * time.Second
		}
		if strings.Contains(name, "duration") {
			to.Limit = 90 * time.Second
		}
		for p, b := range map[ping.Paint]*strings.Builder{false: &plain, true: &coloured} {
			fmt.Fprintf(b, "# %s\n%s\n", name, to.Line(c, p))
			if late := to.LateLine(c, p); late != "" {
				fmt.Fprintln(b, late)
			}
		}
	}
	golden(t, "lines.txt", plain.String())
	golden(t, "lines_coloured.txt", coloured.String())
}

// TestLineOfATarget has every way in which a target can be named.
func TestLineOfATarget(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a-very-long-label-of-a-name-indeed.", 7) + "example:443"
	var b strings.Builder
	for _, tt := range []struct {
		name   string
		remote netip.AddrPort
		flows  int
	}{
		{"", remote4, 1},
		{"", remote6, 1},
		{"", netip.MustParseAddrPort("[fe80::1%eth0]:443"), 1},
		{"", netip.AddrPortFrom(netip.MustParseAddr("fe80::1%\x1b[31m\u202e"), 443), 1},
		{"db.example.net:443", remote4, 1},
		{"db.example.net:443", remote6, 8},
		{long, remote6, 1},
		{"例え.テスト:443", remote4, 1},
		{"\x1b]0;title\x07\x1b[2J\r\n<b>evil</b>\u202e\u2028\x9b31m.test:443", remote4, 1},
	} {
		c := show.Of(play(t, "syn_then_synack", 7, tt.remote))
		to := target(tt.name, tt.remote, probe.HalfOpen)
		to.Flows = tt.flows
		fmt.Fprintln(&b, to.Line(c, false))
		safe(t, to.Line(c, false))
	}
	golden(t, "targets.txt", b.String())
}

// safe fails the test for what a terminal would obey.
func safe(t *testing.T, s string) {
	t.Helper()
	for line := range strings.Lines(s) {
		if line = strings.TrimSuffix(line, "\n"); show.SafeText(line) != line {
			t.Errorf("a terminal would obey %q", line)
		}
	}
}

// TestUnsettled is a conversation without a verdict.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	tr := &probe.Transcript{Number: 3, Kind: probe.HalfOpen}
	to := target("", remote4, probe.HalfOpen)
	if got, want := to.Line(show.Of(tr), true), "198.18.0.2:443 half_open seq=3 unsettled"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	tr.NotOpened(0, &probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError})
	if got, want := to.Line(show.Of(tr), false), "198.18.0.2:443 half_open seq=3 discarded: send_error, this host did not let it out"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
