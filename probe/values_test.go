package probe_test

import (
	"math"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// RFC 9293 §3.4: "all arithmetic dealing with sequence numbers must be performed
// modulo 2^32".
func TestSeqIsModular(t *testing.T) {
	const half, last = 1 << 31, math.MaxUint32
	tests := []struct {
		s    probe.Seq
		add  uint32
		want probe.Seq
	}{
		{0, 0, 0}, {0, 1, 1}, {last, 1, 0}, {last, last, last - 1}, {half, half, 0}, {half - 1, 1, half}, {1, last, 0},
	}
	for _, tt := range tests {
		got := tt.s.Add(tt.add)
		if got != tt.want || got.Sub(tt.s) != int32(tt.add) {
			t.Errorf("%d + %d = %d, and back %d; want %d", tt.s, tt.add, got, got.Sub(tt.s), tt.want)
		}
	}
	for _, s := range []probe.Seq{0, 1, half - 1, half, half + 1, last - 1, last} {
		for _, n := range []uint32{1, 2, 1000, half - 1} {
			u := s.Add(n)
			if !s.Less(u) || u.Less(s) || !s.LessEq(u) || u.LessEq(s) || u.Sub(s) != int32(n) || s.Sub(u) != -int32(n) {
				t.Errorf("%d and %d beyond it (%d) are out of order", s, n, u)
			}
		}
		if s.Less(s) || !s.LessEq(s) || s.Sub(s) != 0 {
			t.Errorf("%d is not itself", s)
		}
	}
}

func TestSegLen(t *testing.T) {
	tests := []struct {
		s    probe.Segment
		want uint32
	}{
		{probe.Segment{}, 0},
		{probe.Segment{Flags: probe.SYN}, 1},
		{probe.Segment{Flags: probe.SYN | probe.FIN, Len: 10}, 12},
		{probe.Segment{Flags: probe.RST | probe.ACK, Len: 7}, 7},
	}
	for _, tt := range tests {
		tt.s.Seq = math.MaxUint32
		if got := tt.s.SegLen(); got != tt.want || tt.s.End() != probe.Seq(math.MaxUint32).Add(tt.want) {
			t.Errorf("%v with %d octets: SEG.LEN %d to %d, want %d", tt.s.Flags, tt.s.Len, got, tt.s.End(), tt.want)
		}
	}
}

// The flags read as tcpdump prints them.
func TestFlagsString(t *testing.T) {
	tests := []struct {
		f    probe.Flags
		want string
	}{
		{0, "none"},
		{probe.SYN, "S"},
		{probe.SYN | probe.ACK, "S."},
		{probe.RST, "R"},
		{probe.RST | probe.ACK, "R."},
		{probe.FIN | probe.PSH | probe.ACK, "FP."},
		{probe.SYN | probe.ECE | probe.CWR, "SEW"},
		{probe.SYN | probe.ECE | probe.CWR | probe.AE, "SEWe"},
		{probe.URG | probe.ACK, ".U"},
		{1 << 9, "?"},
		{1<<12 - 1, "FSRP.UEWe???"},
		{math.MaxUint16, "FSRP.UEWe???"},
	}
	for _, tt := range tests {
		if got := tt.f.String(); got != tt.want {
			t.Errorf("%#x is %q, want %q", uint16(tt.f), got, tt.want)
		}
	}
}

// A name for every value, and one for those beyond.
func TestNames(t *testing.T) {
	tests := []struct{ got, want string }{
		{probe.TimeWait.String(), "TIME-WAIT"}, {probe.State(99).String(), "?"},
		{probe.NotResolved.String(), "not_resolved"}, {probe.Reason(99).String(), "?"},
		{probe.DiscardReload.String(), "reload"}, {probe.DiscardReason(99).String(), "?"},
		{probe.RejectUnexpected.String(), "unexpected"}, {probe.RejectReason(99).String(), "?"},
		{probe.Reaction.String(), "reaction"}, {probe.ObservationKind(99).String(), "?"},
		{probe.Spoiled.String(), "SPOILED"}, {probe.EventKind(99).String(), "?"},
		{probe.TimeWaitProbe.String(), "time_wait"}, {probe.Kind(99).String(), "?"},
		{probe.NoteDone.String(), "four-tuple free"}, {probe.Note(99).String(), "?"},
		{probe.Yes.String(), "yes"}, {probe.Tristate(99).String(), "?"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// DESIGN.md, part 3: the next of 32, 64, 128, 255 above the received TTL, minus
// the TTL.
func TestHops(t *testing.T) {
	for ttl, want := range map[uint8]int{1: 31, 32: 0, 33: 31, 57: 7, 64: 0, 65: 63, 117: 11, 128: 0, 129: 126, 250: 5, 255: 0} {
		if got := probe.Hops(ttl); got != want {
			t.Errorf("TTL %d: %d hops, want %d", ttl, got, want)
		}
	}
	for ttl := range 256 {
		if h := probe.Hops(uint8(ttl)); h < 0 || h > 126 {
			t.Errorf("TTL %d: %d hops", ttl, h)
		}
	}
}

// Every type and code, IPv4 and IPv6: the table of what a SYN's error means.
func TestICMPFailure(t *testing.T) {
	want := func(e probe.ICMP) probe.Reason {
		if e.V6 {
			switch {
			case e.Type == 1 && (e.Code == 1 || e.Code == 5 || e.Code == 6):
				return probe.Prohibited
			case e.Type >= 1 && e.Type <= 4:
				return probe.Unreachable
			}
			return probe.OK
		}
		switch {
		case e.Type == 3 && (e.Code == 9 || e.Code == 10 || e.Code == 13):
			return probe.Prohibited
		case e.Type == 3, e.Type == 11, e.Type == 12:
			return probe.Unreachable
		}
		return probe.OK
	}
	for _, v6 := range []bool{false, true} {
		for typ := range 256 {
			for code := range 256 {
				e := probe.ICMP{V6: v6, Type: uint8(typ), Code: uint8(code)}
				if got := e.Failure(); got != want(e) {
					t.Errorf("%+v: %v, want %v", e, got, want(e))
				}
			}
		}
	}
}

// A duration is only taken between two stamps of one stretch of one clock.
func TestStampSub(t *testing.T) {
	tests := []struct {
		a, b probe.Stamp
		d    time.Duration
		ok   bool
	}{
		{probe.Stamp{Wall: 10, Clock: 1}, probe.Stamp{Wall: 30, Clock: 1}, 20, true},
		{probe.Stamp{Wall: 30, Clock: 7}, probe.Stamp{Wall: 10, Clock: 7}, -20, true},
		{probe.Stamp{Wall: 10, Clock: 1}, probe.Stamp{Wall: 30, Clock: 2}, 20, false},
		{probe.Stamp{Wall: 10}, probe.Stamp{Wall: 30}, 20, false},
		{probe.Stamp{}, probe.Stamp{Wall: 30, Clock: 1}, 30, false},
	}
	for _, tt := range tests {
		if d, ok := tt.b.Sub(tt.a); d != tt.d || ok != tt.ok {
			t.Errorf("%+v to %+v: %v, %v", tt.a, tt.b, d, ok)
		}
	}
	if (probe.Stamp{Wall: 1}).Valid() || !(probe.Stamp{Clock: 1}).Valid() {
		t.Error("Valid is not about the clock")
	}
}

func TestInstant(t *testing.T) {
	const now probe.Instant = 1_000
	if later := now.Add(time.Second); later.Sub(now) != time.Second || now.Sub(later) != -time.Second {
		t.Errorf("%d is not a second after %d", later, now)
	}
}

// A transcript's size is fixed: the first and the last records are kept, and
// what does not fit between them is counted.
func TestTranscriptIsBounded(t *testing.T) {
	var tr probe.Transcript
	tr.Reset(probe.FourTuple{}, probe.HalfOpen)
	c := probe.New(fuzzParams[0])
	for i := range probe.MaxRecords + 5 {
		ev := probe.Event{Kind: probe.SegmentArrives, Segment: probe.Segment{Flags: probe.SYN | probe.ACK, Ack: 2}}
		if i == 0 {
			ev = probe.Event{Kind: probe.Open, Segment: probe.Segment{Flags: probe.SYN, Seq: 1}}
		}
		var out probe.Output
		c, out = probe.Step(c, probe.Instant(i), ev)
		tr.Add(probe.Instant(i), &ev, &c, &out)
	}
	if len(tr.Records()) != probe.MaxRecords || tr.Lost != 5 || tr.Records()[0].Note != probe.NoteOpen ||
		tr.Records()[probe.FirstRecords-1].At != probe.FirstRecords-1 || tr.Records()[probe.FirstRecords].At != probe.FirstRecords+5 ||
		tr.Records()[probe.MaxRecords-1].At != probe.MaxRecords+4 {
		t.Errorf("%d records, %d lost", len(tr.Records()), tr.Lost)
	}
	tr.Reset(probe.FourTuple{}, probe.HalfOpen)
	if len(tr.Records()) != 0 || tr.Lost != 0 {
		t.Error("not empty after Reset")
	}
}
