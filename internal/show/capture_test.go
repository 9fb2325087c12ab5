package show_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// tshark returns the fields of every packet, and fails if it has anything to say
// besides.
func tshark(t testing.TB, file string, fields ...string) [][]string {
	t.Helper()
	args := []string{"-r", file, "-n", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	var list [][]string
	for line := range strings.Lines(quiet(t, "tshark", args...)) {
		list = append(list, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return list
}

// quiet returns a command's output. What it says on stderr fails the test, but that
// it should not be run as root.
func quiet(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "Running as user") {
			t.Errorf("%s: %s", name, line)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return stdout.String()
}

// A four-way close in Wireshark's eyes: its figures are ours, to the nanosecond.
func TestCaptureHasOurFigures(t *testing.T) {
	for _, tuple := range []probe.FourTuple{tuple4, tuple6} {
		c := show.Of(play(t, "active_close_four_way", tuple))
		marks := make(map[string]show.Mark)
		for _, m := range c.Marks {
			marks[m.Name] = m
		}
		rows := tshark(t, capture(t, c), "frame.time_epoch", "tcp.analysis.initial_rtt", "tcp.analysis.ack_rtt",
			"frame.comment", "frame.packet_flags_direction", "tcp.flags.str")
		if len(rows) != 7 {
			t.Fatalf("%d packets: %v", len(rows), rows)
		}
		at := make(map[int]time.Duration) // of each step that has a packet
		frame := make(map[int][]string)
		for i := range c.Steps {
			if c.Steps[i].Way != show.Here {
				row := rows[len(frame)]
				frame[i] = row
				at[i] = since(t, row[0], rows[0][0])
				if want := c.Steps[i].At; at[i] != want {
					t.Errorf("step %d is %v after the SYN, in the capture %v", i, want, at[i])
				}
				if out := row[4] == "0x00000002"; out != (c.Steps[i].Way == show.Out) {
					t.Errorf("step %d: direction %s", i, row[4])
				}
			}
		}
		for name, m := range marks {
			if d := at[m.To] - at[m.From]; d != m.Duration {
				t.Errorf("%s is %v, in the capture %v", name, m.Duration, d)
			}
			if want := name + " " + show.FormatDuration(m.Duration); !strings.Contains(frame[m.To][3], want) {
				t.Errorf("no comment %q in %q", want, frame[m.To][3])
			}
		}
		// Wireshark's initial RTT is from the SYN to the ACK that ends the handshake.
		if got, want := seconds(t, rows[2][1]), marks["handshake_rtt"].Duration+marks["reaction"].Duration; got != want {
			t.Errorf("initial_rtt %v, want %v", got, want)
		}
		if got, want := seconds(t, rows[1][2]), marks["handshake_rtt"].Duration; got != want {
			t.Errorf("ack_rtt of the SYN-ACK %v, want %v", got, want)
		}
		if got, want := seconds(t, rows[4][2]), marks["fin_ack_rtt"].Duration; got != want {
			t.Errorf("ack_rtt of our FIN's acknowledgement %v, want %v", got, want)
		}
		if last := rows[6][3]; !strings.Contains(last, "active_close verdict: ok, four_way teardown") {
			t.Errorf("the last comment is %q", last)
		}
		if first := rows[0][3]; !strings.Contains(first, "OPEN at -10 µs|we: SYN-SENT, peer: -") {
			t.Errorf("the first comment is %q", first)
		}
	}
}

// since returns the time between two of frame.time_epoch, which no float can hold.
func since(t testing.TB, at, from string) time.Duration {
	t.Helper()
	ns := func(s string) int64 {
		whole, part, ok := strings.Cut(s, ".")
		n, err := strconv.ParseInt(whole+part, 10, 64)
		if err != nil || !ok || len(part) != 9 {
			t.Fatalf("%q: no time in nanoseconds", s)
		}
		return n
	}
	return time.Duration(ns(at) - ns(from))
}

func seconds(t testing.TB, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s + "s")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Whatever the conversation, Wireshark finds nothing malformed and no bad checksum.
// What has no payload has its whole checksum.
func TestCaptureIsSound(t *testing.T) {
	var list []*show.Conversation
	packets := 0
	for _, c := range all(t) {
		list = append(list, c)
		packets += len(segmentLines(c, show.SegmentOptions{}))
	}
	file := capture(t, list...)
	rows := tshark(t, file, "frame.number", "_ws.malformed", "ip.checksum.status", "tcp.checksum.status", "tcp.len",
		"icmp.checksum.status", "icmpv6.checksum.status", "frame.cap_len", "frame.len", "frame.comment", "icmp.type", "icmpv6.type")
	if len(rows) != packets {
		t.Fatalf("%d packets of %d", len(rows), packets)
	}
	const good = "1"
	for _, r := range rows {
		icmp := r[10] != "" || r[11] != ""
		bad := r[1] != "" || strings.Contains(r[2]+r[5]+r[6], "0")
		switch {
		case icmp:
			bad = bad || r[5]+r[6] != good
		case r[4] == "0":
			bad = bad || r[3] != good || r[7] != r[8]
		default:
			n, err := strconv.Atoi(r[4])
			have, _ := strconv.Atoi(r[7])
			whole, _ := strconv.Atoi(r[8])
			bad = bad || err != nil || r[3] == "0" || have+n != whole
		}
		if bad {
			t.Errorf("%q", r)
		}
	}
	info := quiet(t, "capinfos", file)
	for _, want := range []string{"probed 1.2.3", "nanoseconds (9)", "Raw IP", fmt.Sprintf("Number of packets = %d", packets)} {
		if !strings.Contains(info, want) {
			t.Errorf("capinfos has no %q:\n%s", want, info)
		}
	}
}

// The blocks themselves, by the draft: lengths at both ends, multiples of four, and
// one section and one interface before the packets.
func TestCaptureBlocks(t *testing.T) {
	var b bytes.Buffer
	p, err := show.NewCapture(&b, "1.2.3\x1b[31m")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(show.Of(play(t, "active_close_half_close_data", tuple6))); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("\x1b[")) {
		t.Error("an escape in the version is one in the file")
	}
	var types []uint32
	for rest := b.Bytes(); len(rest) > 0; {
		n := int(binary.LittleEndian.Uint32(rest[4:]))
		if n%4 != 0 || n > len(rest) || binary.LittleEndian.Uint32(rest[n-4:]) != uint32(n) {
			t.Fatalf("block %d is %d octets of %d", len(types), n, len(rest))
		}
		types = append(types, binary.LittleEndian.Uint32(rest))
		rest = rest[n:]
	}
	for i, typ := range types {
		if want := []uint32{0x0a0d0d0a, 1, 6}[min(i, 2)]; typ != want {
			t.Errorf("block %d is of type %#x", i, typ)
		}
	}
	if len(types) < 8 {
		t.Errorf("%d blocks", len(types))
	}
}

// A conversation that was never opened has no packets, and is no error.
func TestCaptureOfNothing(t *testing.T) {
	var tr probe.Transcript
	tr.Reset(probe.FourTuple{}, probe.HalfOpen)
	tr.NotOpened(0, &probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError})
	if rows := tshark(t, capture(t, show.Of(&tr)), "frame.number"); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}

type failing struct{ left int }

var errFull = errors.New("disk full")

func (f *failing) Write(b []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// A writer's error comes back, wherever it happens.
func TestCaptureFails(t *testing.T) {
	c := show.Of(play(t, "active_close_four_way", tuple4))
	for left := range 9 {
		w := &failing{left}
		p, err := show.NewCapture(w, "1")
		if err == nil {
			err = p.Write(c)
		}
		if !errors.Is(err, errFull) {
			t.Errorf("after %d writes: %v", left, err)
		}
	}
	if err := c.WriteLadder(&failing{}, show.TextOptions{}); !errors.Is(err, errFull) {
		t.Errorf("ladder: %v", err)
	}
}
