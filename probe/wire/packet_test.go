package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

func TestParseLinuxSYNACK(t *testing.T) {
	p := parse(t, unhex(t, linuxSYNACK4))
	want := probe.Segment{Seq: 3587760118, Ack: 2946234696, Flags: probe.SYN | probe.ACK, Window: 65483, TTL: 64,
		Options: probe.Options{Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale,
			MSS: 65495, TSVal: 3749395323, TSEcr: 2157688988, WindowScale: 10}}
	if got := unraw(p.Segment); got != want {
		t.Errorf("segment\n got %+v\nwant %+v", got, want)
	}
	if p.Kind != wire.KindTCP || p.Protocol != 6 || p.Src != us4 || p.Dst != us4 || p.SrcPort != 443 || p.DstPort != 43664 {
		t.Errorf("packet %+v", p)
	}
	if p.Checksum != wire.ChecksumPartial {
		t.Errorf("checksum %v, want partial: loopback leaves it to hardware that isn't there", p.Checksum)
	}
	raw := p.Segment.Options.Raw[:p.Segment.Options.RawLen]
	if !bytes.Equal(raw, unhex(t, linuxSYNACK4)[40:]) {
		t.Errorf("Raw = %x", raw)
	}

	p = parse(t, unhex(t, linuxSYNACK6))
	if p.Src != us6 || p.Segment.Seq != 1924938805 || p.Segment.Options.MSS != 65476 || p.Checksum != wire.ChecksumPartial {
		t.Errorf("IPv6: %+v", p)
	}
}

func TestParseLinuxRest(t *testing.T) {
	p := parse(t, unhex(t, linuxRST4))
	if p.Segment.Flags != probe.RST|probe.ACK || p.Checksum != wire.ChecksumValid || p.Segment.Options.RawLen != 0 {
		t.Errorf("RST: %+v", p)
	}
	p = parse(t, unhex(t, linuxData4))
	if string(p.Payload) != "hello" || p.Segment.Len != 5 || p.Segment.Flags != probe.PSH|probe.ACK {
		t.Errorf("data: %+v", p)
	}
	p = parse(t, unhex(t, linuxFINACK4))
	if p.Segment.Len != 0 || p.Segment.SegLen() != 1 || len(p.Payload) != 0 {
		t.Errorf("FIN: %+v", p)
	}
}

// edit returns b with the octets from i on replaced.
func edit(b []byte, i int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[i:], with)
	return b
}

func TestParseErrors(t *testing.T) {
	s := syn()
	v4, v6 := wire.AppendPacket(nil, &tuple4, &s, nil), wire.AppendPacket(nil, &tuple6, &s, nil)
	bare := probe.Segment{Flags: probe.ACK}
	bare4, bare6 := wire.AppendPacket(nil, &tuple4, &bare, nil), wire.AppendPacket(nil, &tuple6, &bare, nil)
	chain := func(next byte, b ...byte) []byte {
		return wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: next}, b)
	}
	mapped := netip.MustParseAddr("::ffff:198.18.0.1")

	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, wire.ErrShort},
		{"version 0", []byte{0}, wire.ErrVersion},
		{"version 5", edit(v4, 0, 0x55), wire.ErrVersion},
		{"IPv4 header cut", v4[:19], wire.ErrShort},
		{"IPv4 header length 4 words", edit(v4, 0, 0x44), wire.ErrHeaderLength},
		{"IPv4 options cut", edit(v4, 0, 0x4f)[:59], wire.ErrShort},
		{"IPv4 total length inside the header", edit(v4, 2, 0, 19), wire.ErrHeaderLength},
		{"IPv4 total length inside the TCP header", edit(v4, 2, 0, 39), wire.ErrHeaderLength},
		{"IPv4 fragment offset 1", edit(v4, 6, 0x00, 0x01), wire.ErrFragment},
		{"IPv4 last fragment", edit(v4, 6, 0x1f, 0xff), wire.ErrFragment},
		{"TCP header cut", v4[:39], wire.ErrShort},
		{"TCP options cut", v4[:len(v4)-1], wire.ErrShort},
		{"TCP data offset 0", edit(bare4, 32, 0x00), wire.ErrHeaderLength},
		{"TCP data offset 4", edit(bare4, 32, 0x40), wire.ErrHeaderLength},
		{"TCP data offset beyond the packet", edit(bare4, 32, 0x60), wire.ErrHeaderLength},
		{"TCP data offset beyond the packet, inside the padding", append(edit(bare4, 32, 0x60), make([]byte, 6)...), wire.ErrHeaderLength},
		{"IPv6 header cut", v6[:39], wire.ErrShort},
		{"IPv6 TCP header cut", v6[:59], wire.ErrShort},
		{"IPv6 TCP data offset 4", edit(bare6, 52, 0x40), wire.ErrHeaderLength},
		{"IPv6 payload length inside the TCP header", edit(bare6, 4, 0, 19), wire.ErrHeaderLength},
		{"IPv6 from an IPv4-mapped address", wire.AppendIPv6(nil, &wire.IPv6Header{Src: mapped, Dst: us6, NextHeader: 6}, bare6[40:]), wire.ErrAddress},
		{"IPv6 to an IPv4-mapped address", wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: mapped, NextHeader: 6}, bare6[40:]), wire.ErrAddress},
		{"extension header in less than 8 octets", chain(60, 6, 0, 0, 0), wire.ErrHeaderLength},
		{"extension header longer than the packet", chain(0, 6, 1, 0, 0, 0, 0, 0, 0), wire.ErrHeaderLength},
		{"authentication header longer than the packet", chain(51, 6, 255, 0, 0, 0, 0, 0, 0), wire.ErrHeaderLength},
		{"extension header cut at its beginning", chain(60, make([]byte, 16)...)[:47], wire.ErrShort},
		{"extension header cut in the middle", chain(60, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)[:50], wire.ErrShort},
		{"IPv6 fragment offset 8", chain(44, 6, 0, 0, 8, 0, 0, 0, 1), wire.ErrFragment},
		{"IPv6 fragment behind options", chain(60, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0xff, 0xf9, 0, 0, 0, 1), wire.ErrFragment},
		{"ICMP of 7 octets", wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: us4, Protocol: 1}, make([]byte, 7)), wire.ErrHeaderLength},
		{"ICMP cut", wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: us4, Protocol: 1}, make([]byte, 8))[:27], wire.ErrShort},
		{"ICMPv6 of 7 octets", chain(58, make([]byte, 7)...), wire.ErrHeaderLength},
	} {
		var p wire.Packet
		if err := wire.Parse(c.b, &p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseOther(t *testing.T) {
	udp := make([]byte, 12)
	for name, b := range map[string][]byte{
		"UDP":              wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 17, TTL: 9}, udp),
		"ICMPv6 over IPv4": wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 58, TTL: 9}, udp),
		"ICMP over IPv6":   wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 1, HopLimit: 9}, udp),
		"no next header":   wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 59, HopLimit: 9}, nil),
		"ESP":              wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 50, HopLimit: 9}, udp),
	} {
		if p := parse(t, b); p.Kind != wire.KindOther || p.Segment.TTL != 9 || !p.Src.IsValid() {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// Every single-bit error in what the checksum covers is found.
func TestChecksumFindsEveryBit(t *testing.T) {
	s := syn()
	for _, tuple := range []*probe.FourTuple{&tuple4, &tuple6} {
		good := wire.AppendPacket(nil, tuple, &s, []byte("odd"))
		tcp := 40
		if tuple == &tuple4 {
			tcp = 20
		}
		if p := parse(t, good); p.Checksum != wire.ChecksumValid {
			t.Fatalf("%v", p.Checksum)
		}
		for bit := tcp * 8; bit < len(good)*8; bit++ {
			if bit/8 == tcp+12 { // the data offset: other errors
				continue
			}
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			if p := parse(t, b); p.Checksum != wire.ChecksumBad {
				t.Errorf("bit %d: %v", bit, p.Checksum)
			}
		}
		for i := tcp - 8; i < tcp; i++ { // addresses, through the pseudo-header
			if p := parse(t, edit(good, i, good[i]^0x10)); p.Checksum != wire.ChecksumBad {
				t.Errorf("octet %d: %v", i, p.Checksum)
			}
		}
	}
}

func TestChecksumOfWhatWasCut(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 1000)
	for _, tuple := range []*probe.FourTuple{&tuple4, &tuple6} {
		s := probe.Segment{Flags: probe.ACK}
		whole := wire.AppendPacket(nil, tuple, &s, payload)

		p := parse(t, whole[:200])
		if p.Checksum != wire.ChecksumUnchecked || p.Segment.Len != 1000 || len(p.Payload) >= 200 {
			t.Errorf("snapped: %v, Len %d, %d octets", p.Checksum, p.Segment.Len, len(p.Payload))
		}
		p = parse(t, append(bytes.Clone(whole), 1, 2, 3, 4, 5, 6))
		if p.Checksum != wire.ChecksumValid || p.Segment.Len != 1000 || !bytes.Equal(p.Payload, payload) {
			t.Errorf("Ethernet padding: %v, Len %d", p.Checksum, p.Segment.Len)
		}

		at := 4
		if tuple == &tuple4 {
			at = 2
		}
		p = parse(t, edit(whole, at, 0, 0))
		if p.Checksum != wire.ChecksumValid || p.Segment.Len != 1000 {
			t.Errorf("length 0: %v, Len %d", p.Checksum, p.Segment.Len)
		}
		p = parse(t, edit(whole, at, 0, 0)[:200])
		if p.Checksum != wire.ChecksumUnchecked {
			t.Errorf("length 0, perhaps snapped: %v", p.Checksum)
		}
	}
}

// More than 64 KiB, as Linux's BIG TCP shows it, both ways.
func TestBigTCP(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 10000)
	s := probe.Segment{Flags: probe.ACK}
	for _, tuple := range []*probe.FourTuple{&tuple4, &tuple6} {
		p := parse(t, wire.AppendPacket(nil, tuple, &s, payload))
		if p.Checksum != wire.ChecksumValid || p.Segment.Len != 100000 || !bytes.Equal(p.Payload, payload) {
			t.Errorf("%v: %v, Len %d", tuple, p.Checksum, p.Segment.Len)
		}
	}
}

func TestFirstFragments(t *testing.T) {
	s := syn()
	tcp := wire.AppendTCP(nil, &tuple4, &s, []byte("beginning"))
	p := parse(t, wire.AppendIPv4(nil, &wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 6, MoreFragments: true}, tcp))
	if p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumUnchecked || p.Segment.Len != 9 || !p.Fragment {
		t.Errorf("IPv4: %+v", p)
	}

	tcp = wire.AppendTCP(nil, &tuple6, &s, []byte("beginning"))
	h := wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 44}
	p = parse(t, wire.AppendIPv6(nil, &h, append([]byte{6, 0, 0, 1, 0, 0, 0, 9}, tcp...)))
	if p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumUnchecked || p.Segment.Len != 9 || !p.Fragment {
		t.Errorf("IPv6: %+v", p)
	}
	p = parse(t, wire.AppendIPv6(nil, &h, append([]byte{6, 0, 0, 0, 0, 0, 0, 9}, tcp...)))
	if p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumValid || p.Segment.Len != 9 || p.Fragment {
		t.Errorf("atomic: %+v", p)
	}
}

func TestIPv4Options(t *testing.T) {
	s := syn()
	tcp := wire.AppendTCP(nil, &tuple4, &s, []byte("x"))
	for n := range 50 {
		h := wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 6, TTL: 7, TOS: 3, ID: 99, DontFragment: true, Options: bytes.Repeat([]byte{1}, n)}
		b := wire.AppendIPv4([]byte("before"), &h, tcp)[len("before"):]
		header := 20 + (min(n, 40)+3)/4*4
		if len(b) != header+len(tcp) || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Fatalf("%d octets of options: %x", n, b)
		}
		p := parse(t, b)
		if p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumValid || p.Segment.TTL != 7 || p.Segment.TOS != 3 {
			t.Errorf("%d octets of options: %+v", n, p)
		}
	}
}

func TestRoutingHeader(t *testing.T) {
	s := syn()
	tcp := wire.AppendTCP(nil, &tuple6, &s, nil)
	routing := append([]byte{6, 2, 4, 1}, make([]byte, 20)...)
	h := wire.IPv6Header{Src: us6, Dst: hop6, NextHeader: 43}
	if p := parse(t, wire.AppendIPv6(nil, &h, append(routing, tcp...))); p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumUnchecked {
		t.Errorf("segments left: %v: the pseudo-header's destination is not in the IPv6 header yet", p.Checksum)
	}
	routing[3], h.Dst = 0, peer6
	if p := parse(t, wire.AppendIPv6(nil, &h, append(routing, tcp...))); p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumValid {
		t.Errorf("none left: %v", p.Checksum)
	}
}

func TestAuthenticationHeader(t *testing.T) {
	s := syn()
	tcp := wire.AppendTCP(nil, &tuple6, &s, nil)
	ah := append([]byte{6, 4}, make([]byte, 22)...)
	h := wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 51}
	if p := parse(t, wire.AppendIPv6(nil, &h, append(ah, tcp...))); p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumValid || p.SrcPort != 61000 {
		t.Errorf("%+v", p)
	}
}

func TestReservedFlagsAreKept(t *testing.T) {
	for f := probe.Flags(0); f < 1<<12; f++ {
		s := probe.Segment{Flags: f}
		if p := parse(t, wire.AppendPacket(nil, &tuple4, &s, nil)); p.Segment.Flags != f || p.Checksum != wire.ChecksumValid {
			t.Fatalf("flags %012b came back as %012b, checksum %v", f, p.Segment.Flags, p.Checksum)
		}
	}
}

// Encoders append: what is in front stays, and mapped addresses are IPv4.
func TestAppendKeepsFront(t *testing.T) {
	s := syn()
	mapped := probe.FourTuple{
		Local:  netip.AddrPortFrom(netip.AddrFrom16(us4.As16()), 61000),
		Remote: netip.AddrPortFrom(netip.AddrFrom16(peer4.As16()), 443),
	}
	plain := wire.AppendPacket(nil, &tuple4, &s, []byte("p"))
	if got := wire.AppendPacket([]byte("front"), &mapped, &s, []byte("p")); string(got) != "front"+string(plain) {
		t.Errorf("got %x, want %x behind \"front\"", got, plain)
	}
	dirty := bytes.Repeat([]byte{0xff}, 200)
	if got := wire.AppendPacket(dirty[:0], &tuple4, &s, []byte("p")); !bytes.Equal(got, plain) {
		t.Errorf("into used memory: %x, want %x", got, plain)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		wire.KindOther.String(): "other", wire.KindTCP.String(): "tcp", wire.KindICMPError.String(): "icmp_error",
		wire.ChecksumUnchecked.String(): "unchecked", wire.ChecksumValid.String(): "valid",
		wire.ChecksumPartial.String(): "partial", wire.ChecksumBad.String(): "bad",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
