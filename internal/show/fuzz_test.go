package show_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// FuzzCapture writes the conversation that any octets make up, and has another reader
// of pcapng read it: every packet is there, with its stamp, its direction and the
// segment's own numbers. What a person is shown of it is text that does nothing else.
func FuzzCapture(f *testing.F) {
	f.Add(false, "1.2.3", []byte{0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x12, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 60, 0, 0, 4, 2, 4, 5, 0xb4})
	f.Add(true, "\x1b[31m\xff", []byte{2, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x12, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 60, 0, 0, 0, 0x60, 0x11, 0, 0, 0, 0, 0xff, 0xff})
	f.Add(false, "", bytes.Repeat([]byte{3, 0x21, 0x18, 0, 0, 0, 0, 1, 0, 9, 9, 60, 0, 0, 0}, 90))
	f.Add(true, "x", []byte{1, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x58, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, v6 bool, version string, b []byte) {
		tuple := tuple4
		if v6 {
			tuple = tuple6
		}
		tr := script.FromOctets(tuple, b, wire.ParseOptions)
		c := show.Of(&tr)

		var file bytes.Buffer
		w, err := show.NewCapture(&file, version)
		if err == nil {
			err = w.Write(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		printable(t, "application", r.SectionInfo().Application, "")
		for i := range c.Steps {
			s := &c.Steps[i]
			if s.Way == show.Here {
				continue
			}
			data, info, err := r.ReadPacketData()
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if info.Timestamp.UnixNano() != s.Wall || info.CaptureLength != len(data) || info.Length < len(data) {
				t.Errorf("step %d: %+v, want %d", i, info, s.Wall)
			}
			samePacket(t, c, i, data, info.Length)
		}
		if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last packet: %v", err)
		}

		for i := range c.Steps {
			printable(t, "segment", string(c.AppendSegment(nil, i, show.SegmentOptions{Stamp: true})), "")
		}
		for _, o := range []show.TextOptions{{}, {Width: 40}, {Width: 200}} {
			var text strings.Builder
			if err := c.WriteLadder(&text, o); err != nil {
				t.Fatal(err)
			}
			printable(t, "ladder", text.String(), "\n")
		}
		if said, err := json.Marshal(c.JSON()); err != nil || !json.Valid(said) {
			t.Errorf("%v: %s", err, said)
		}
	})
}

// samePacket holds a packet of the capture to its step.
func samePacket(t *testing.T, c *show.Conversation, i int, data []byte, length int) {
	s := &c.Steps[i]
	var p wire.Packet
	if err := wire.Parse(data, &p); err != nil {
		t.Fatalf("step %d: %v: %x", i, err, data)
	}
	if s.Way == show.Error {
		if p.Kind == wire.KindICMPError && (p.ICMP.Type != s.ICMP.Type || p.ICMP.Code != s.ICMP.Code || p.ICMP.Seq != s.ICMP.Seq ||
			p.Quote.Src != c.Tuple.Local.Addr() || p.Quote.DstPort != c.Tuple.Remote.Port()) {
			t.Errorf("step %d: %+v for %+v", i, p, s.ICMP)
		}
		return // other ICMP than errors is parsed as that
	}
	from, to := c.Tuple.Local, c.Tuple.Remote
	if s.Way == show.In {
		from, to = to, from
	}
	if p.Kind != wire.KindTCP || p.Src != from.Addr() || p.Dst != to.Addr() || p.SrcPort != from.Port() || p.DstPort != to.Port() {
		t.Fatalf("step %d: %+v", i, p)
	}
	if s.Segment.Len == 0 && p.Checksum != wire.ChecksumValid {
		t.Errorf("step %d: checksum %v", i, p.Checksum)
	}
	want, got := s.Segment, p.Segment
	if length != len(data)+int(want.Len) {
		t.Errorf("step %d: %d octets of %d, with %d of data", i, len(data), length, want.Len)
	}
	want.Options, got.Options = probe.Options{}, probe.Options{}
	if got.Len = want.Len; got != want {
		t.Errorf("step %d: %+v, want %+v", i, got, want)
	}
	was, is := &s.Segment.Options, &p.Segment.Options
	const known = probe.OptMSS | probe.OptWindowScale | probe.OptSACKPermitted | probe.OptTimestamps
	if was.Set&known != is.Set&known || was.MSS != is.MSS || was.WindowScale != is.WindowScale || was.TSVal != is.TSVal || was.TSEcr != is.TSEcr {
		t.Errorf("step %d: options %+v, want %+v", i, is, was)
	}
}

// printable asserts that a text has nothing that a terminal would obey.
func printable(t *testing.T, what, text, but string) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(but, r) }) {
		t.Errorf("%s: %q", what, text)
	}
}
