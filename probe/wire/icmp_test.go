package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

func TestParseLinuxICMP(t *testing.T) {
	for _, c := range []struct {
		packet string
		want   probe.ICMP
		quote  wire.Quote
	}{
		{linuxICMPProh4, probe.ICMP{Type: 3, Code: 13, Seq: 1955559828, From: us4}, wire.Quote{Src: us4, Dst: us4, SrcPort: 42730, DstPort: 81}},
		{linuxICMPPort4, probe.ICMP{Type: 3, Code: 3, Seq: 3340721776, From: us4}, wire.Quote{Src: us4, Dst: us4, SrcPort: 44520, DstPort: 82}},
		{linuxICMPProh6, probe.ICMP{V6: true, Type: 1, Code: 1, Seq: 582693130, From: us6}, wire.Quote{Src: us6, Dst: us6, SrcPort: 37912, DstPort: 81}},
		{linuxICMPPort6, probe.ICMP{V6: true, Type: 1, Code: 4, Seq: 2630735954, From: us6}, wire.Quote{Src: us6, Dst: us6, SrcPort: 56198, DstPort: 82}},
	} {
		p := parse(t, unhex(t, c.packet))
		if p.Kind != wire.KindICMPError || p.ICMP != c.want || p.Quote != c.quote || p.Checksum != wire.ChecksumValid {
			t.Errorf("%v %+v %+v %v, want %+v %+v", p.Kind, p.ICMP, p.Quote, p.Checksum, c.want, c.quote)
		}
	}
}

// icmp4 and icmp6 are errors from a router about what it was sent.
func icmp4(typ, code uint8, rest uint32, about []byte) []byte {
	e := wire.ICMPError{Src: hop4, Dst: us4, Type: typ, Code: code, Rest: rest}
	return wire.AppendIPv4(nil, &wire.IPv4Header{Src: hop4, Dst: us4, Protocol: 1, TTL: 60}, wire.AppendICMPError(nil, &e, about))
}

func icmp6(typ, code uint8, rest uint32, about []byte) []byte {
	e := wire.ICMPError{Src: hop6, Dst: us6, Type: typ, Code: code, Rest: rest}
	return wire.AppendIPv6(nil, &wire.IPv6Header{Src: hop6, Dst: us6, NextHeader: 58, HopLimit: 60}, wire.AppendICMPError(nil, &e, about))
}

var (
	quote4 = wire.Quote{Src: us4, Dst: peer4, SrcPort: 61000, DstPort: 443}
	quote6 = wire.Quote{Src: us6, Dst: peer6, SrcPort: 61000, DstPort: 443}
)

func TestICMPTypes(t *testing.T) {
	s := syn()
	about4, about6 := wire.AppendPacket(nil, &tuple4, &s, nil), wire.AppendPacket(nil, &tuple6, &s, nil)
	errors4 := map[int]bool{3: true, 4: true, 11: true, 12: true}
	for typ := range 256 {
		p := parse(t, icmp4(uint8(typ), 5, 1400, about4))
		want := probe.ICMP{Type: uint8(typ), Code: 5, Seq: s.Seq, From: hop4}
		if is := p.Kind == wire.KindICMPError; is != errors4[typ] || is && (p.ICMP != want || p.Quote != quote4) || p.Checksum != wire.ChecksumValid {
			t.Errorf("ICMP %d: %+v", typ, p)
		}
		p = parse(t, icmp6(uint8(typ), 5, 1400, about6))
		want.V6, want.From = true, hop6
		if is := p.Kind == wire.KindICMPError; is != (typ >= 1 && typ <= 4) || is && (p.ICMP != want || p.Quote != quote6) || p.Checksum != wire.ChecksumValid {
			t.Errorf("ICMPv6 %d: %+v", typ, p)
		}
		if p.Src != hop6 || p.Dst != us6 || p.Segment.TTL != 60 {
			t.Errorf("ICMPv6 %d: outer header %+v", typ, p)
		}
	}
}

func TestQuotes(t *testing.T) {
	s := syn()
	tcp4, tcp6 := wire.AppendTCP(nil, &tuple4, &s, nil), wire.AppendTCP(nil, &tuple6, &s, nil)
	plain4, plain6 := wire.AppendPacket(nil, &tuple4, &s, nil), wire.AppendPacket(nil, &tuple6, &s, nil)
	options4 := wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 6, Options: make([]byte, 40)}, tcp4)
	chain6 := func(tail ...byte) []byte {
		ext := append([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}...)
		ext = append(ext, tail...)
		return wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 0}, append(ext, tcp6...))
	}
	first6, later6 := chain6(6, 0, 0, 1, 0, 0, 0, 9), chain6(6, 0, 0, 9, 0, 0, 0, 9)

	for name, b := range map[string][]byte{
		"whole":                                plain4,
		"8 octets of TCP":                      plain4[:28],
		"options":                              options4,
		"options, 8 octets of TCP":             options4[:68],
		"TTL decremented, checksums rewritten": edit(edit(edit(plain4, 8, 1), 10, 0xde, 0xad), 36, 0xbe, 0xef),
		"total length in host order":           edit(plain4, 2, plain4[3], plain4[2]),
		"total length 0":                       edit(plain4, 2, 0, 0),
		"total length too small":               edit(plain4, 2, 0, 20),
		"first fragment":                       edit(plain4, 6, 0x20, 0),
		"extension objects behind (RFC 4884)":  append(append(bytes.Clone(plain4), make([]byte, 128-len(plain4))...), 0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3),
	} {
		p := parse(t, icmp4(11, 0, 0, b))
		if p.Kind != wire.KindICMPError || p.Quote != quote4 || p.ICMP.Seq != s.Seq || p.Checksum != wire.ChecksumValid {
			t.Errorf("IPv4, %s: %+v", name, p)
		}
		p = parse(t, icmp4(3, 1, 32<<16, b)) // RFC 4884's length field, right or wrong
		if p.Kind != wire.KindICMPError || p.Quote != quote4 {
			t.Errorf("IPv4, %s, with a length: %+v", name, p)
		}
	}
	for name, b := range map[string][]byte{
		"whole":                                plain6,
		"8 octets of TCP":                      plain6[:48],
		"extension headers":                    first6,
		"extension headers, 8 octets of TCP":   first6[:80],
		"extension headers, payload length 0":  edit(first6, 4, 0, 0),
		"payload length too small":             edit(first6, 4, 0, 9),
		"hop limit 0, TCP checksum rewritten":  edit(edit(plain6, 7, 0), 56, 0xbe, 0xef),
		"extension objects behind (RFC 4884)":  append(append(bytes.Clone(plain6), make([]byte, 128-len(plain6))...), 0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3),
		"more than an error of ours may quote": append(bytes.Clone(plain6), make([]byte, 5000)...),
	} {
		p := parse(t, icmp6(3, 0, 0, b))
		if p.Kind != wire.KindICMPError || p.Quote != quote6 || p.ICMP.Seq != s.Seq || p.Checksum != wire.ChecksumValid {
			t.Errorf("IPv6, %s: %+v", name, p)
		}
	}

	// Quotes of something else are no concern of ours.
	udp4 := wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 17}, tcp4)
	udp6 := wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 17}, tcp6)
	for name, b := range map[string][]byte{
		"UDP": icmp4(3, 3, 0, udp4), "UDP over IPv6": icmp6(1, 4, 0, udp6), "nothing but a UDP header's half": icmp4(3, 3, 0, udp4[:24]),
		"later fragment": icmp4(11, 1, 0, edit(plain4, 6, 0, 1)), "later fragment over IPv6": icmp6(3, 1, 0, later6),
	} {
		if p := parse(t, b); p.Kind != wire.KindOther || p.Quote != (wire.Quote{}) {
			t.Errorf("%s: %+v", name, p)
		}
	}

	for name, b := range map[string][]byte{
		"nothing":                 icmp4(3, 3, 0, nil),
		"7 octets of TCP":         icmp4(3, 3, 0, plain4[:27]),
		"IPv4 header cut":         icmp4(3, 3, 0, plain4[:19]),
		"IPv4 options cut":        icmp4(3, 3, 0, options4[:59]),
		"header length 4":         icmp4(3, 3, 0, edit(plain4, 0, 0x44)),
		"version 0":               icmp4(3, 3, 0, edit(plain4, 0, 0)),
		"IPv6 quoted by ICMP":     icmp4(3, 3, 0, plain6),
		"IPv4 quoted by ICMPv6":   icmp6(1, 4, 0, plain4),
		"7 octets of TCP, IPv6":   icmp6(1, 4, 0, plain6[:47]),
		"IPv6 header cut":         icmp6(1, 4, 0, plain6[:39]),
		"IPv6 extension cut":      icmp6(1, 4, 0, first6[:63]),
		"IPv6 extension cut to 4": icmp6(1, 4, 0, first6[:44]),
		"snapped":                 icmp4(3, 3, 0, plain4)[:55],
	} {
		var p wire.Packet
		if err := wire.Parse(b, &p); !errors.Is(err, wire.ErrQuote) {
			t.Errorf("%s: %v, want ErrQuote", name, err)
		}
	}
}

func TestICMPChecksum(t *testing.T) {
	s := syn()
	for _, c := range []struct {
		b    []byte
		icmp int
	}{
		{icmp4(3, 13, 0, wire.AppendPacket(nil, &tuple4, &s, nil)), 20},
		{icmp6(1, 1, 0, wire.AppendPacket(nil, &tuple6, &s, nil)), 40},
	} {
		for i := c.icmp + 1; i < len(c.b); i++ {
			var p wire.Packet
			if err := wire.Parse(edit(c.b, i, c.b[i]^1), &p); err == nil && p.Checksum != wire.ChecksumBad {
				t.Errorf("octet %d: %v", i, p.Checksum)
			}
		}
		if p := parse(t, c.b[:len(c.b)-1]); p.Kind != wire.KindICMPError || p.Checksum != wire.ChecksumUnchecked {
			t.Errorf("snapped: %v %v", p.Kind, p.Checksum)
		}
	}
	b := icmp6(1, 1, 0, wire.AppendPacket(nil, &tuple6, &s, nil))
	if p := parse(t, edit(b, 23, 7)); p.Checksum != wire.ChecksumBad {
		t.Errorf("ICMPv6 from another address: %v: it has a pseudo-header", p.Checksum)
	}
}

// An error's packet is at most 576 octets, or 1280 for IPv6.
func TestICMPErrorSize(t *testing.T) {
	s := probe.Segment{}
	big := bytes.Repeat([]byte{1}, 3000)
	if b := icmp4(11, 0, 0, wire.AppendPacket(nil, &tuple4, &s, big)); len(b) != 576 {
		t.Errorf("IPv4: %d octets", len(b))
	}
	b := icmp6(2, 0, 1400, wire.AppendPacket(nil, &tuple6, &s, big))
	if len(b) != 1280 || binary.BigEndian.Uint32(b[44:]) != 1400 {
		t.Errorf("IPv6: %d octets, MTU %d", len(b), binary.BigEndian.Uint32(b[44:]))
	}
}
