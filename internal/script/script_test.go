package script

import (
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

const head = "half_open timeout 900ms linger 5s grace 50ms\n"

// Every error names its line and what is wrong there.
func TestParseErrors(t *testing.T) {
	tests := []struct{ src, want string }{
		{"", "x:1: no line says how the conversation is held"},
		{"# nothing\n", "x:2: no line says how the conversation is held"},
		{"passive", `x:1: "passive": the first line names the kind of probe: half_open, active_close, passive_close, time_wait`},
		{"half_open timeout 1s", `x:1: "" where linger belongs`},
		{"half_open timeout soon", `x:1: "soon" is no time, as in 20ms, of at most a day`},
		{head[:len(head)-1] + " now", `x:1: "now" is too much`},
		{head + "open", `x:2: "open": an event begins with the time since the one before, as in +20ms`},
		{head + "+1y open", `x:2: "1y" is no time, as in 20ms, of at most a day`},
		{head + "+25h open", `x:2: "25h" is no time, as in 20ms, of at most a day`},
		{head + "+0 open wide", `x:2: "wide" is too much`},
		{head + "+0", `x:2: "" is no event: open, reopen, sent, <, USER TIMEOUT, RETRANSMISSION TIMEOUT, TIME-WAIT TIMEOUT, ACK TIMEOUT, CLOSE, send failed, no room, spoiled, abort, clock`},
		{head + "+0 reopen X 0", `x:2: "X" are no flags: letters of FSRP.UEWe123, or none`},
		{head + "+0 USER", `x:2: "" where TIMEOUT belongs`},
		{head + "+0 send it", `x:2: "it" where failed belongs`},
		{head + "+0 abort hunger", `x:2: "hunger" is no reason to discard`},
		{head + "+0 sent", "x:2: a segment begins with its flags: letters of FSRP.UEWe123, or none"},
		{head + "+0 sent X 0", `x:2: "X" are no flags: letters of FSRP.UEWe123, or none`},
		{head + "+0 sent S zero", `x:2: "zero" is no sequence number`},
		{head + "+0 sent S 4294967296", `x:2: "4294967296" is no sequence number`},
		{head + "+0 sent S 0 win 65536", `x:2: "65536" is no number of 16 bits`},
		{head + "+0 sent S 0 <mss>", `x:2: "" is no number of 16 bits`},
		{head + "+0 sent S 0 <mss 1", `x:2: "<mss 1": options end with >`},
		{head + "+0 sent S 0 <mss 1 2>", `x:2: "2" is too much`},
		{head + "+0 sent S 0 <TS val 1>", `x:2: "" where ecr belongs`},
		{head + "+0 sent S 0 <tfo xx>", `x:2: "xx" is no cookie: up to 16 octets in hex`},
		{head + "+0 sent S 0 <nop>", `x:2: "nop" is no option: mss N, sackOK, TS val N ecr N, sack N:N …, wscale N, tfo HEX, unknown KIND HEX, malformed HEX`},
		{head + "+0 sent S 0 <malformed " + strings.Repeat("00", 40) + ",sackOK>", "x:2: 42 octets of options; 40 fit"},
		{head + "+0 < icmp 3 seq 0", `x:2: "3": an ICMP type and code look like 3/1`},
		{head + "+0 < icmp 3/256 seq 0", `x:2: "3/256": an ICMP type and code look like 3/1`},
		{head + "+0 < icmp 3/1", `x:2: "" where seq belongs`},
		{head + "+0 < S. 0 stamped 1ms", `x:2: "" where ago belongs`},
		{head + "+0 open\n? what", `x:3: "?": below an event stand >, !, =, a note in quotes, or done`},
		{head + "+0 open\n! verdict maybe", `x:3: "maybe" is no reason`},
		{head + "+0 open\n! rejected maybe", `x:3: "maybe" is no reason to reject`},
		{head + "+0 open\n! surprise", `x:3: "surprise" is no observation`},
		{head + "+0 open\n! peer cookies some", `x:3: "some": cookies yes or cookies no`},
		{head + "+0 open\n= OPEN -", `x:3: "OPEN" is no state of RFC 9293, nor - for unknown`},
		{head + "+0 open\n\"opens\"", `x:3: "opens" is no note`},
		{head + "+0 open\ndone now", `x:3: "now" is too much`},
		{"each a\n" + head, "x:1: each wants a name and values"},
		{"each a 1\neach b 2\n" + head, "x:2: a second each"},
		{"each a" + strings.Repeat(" 1", maxEach+1), "x:1: more than 64 values"},
		{head + "+0 open\neach a 1", "x:3: each belongs above the first event"},
		{strings.Repeat("#", maxSource+1), "x:1: longer than 65536 octets"},
	}
	for _, tt := range tests {
		if _, err := Parse("x", []byte(tt.src)); err == nil || err.Error() != tt.want {
			t.Errorf("%.80q:\n got %v\nwant %s", tt.src, err, tt.want)
		}
	}
}

// A script that is not what happens says where, and what happens instead.
func TestRunErrors(t *testing.T) {
	const syn = "+0 open\n> S 0\n+10us sent S 0\n"
	tests := []struct{ src, want string }{
		{"", "x:1: the script opens nothing"},
		{syn, "x:4: the script ends before the conversation: USER TIMEOUT is due 900ms later"},
		{"+0 open\n", "x:2: not listed: > S 0"},
		{syn + "> R 1\n", "x:5: no segment is sent"},
		{syn + "! verdict ok\n", "x:5: nothing more is observed, want ! verdict ok"},
		{syn + "= CLOSED -\n", "x:5: states = SYN-SENT -, want = CLOSED -"},
		{syn + "\"refused\"\n", `x:5: notes "SYN left", want "refused"`},
		{syn + "done\n", "x:5: not done"},
		{syn + "+1s USER TIMEOUT\n", "x:5: USER TIMEOUT is due -100ms after this"},
		{syn + "+1ms USER TIMEOUT late\n", "x:5: USER TIMEOUT is due 899ms after this"},
		{syn + "+1s TIME-WAIT TIMEOUT\n", "x:5: TIME-WAIT TIMEOUT: the timer that runs is USER TIMEOUT"},
		{syn + "+1s < R. 0 ack 1\n", "x:5: USER TIMEOUT was due 100ms before this: say overdue if that is meant"},
		{syn + "+1ms < R. 0 ack 1\n", "x:5: not listed: ! verdict refused"},
		{syn + "+1ms < R. 0 ack 1\n! verdict ok\n", "x:6: observes ! verdict refused, want ! verdict ok"},
		{syn + "+1ms abort shutdown\n! discarded shutdown\n", "x:5: not listed: done"},
		{syn + "+1ms < S. 0 ack 1 ttl 9 <mss 1,sackOK,TS val 1 ecr 2>\n! handshake_rtt 1ms\n! peer ttl 9\n",
			"x:7: observes ! peer ttl 9 win 0 mss 1 sack timestamps, want ! peer ttl 9 win 0"},
		{syn + "+1ms < S. 0 ack 1\n! handshake_rtt 1ms\n! peer\n! verdict ok\n+50ms RETRANSMISSION TIMEOUT\n> R 2 len 1\n",
			"x:10: sends > R 1, want > R 2 len 1"},
	}
	for _, tt := range tests {
		scripts, err := Parse("x", []byte(head+tt.src))
		if err != nil {
			t.Errorf("%q: %v", tt.src, err)
			continue
		}
		for _, at := range []Start{{}, {1<<32 - 1, 1<<31 - 1}} {
			if _, err := scripts[0].Run(at); err == nil || err.Error() != tt.want {
				t.Errorf("%q:\n got %v\nwant %s", tt.src, err, tt.want)
			}
		}
	}
}

// What is formatted reads back as what it was.
func TestFormatReadsBack(t *testing.T) {
	const iss, irs = 1<<32 - 3, 1<<31 - 2
	for _, text := range []string{
		"S 0", "S. 0 ack 1 len 9 win 65160 urg 3 ttl 57 tos 255", "none -2147483648", "FSRP.UEWe123 2147483647 ack -1",
		"R 5 ack =7", "S 0 <mss 1460,sackOK,TS val 4294967295 ecr 7,wscale 14,tfo c0ff>", "S 0 <tfo>",
		". 1 ack 1 win 9 <sack 101:201>", ". 1 ack 1 <TS val 5 ecr 6,sack 301:401 101:201 501:601>",
	} {
		s, err := parseSegment(&words{list: split(text)})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		r := s.ours(iss, irs)
		if got := FormatSegment(&r, iss, irs); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
	for _, text := range []string{
		"verdict ok", "verdict bad_synack", "discarded tap_drop", "rejected bad_quote", "handshake_rtt 1.5ms",
		"reaction 12µs", "synack_duplicate", "synack_late",
		"peer ttl 57 win 65160 mss 1460 wscale 7 sack timestamps ecn cookies yes",
	} {
		o, err := parseObservation(&words{list: split(text)})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := FormatObservation(&o); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// Octets of options that have no name are kept as they came, in order, for
// whoever sends the script's segments.
func TestOptionsKeepOctets(t *testing.T) {
	s, err := parseSegment(&words{list: split("S 0 <mss 1460,unknown 253 f00d,wscale 7>")})
	if err != nil {
		t.Fatal(err)
	}
	o := s.Options
	want := "\x02\x04\x05\xb4\xfd\x04\xf0\x0d\x03\x03\x07\x00"
	if got := string(o.Raw[:o.RawLen]); got != want || !o.Has(probe.OptMSS|probe.OptWindowScale|probe.OptUnknown) {
		t.Errorf("%x, want %x; set %b", got, want, o.Set)
	}
}

// What is given to "reopen" is the segment behind it, not the one that is expected to
// come of it.
func TestReopenIsGiven(t *testing.T) {
	scripts, err := Parse("x", []byte("half_open timeout 1s linger 4s grace 0 ipv6 cookies\n+0 reopen S 9\n> S 1\n+0 reopen\n> S 1\n"))
	if err != nil || !scripts[0].Params.IPv6 || !scripts[0].Params.DetectCookies {
		t.Fatalf("%+v, %v", scripts, err)
	}
	for i, want := range []probe.Seq{14, 6} {
		if got := scripts[0].Events(Start{ISS: 5})[i].Event.Segment.Seq; got != want {
			t.Errorf("event %d: sequence number %d, want %d", i, got, want)
		}
	}
}

// "each" plays a script once for every value, quoted ones with their blanks.
func TestEach(t *testing.T) {
	scripts, err := Parse("x", []byte("each seg \"R. 0 ack 1\" S\n"+head+"+0 open\n+2ms < $seg 0\n"))
	if err == nil {
		t.Fatalf("%+v: want an error in the first", scripts)
	}
	scripts, err = Parse("x", []byte("each code 1 \"2\"\n"+head+"+0 open\n+2ms < icmp 3/$code seq -1 stamped 1ms ago unstamped\n"))
	if err != nil || len(scripts) != 2 || scripts[1].Value != "2" {
		t.Fatalf("%+v, %v", scripts, err)
	}
	events := scripts[1].Events(Start{ISS: 5})
	ev := events[1].Event
	if len(events) != 2 || Since(events[1].At) != 2*time.Millisecond || ev.ICMP != (probe.ICMP{Type: 3, Code: 2, Seq: 4}) ||
		ev.Stamp.Valid() || ev.Stamp.Wall != startWall+int64(time.Millisecond) {
		t.Errorf("%+v", events)
	}
}
