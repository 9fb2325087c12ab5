package show_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// capture writes conversations to a file and returns its name.
func capture(t testing.TB, list ...*show.Conversation) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "capture.pcapng")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := show.NewCapture(f, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if err := p.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// tcpdump returns its lines for a file; -S, and no time.
func tcpdump(t testing.TB, file string) []string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command("tcpdump", "-n", "-S", "-t", "-r", file)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "\t") }) // octets of what it can't read
}

// segmentLines returns ours of every step on the wire.
func segmentLines(c *show.Conversation, o show.SegmentOptions) []string {
	var list []string
	for i := range c.Steps {
		if line := c.AppendSegment(nil, i, o); len(line) > 0 {
			list = append(list, string(line))
		}
	}
	return list
}

// made is a conversation of the given segments: those at even places leave.
func made(tuple probe.FourTuple, segments []probe.Segment) *show.Conversation {
	var tr probe.Transcript
	tr.Reset(tuple, probe.ActiveClose)
	for i := range segments {
		kind := probe.SegmentSent
		if i%2 == 1 {
			kind = probe.SegmentArrives
		}
		ev := probe.Event{Kind: kind, Segment: segments[i], Stamp: probe.Stamp{Wall: 1_800_000_000_000_000_000 + int64(i), Clock: 1}}
		tr.Add(probe.Instant(i), &ev, new(probe.Conversation), new(probe.Output))
	}
	return show.Of(&tr)
}

// With absolute numbers a segment's line is tcpdump's own: of every conversation
// that there is a script for.
func TestSegmentsAsTcpdumpWritesThem(t *testing.T) {
	var list []*show.Conversation
	var want []string
	for _, c := range all(t) {
		list = append(list, c)
		want = append(want, segmentLines(c, show.SegmentOptions{Absolute: true})...)
	}
	compare(t, tcpdump(t, capture(t, list...)), want)
}

// And of segments as nobody sends them: any flags, any options.
func TestOddSegmentsAsTcpdumpWritesThem(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var list []*show.Conversation
	var want []string
	for range 200 {
		segments := make([]probe.Segment, 60)
		for i := range segments {
			segments[i] = oddSegment(r)
		}
		tuple := tuple4
		if r.IntN(2) == 0 {
			tuple = tuple6
		}
		c := made(tuple, segments)
		list = append(list, c)
		want = append(want, segmentLines(c, show.SegmentOptions{Absolute: true})...)
	}
	compare(t, tcpdump(t, capture(t, list...)), want)
}

// optionSizes are how many octets of data the options with a fixed size have. MD5,
// SCPS and MPTCP are left out, of which tcpdump says more.
var optionSizes = map[byte]int{2: 2, 3: 1, 4: 0, 6: 4, 7: 4, 8: 8, 11: 4, 12: 4, 13: 4, 28: 2}

// oddSegment makes one at random. The AE bit and the reserved ones are left out:
// this tcpdump does not know them.
func oddSegment(r *rand.Rand) probe.Segment {
	s := probe.Segment{
		Seq: probe.Seq(r.Uint32()), Ack: probe.Seq(r.Uint32()), Flags: probe.Flags(r.IntN(256)),
		Window: uint16(r.Uint32()), Urgent: uint16(r.Uint32()), TTL: uint8(r.IntN(256)), TOS: uint8(r.IntN(256)),
	}
	if r.IntN(3) == 0 {
		s.Len = uint32(r.IntN(1400))
	}
	var raw []byte
	for len(raw) < r.IntN(probe.MaxOptions+1) {
		kinds := []byte{0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 28, 29, 34, 34, 69, 253, 254, 254, byte(31 + r.IntN(225))}
		kind := kinds[r.IntN(len(kinds))]
		raw = append(raw, kind)
		if kind < 2 {
			continue
		}
		size, fixed := optionSizes[kind]
		switch {
		case kind == 5 && r.IntN(4) > 0:
			size = 8 * (1 + r.IntN(4))
		case kind == 254:
			size = 2 + r.IntN(10)
		case !fixed:
			size = r.IntN(18)
		}
		raw = append(raw, byte(2+size))
		for range size {
			raw = append(raw, byte(r.Uint32()))
		}
		if kind == 254 && r.IntN(2) == 0 {
			copy(raw[len(raw)-size:], []byte{0xf9, 0x89})
		}
	}
	raw = raw[:min(len(raw), probe.MaxOptions)] // the last one may be cut
	for len(raw)%4 != 0 {
		raw = append(raw, 0)
	}
	wire.ParseOptions(raw, &s.Options)
	return s
}

// unreserved takes the flags from a line that this tcpdump does not know.
func unreserved(line string) string {
	head, rest, _ := strings.Cut(line, "[")
	flags, rest, _ := strings.Cut(rest, "]")
	none := probe.Flags(0).String()
	if flags != none {
		flags = strings.TrimRight(flags, "e?")
	}
	if flags == "" {
		flags = none
	}
	return head + "[" + flags + "]" + rest
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	differ := 0
	for i := range min(len(got), len(want)) {
		if strings.Contains(want[i], "ICMP") || strings.HasSuffix(got[i], "[|tcp]") {
			continue // the latter looked for an option's length behind the packet
		}
		if got[i] != unreserved(want[i]) && !strings.Contains(want[i], "[len ") {
			if differ++; differ > 20 {
				t.Fatal("and more")
			}
			t.Errorf("tcpdump: %s\nours:    %s", got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines from tcpdump, %d of ours", len(got), len(want))
	}
}

// Every ICMP error in tcpdump's words, as far as what they tell is kept.
func TestICMPAsTcpdumpWritesIt(t *testing.T) {
	for _, tuple := range []probe.FourTuple{tuple4, tuple6} {
		v6 := tuple.Local.Addr().Is6()
		types := []uint8{3, 4, 11, 12}
		if v6 {
			types = []uint8{1, 2, 3, 4}
		}
		var list []*show.Conversation
		for _, typ := range types {
			for code := range uint8(18) {
				var tr probe.Transcript
				tr.Reset(tuple, probe.HalfOpen)
				ev := probe.Event{Kind: probe.ICMPArrives, ICMP: probe.ICMP{V6: v6, Type: typ, Code: code, Seq: 7}}
				tr.Add(0, &ev, new(probe.Conversation), new(probe.Output))
				list = append(list, show.Of(&tr))
			}
		}
		got := tcpdump(t, capture(t, list...))
		if len(got) != len(list) {
			t.Fatalf("%d lines of %d", len(got), len(list))
		}
		for i, c := range list {
			_, theirs, _ := strings.Cut(got[i], ": ICMP")
			theirs = "ICMP" + strings.ReplaceAll(theirs, ",  ", ", ")
			for _, unkept := range []string{", length 36", ", length 56", ", mtu 0", " - octet 0", ", source address 2001:db8::1"} {
				theirs = strings.TrimSuffix(theirs, unkept)
			}
			if strings.HasSuffix(theirs, "unknown unreach code (5)") || strings.HasSuffix(theirs, "unknown unreach code (6)") {
				continue // we have words for these
			}
			_, ours, _ := strings.Cut(segmentLines(c, show.SegmentOptions{})[0], ": ")
			ours, is := strings.CutSuffix(ours, ", quoting seq 7")
			if ours != theirs || !is {
				t.Errorf("%+v\ntcpdump: %s\nours:    %s", c.Steps[0].ICMP, theirs, ours)
			}
		}
	}
}

// Who sent an ICMP error is said wherever the error is.
func TestICMPSender(t *testing.T) {
	var tr probe.Transcript
	tr.Reset(tuple4, probe.HalfOpen)
	ev := probe.Event{Kind: probe.ICMPArrives, ICMP: probe.ICMP{Type: 3, Code: 13, From: netip.MustParseAddr("198.18.0.254")}}
	tr.Add(0, &ev, new(probe.Conversation), new(probe.Output))
	c := show.Of(&tr)
	const want = "IP 198.18.0.254 > 198.18.0.1: ICMP host 198.18.0.2 unreachable - admin prohibited filter, "
	if got := tcpdump(t, capture(t, c))[0]; !strings.HasPrefix(got, want) {
		t.Errorf("in the capture: %s", got)
	}
	if got := segmentLines(c, show.SegmentOptions{})[0]; !strings.HasPrefix(got, want) {
		t.Errorf("as a line: %s", got)
	}
	if text := ladder(t, c, show.TextOptions{}); !strings.Contains(text, "from 198.18.0.254") {
		t.Errorf("in the ladder:\n%s", text)
	}
	if from := c.JSON().Steps[0].ICMP.From; from != "198.18.0.254" {
		t.Errorf("in JSON: %q", from)
	}
}
