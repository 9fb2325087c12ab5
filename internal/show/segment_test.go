package show_test

import (
	"strings"
	"testing"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// Relative numbers: from our ISS and the peer's, which are close to where they wrap,
// from new ones where a SYN on the same four-tuple was answered, and from the old
// where the peer answered from the old connection.
func TestSegmentsRelative(t *testing.T) {
	list := drawn(t)
	for name, scripted := range map[string]string{
		"sack": "data_out_of_order_with_sack_and_timestamps", "refused_reuse": "time_wait_reuse_reset",
		"silent_reuse": "time_wait_reuse_silence", "cookies": "synack_then_syn_then_synack_isn_follows_cookies",
		"forged": "syn_then_synack_bad_ack_then_synack", "too_big": "data_too_big_for_the_path",
	} {
		list[name] = show.Of(play(t, scripted, tuple4))
	}
	for _, name := range []string{"four_way", "half_close", "refused", "icmp", "icmp6", "reuse", "challenge", "duration",
		"ipv6", "answered", "sack", "refused_reuse", "silent_reuse", "cookies", "forged", "too_big"} {
		lines := strings.Join(segmentLines(list[name], show.SegmentOptions{Stamp: true}), "\n")
		golden(t, "testdata/segments/"+name+".txt", lines+"\n")
	}
}

// What is already in the buffer stays, and a step that crossed no wire adds nothing.
func TestAppendSegmentAppends(t *testing.T) {
	c := show.Of(play(t, "active_close_four_way", tuple4))
	if got := string(c.AppendSegment([]byte("x"), 0, show.SegmentOptions{})); got != "x" {
		t.Errorf("the OPEN is %q", got)
	}
	if got := string(c.AppendSegment([]byte("x "), 1, show.SegmentOptions{})); !strings.HasPrefix(got, "x IP 198.18.0.1.61000 > 198.18.0.2.4433: Flags [S], seq 0,") {
		t.Errorf("%q", got)
	}
}

func TestFlagWords(t *testing.T) {
	for f, want := range map[probe.Flags]string{
		0: "no flags", probe.SYN: "SYN", probe.SYN | probe.ACK: "SYN-ACK", probe.FIN | probe.PSH | probe.ACK: "FIN-PSH-ACK",
		probe.SYN | probe.ECE | probe.CWR: "SYN-ECE-CWR", probe.ACK | 1<<9 | 1<<11: "ACK??", 1 << 15: "no flags",
		1<<12 - 1: "SYN-FIN-RST-PSH-URG-ECE-CWR-AE-ACK???",
	} {
		if got := show.FlagWords(f); got != want {
			t.Errorf("%#x: %q, want %q", uint16(f), got, want)
		}
	}
}
