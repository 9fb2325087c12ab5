package probe_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

// sameTranscript reports whether two transcripts say the same.
func sameTranscript(a, b *probe.Transcript) bool {
	return a.Tuple == b.Tuple && a.Kind == b.Kind && a.Number == b.Number && a.Offset == b.Offset && a.Lost == b.Lost &&
		slices.Equal(a.Records(), b.Records()) && slices.Equal(a.Figures(), b.Figures())
}

// throughOctets fails the test if a transcript is not the same once it was octets.
func throughOctets(t *testing.T, want *probe.Transcript) {
	t.Helper()
	b := want.AppendOctets([]byte("before"))
	var got probe.Transcript
	if err := got.ReadOctets(b[len("before"):]); err != nil || !sameTranscript(&got, want) {
		t.Fatalf("%v: %+v\nis not\n%+v", err, &got, want)
	}
	for i := range want.Figures() {
		if got.RecordOf(&got.Figures()[i]) != want.RecordOf(&want.Figures()[i]) {
			t.Fatalf("figure %d belongs to another record", i)
		}
	}
}

// Every script's transcript is the same once it was octets.
func TestOctetsOfScripts(t *testing.T) {
	_, scripts := readScripts(t)
	for _, s := range scripts {
		for _, start := range starts {
			tr, err := s.Run(start)
			if err != nil {
				t.Fatal(err)
			}
			for i := range tr.Records() {
				tr.Records()[i].Event.Narrow = false
			}
			throughOctets(t, &tr)
		}
	}
}

// So is one of whatever values, and of any length.
func TestOctetsOfAnything(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	addrs := []netip.Addr{{}, netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:198.18.0.1"), netip.MustParseAddr("fe80::1%eth0")}
	some := func(v uint64) uint64 { // often nothing, often small
		switch rng.IntN(4) {
		case 0:
			return 0
		case 1:
			return v & 0xff
		}
		return v
	}
	n := func() uint64 { return some(rng.Uint64()) }
	addr := func() netip.Addr { return addrs[rng.IntN(len(addrs))] }
	conv := probe.New(probe.Params{Kind: probe.HalfOpen, Timeout: time.Second})
	for range 3000 {
		var tr probe.Transcript
		tr.Reset(probe.FourTuple{Local: netip.AddrPortFrom(addr(), uint16(n())), Remote: netip.AddrPortFrom(addr(), uint16(n()))}, probe.Kind(n()))
		tr.Number, tr.Offset = n(), int64(n())
		for range rng.IntN(10) {
			tr.NotOpened(probe.Instant(n()), &probe.Observation{
				Kind: probe.ObservationKind(n()), Reason: probe.Reason(n()), Discard: probe.DiscardReason(n()), Reject: probe.RejectReason(n()),
				Form: probe.Form(n()), Side: probe.Side(n()), Answer: probe.Answer(n()), Port: uint16(n()), Octets: uint32(n()),
				Duration: time.Duration(n()), Least: time.Duration(n()),
				Peer: probe.Fingerprint{
					TTL: uint8(n()), WindowScale: int8(n()), SACK: n()&1 != 0, Timestamps: n()&1 != 0, ECN: n()&1 != 0,
					SYNCookies: probe.Tristate(rng.IntN(3)), MSS: uint16(n()), Window: uint16(n()),
				},
			})
		}
		var out probe.Output
		for range rng.IntN(80) {
			ev := probe.Event{
				Kind: probe.EventKind(rng.IntN(14)), Discard: probe.DiscardReason(n()),
				Stamp: probe.Stamp{Wall: int64(n()), Clock: uint32(n()), Kernel: n()&1 != 0},
				Segment: probe.Segment{
					Seq: probe.Seq(n()), Ack: probe.Seq(n()), Flags: probe.Flags(n()), Window: uint16(n()), Urgent: uint16(n()),
					Len: uint32(n()), TTL: uint8(n()), TOS: uint8(n()),
					Options: probe.Options{Set: probe.OptionSet(n()), MSS: uint16(n()), WindowScale: uint8(n()), TSVal: uint32(n()), TSEcr: uint32(n())},
				},
				ICMP: probe.ICMP{V6: n()&1 != 0, Type: uint8(n()), Code: uint8(n()), Seq: probe.Seq(n()), From: addr()},
			}
			o := &ev.Segment.Options
			o.CookieLen, o.RawLen = uint8(rng.IntN(len(o.Cookie)+1)), uint8(rng.IntN(len(o.Raw)+1))
			for i := range o.CookieLen {
				o.Cookie[i] = byte(n())
			}
			for i := range o.RawLen {
				o.Raw[i] = byte(n())
			}
			out.Note = probe.Note(n())
			tr.Add(probe.Instant(n()), &ev, &conv, &out)
		}
		throughOctets(t, &tr)
	}
}

// What is not a transcript's octets is refused, and nothing else happens.
func FuzzReadOctets(f *testing.F) {
	_, scripts := readScripts(f)
	for _, s := range scripts {
		tr, err := s.Run(starts[0])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(tr.AppendOctets(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr, again probe.Transcript
		if tr.ReadOctets(b) != nil {
			if len(tr.Records())+len(tr.Figures()) != 0 {
				t.Fatal("refused, and not empty")
			}
			return
		}
		if err := again.ReadOctets(tr.AppendOctets(nil)); err != nil || !sameTranscript(&tr, &again) {
			t.Fatalf("%v: %+v\nis not\n%+v", err, &again, &tr)
		}
	})
}

// An answered half_open takes a few hundred octets, and to write them allocates
// nothing.
func TestOctetsAreFew(t *testing.T) {
	_, scripts := readScripts(t)
	i := slices.IndexFunc(scripts, func(s *script.Script) bool { return s.File == "testdata/script/syn_then_synack.script" })
	tr, err := scripts[i].Run(starts[0])
	if err != nil {
		t.Fatal(err)
	}
	b := tr.AppendOctets(nil)
	if t.Logf("%d octets", len(b)); len(b) > 256 {
		t.Errorf("%d octets, want 256 at most", len(b))
	}
	if n := testing.AllocsPerRun(100, func() { b = tr.AppendOctets(b[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	again := probe.Transcript{}
	if n := testing.AllocsPerRun(100, func() {
		if again.ReadOctets(b) != nil {
			t.Error("not read")
		}
	}); n != 0 {
		t.Errorf("%v allocations to read them", n)
	}
	if !bytes.Equal(again.AppendOctets(nil), b) {
		t.Error("written again, they are others")
	}
}

// BenchmarkOctets is what it costs to write an answered half_open, and to read it.
func BenchmarkOctets(b *testing.B) {
	_, scripts := readScripts(b)
	i := slices.IndexFunc(scripts, func(s *script.Script) bool { return s.File == "testdata/script/syn_then_synack.script" })
	tr, err := scripts[i].Run(starts[0])
	if err != nil {
		b.Fatal(err)
	}
	var to []byte
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			to = tr.AppendOctets(to[:0])
		}
		b.ReportMetric(float64(len(to)), "octets")
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if tr.ReadOctets(to) != nil {
				b.Fatal("not read")
			}
		}
	})
}
