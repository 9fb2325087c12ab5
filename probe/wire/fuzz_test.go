package wire_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// seedPackets are the kernel's packets and one of each oddity.
func seedPackets(f *testing.F) [][]byte {
	s := syn()
	odd := probe.Segment{Flags: 0xfff, Len: 3, Options: probe.Options{RawLen: 12, Raw: [40]byte{2, 4, 5, 0xb4, 254, 4, 0xf9, 0x89, 0, 8, 9, 1}}}
	tcp6 := wire.AppendTCP(nil, &tuple6, &s, []byte("x"))
	chain := append([]byte{60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 4, 0, 0, 0, 0, 0, 51, 0, 0, 0, 0, 0, 0, 1,
		6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, tcp6...)
	extended := wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, HopLimit: 1}, chain)
	options := wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 6, Options: []byte{148, 4, 0, 0}}, wire.AppendTCP(nil, &tuple4, &s, nil))
	seeds := [][]byte{
		wire.AppendPacket(nil, &tuple4, &odd, []byte("abc")),
		wire.AppendPacket(nil, &tuple6, &odd, []byte("abc")),
		extended, options,
		icmp4(11, 0, 0, options), icmp6(3, 0, 0, extended),
		icmp4(12, 0, 0x14000000, options[:32]), icmp6(2, 0, 1280, extended[:104]),
	}
	for _, p := range linuxPackets {
		seeds = append(seeds, unhex(f, p))
	}
	return seeds
}

// Any bytes give a packet or an error, from these bytes alone; and a segment
// that was read whole is the same after it was written and read again.
func FuzzParse(f *testing.F) {
	for _, b := range seedPackets(f) {
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q wire.Packet
		err := wire.Parse(b, &p)

		// The same input with something else behind it, within its capacity.
		poisoned := append(bytes.Clone(b), bytes.Repeat([]byte{0xa5}, 64)...)[:len(b)]
		q.Kind, q.Segment.Options.Raw[39], q.ICMP.Code = 77, 7, 7 // and into a used Packet
		if again := wire.Parse(poisoned, &q); !errors.Is(again, err) || !equal(&p, &q) {
			t.Fatalf("depends on more than the input: %v %+v, then %v %+v", err, p, again, q)
		}
		checkPlain(t, b, &p, err)
		if err != nil {
			return
		}
		if p.Src.Is4In6() || p.Src.Is4() != p.Dst.Is4() || !p.Src.IsValid() {
			t.Fatalf("addresses %v, %v", p.Src, p.Dst)
		}
		switch p.Kind {
		case wire.KindTCP:
			checkSegment(t, b, &p)
		case wire.KindICMPError:
			if p.Quote.Src.Is6() != p.ICMP.V6 || p.Src.Is6() != p.ICMP.V6 || p.Quote.Src.Is4In6() || p.Payload != nil {
				t.Fatalf("%+v", p)
			}
		case wire.KindOther:
			if p.Payload != nil || p.Quote != (wire.Quote{}) || p.SrcPort != 0 {
				t.Fatalf("%+v", p)
			}
		}
	})
}

// checkPlain holds the way that plain packets take, with and without the checksum, to
// the one that all can take.
func checkPlain(t *testing.T, b []byte, p *wire.Packet, err error) {
	var q wire.Packet
	if again := wire.ParseAny(b, &q); !errors.Is(again, err) || err == nil && !equal(p, &q) {
		t.Fatalf("by the long way: %v %+v, not %v %+v", again, q, err, p)
	}
	q.Kind, q.Segment.Options.Raw[39], q.ICMP.Code = 77, 7, 7
	again := wire.ParseUnverified(b, &q)
	if again == nil && q.Kind == wire.KindTCP && q.Checksum == wire.ChecksumUnchecked {
		q.Checksum = p.Checksum
	}
	if !errors.Is(again, err) || err == nil && !equal(p, &q) {
		t.Fatalf("unverified: %v %+v, not %v %+v", again, q, err, p)
	}
}

func equal(p, q *wire.Packet) bool {
	return p.Kind == q.Kind && p.Checksum == q.Checksum && p.Protocol == q.Protocol && p.Src == q.Src && p.Dst == q.Dst &&
		p.SrcPort == q.SrcPort && p.DstPort == q.DstPort && p.Segment == q.Segment && bytes.Equal(p.Payload, q.Payload) &&
		p.ICMP == q.ICMP && p.Quote == q.Quote
}

func checkSegment(t *testing.T, b []byte, p *wire.Packet) {
	if n := len(p.Payload); n > 0 {
		start := uintptr(unsafe.Pointer(&p.Payload[0])) - uintptr(unsafe.Pointer(&b[0]))
		if start > uintptr(len(b)) || start+uintptr(n) > uintptr(len(b)) {
			t.Fatalf("payload is not of the input: %d octets at %d", n, start)
		}
	}
	s := &p.Segment
	if len(p.Payload) > int(s.Len) || s.Options.RawLen%4 != 0 || p.Checksum != wire.ChecksumUnchecked && len(p.Payload) != int(s.Len) {
		t.Fatalf("%+v", p)
	}
	if len(p.Payload) != int(s.Len) {
		return // snapped
	}
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
	again := parse(t, wire.AppendPacket(nil, &tuple, s, p.Payload))
	p.Checksum = wire.ChecksumValid // the encoder's is
	if !equal(p, &again) {
		t.Fatalf("parsed %+v\nwritten and parsed %+v", p, again)
	}
}

// A segment made of fields is the same after it was written and read.
func FuzzAppend(f *testing.F) {
	f.Add(false, uint32(1), uint32(2), uint16(2), uint16(64240), uint16(0), uint8(64), uint8(0), uint16(0x3f), uint16(1460), uint8(7), uint32(3), uint32(4), []byte("cookie"), []byte("payload"))
	f.Add(true, uint32(1<<31), uint32(0), uint16(0xfff), uint16(0), uint16(9), uint8(255), uint8(255), uint16(0), uint16(0), uint8(255), uint32(0), uint32(0), []byte{}, []byte{})
	f.Add(true, uint32(0), uint32(1<<32-1), uint16(0x12), uint16(1), uint16(0), uint8(1), uint8(2), uint16(0x33), uint16(536), uint8(0), uint32(1<<32-1), uint32(1), bytes.Repeat([]byte{9}, 16), []byte("x"))
	f.Fuzz(func(t *testing.T, v6 bool, seq, ack uint32, flags, window, urgent uint16, ttl, tos uint8,
		set, mss uint16, scale uint8, val, ecr uint32, cookie, payload []byte) {
		s := probe.Segment{Seq: probe.Seq(seq), Ack: probe.Seq(ack), Flags: probe.Flags(flags & 0xfff), Window: window, Urgent: urgent,
			Len: uint32(len(payload)), TTL: ttl, TOS: tos}
		o := &s.Options
		o.Set = probe.OptionSet(set) & (probe.OptMSS | probe.OptWindowScale | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptFastOpen)
		if o.Has(probe.OptMSS) {
			o.MSS = mss
		}
		if o.Has(probe.OptWindowScale) {
			o.WindowScale = scale
		}
		if o.Has(probe.OptTimestamps) {
			o.TSVal, o.TSEcr = val, ecr
		}
		if n := min(len(cookie), 16) &^ 1; o.Has(probe.OptFastOpen) && n >= 4 {
			o.CookieLen = uint8(n)
			copy(o.Cookie[:], cookie[:n])
		}
		tuple := tuple4
		if v6 {
			tuple = tuple6
		}
		p := parse(t, wire.AppendPacket(nil, &tuple, &s, payload))
		if got := unraw(p.Segment); got != s || !bytes.Equal(p.Payload, payload) || p.Checksum != wire.ChecksumValid {
			t.Fatalf("wrote %+v\nread %+v, %v", s, got, p.Checksum)
		}
	})
}

// Any octets parse; they are written as they came, and so read the same.
func FuzzOptions(f *testing.F) {
	for _, b := range seedPackets(f) {
		var p wire.Packet
		if wire.Parse(b, &p) == nil && p.Kind == wire.KindTCP {
			f.Add(p.Segment.Options.Raw[:p.Segment.Options.RawLen])
		}
	}
	f.Add([]byte{34, 2, 34, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add(append([]byte{19, 18}, make([]byte, 18)...))
	f.Add(append([]byte{1, 1, 5, 34}, make([]byte, 32)...))
	f.Add([]byte{3, 3, 255, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var o, again probe.Options
		wire.ParseOptions(b, &o)
		n := min(len(b), probe.MaxOptions)
		if !bytes.Equal(o.Raw[:o.RawLen], b[:n]) || o.CookieLen > 16 {
			t.Fatalf("%+v", o)
		}
		out := wire.AppendOptions(nil, &o)
		if len(out)%4 != 0 || len(out) > probe.MaxOptions || !bytes.HasPrefix(out, b[:n]) {
			t.Fatalf("written %x of %x", out, b)
		}
		if wire.ParseOptions(out, &again); n%4 == 0 && again != o {
			t.Fatalf("read %+v\nthen %+v", o, again)
		}

		// From the fields alone, the known ones are the same.
		fields := o
		fields.RawLen, fields.Raw = 0, again.Raw
		wire.ParseOptions(wire.AppendOptions(nil, &fields), &again)
		o.Set &^= probe.OptSACK | probe.OptUnknown | probe.OptMalformed
		again.RawLen, o.RawLen, again.Raw = 0, 0, o.Raw
		if again != o {
			t.Fatalf("fields %+v\nthen %+v", o, again)
		}
	})
}
