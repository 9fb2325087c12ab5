package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// gopacket is the independent decoder and encoder: what it makes we must read
// alike, and the other way round. It ignores the three reserved flag bits.

const gopacketFlags = 1<<9 - 1

func random(r *rand.Rand) (t probe.FourTuple, s probe.Segment, payload []byte) {
	local, remote := us4, peer4
	if r.IntN(2) == 0 {
		local, remote = us6, peer6
	}
	t = probe.FourTuple{
		Local:  netip.AddrPortFrom(local, uint16(r.Uint32())),
		Remote: netip.AddrPortFrom(remote, uint16(r.Uint32())),
	}
	s = probe.Segment{
		Seq: probe.Seq(r.Uint32()), Ack: probe.Seq(r.Uint32()), Flags: probe.Flags(r.Uint32()) & gopacketFlags,
		Window: uint16(r.Uint32()), Urgent: uint16(r.Uint32()), TTL: uint8(r.Uint32()), TOS: uint8(r.Uint32()),
	}
	o := &s.Options
	o.Set = probe.OptionSet(r.Uint32()) & (probe.OptMSS | probe.OptWindowScale | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptFastOpen)
	if o.Has(probe.OptMSS) {
		o.MSS = uint16(r.Uint32())
	}
	if o.Has(probe.OptWindowScale) {
		o.WindowScale = uint8(r.Uint32())
	}
	if o.Has(probe.OptTimestamps) {
		o.TSVal, o.TSEcr = r.Uint32(), r.Uint32()
	}
	if o.Has(probe.OptFastOpen) && r.IntN(4) > 0 {
		o.CookieLen = uint8(4 + 2*r.IntN(7))
		for i := range o.CookieLen {
			o.Cookie[i] = uint8(r.Uint32())
		}
	}
	payload = make([]byte, r.IntN(2)*r.IntN(1600))
	for i := range payload {
		payload[i] = uint8(r.Uint32())
	}
	s.Len = uint32(len(payload))
	return t, s, payload
}

func TestGopacketDecodesOurs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		tuple, s, payload := random(r)
		b := wire.AppendPacket(nil, &tuple, &s, payload)
		if err := sameAsGopacket(b, &tuple, &s, payload); err != nil {
			t.Fatalf("%v\n%+v\n%x", err, s, b)
		}
	}
}

func sameAsGopacket(b []byte, tuple *probe.FourTuple, s *probe.Segment, payload []byte) error {
	first := layers.LayerTypeIPv4
	if tuple.Local.Addr().Is6() {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.Default)
	if p.ErrorLayer() != nil {
		return fmt.Errorf("gopacket: %w", p.ErrorLayer().Error())
	}
	if p.Metadata().Truncated {
		return fmt.Errorf("truncated")
	}
	if err := verify(p); err != nil {
		return err
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if ip.TTL != s.TTL || ip.TOS != s.TOS || int(ip.Length) != len(b) || ip.Flags != layers.IPv4DontFragment ||
			!ip.SrcIP.Equal(tuple.Local.Addr().AsSlice()) || !ip.DstIP.Equal(tuple.Remote.Addr().AsSlice()) {
			return fmt.Errorf("IPv4: %+v", ip)
		}
	case *layers.IPv6:
		if ip.HopLimit != s.TTL || ip.TrafficClass != s.TOS || int(ip.Length) != len(b)-40 || ip.FlowLabel != 0 ||
			!ip.SrcIP.Equal(tuple.Local.Addr().AsSlice()) || !ip.DstIP.Equal(tuple.Remote.Addr().AsSlice()) {
			return fmt.Errorf("IPv6: %+v", ip)
		}
	}
	tcp, ok := p.TransportLayer().(*layers.TCP)
	if !ok {
		return fmt.Errorf("no TCP")
	}
	var flags probe.Flags
	for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR, tcp.NS} {
		if set {
			flags |= 1 << i
		}
	}
	if uint16(tcp.SrcPort) != tuple.Local.Port() || uint16(tcp.DstPort) != tuple.Remote.Port() || tcp.Seq != uint32(s.Seq) ||
		tcp.Ack != uint32(s.Ack) || flags != s.Flags || tcp.Window != s.Window || tcp.Urgent != s.Urgent || !bytes.Equal(tcp.Payload, payload) {
		return fmt.Errorf("TCP: %+v", tcp)
	}
	var o probe.Options
	for _, opt := range tcp.Options {
		v := opt.OptionData
		switch opt.OptionType {
		case layers.TCPOptionKindMSS:
			o.Set, o.MSS = o.Set|probe.OptMSS, binary.BigEndian.Uint16(v)
		case layers.TCPOptionKindWindowScale:
			o.Set, o.WindowScale = o.Set|probe.OptWindowScale, v[0]
		case layers.TCPOptionKindSACKPermitted:
			o.Set |= probe.OptSACKPermitted
		case layers.TCPOptionKindTimestamps:
			o.Set, o.TSVal, o.TSEcr = o.Set|probe.OptTimestamps, binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])
		case 34:
			o.Set, o.CookieLen = o.Set|probe.OptFastOpen, uint8(len(v))
			copy(o.Cookie[:], v)
		case layers.TCPOptionKindNop, layers.TCPOptionKindEndList:
		default:
			return fmt.Errorf("option %v", opt)
		}
	}
	if o != s.Options {
		return fmt.Errorf("options %+v", o)
	}
	return nil
}

// verify lets gopacket judge every checksum in the packet.
func verify(p gopacket.Packet) error {
	for _, l := range p.Layers() {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				return err
			}
		}
	}
	err, bad := p.VerifyChecksums()
	if len(bad) > 0 {
		return fmt.Errorf("checksums: %+v", bad)
	}
	return err
}

// serialize lets gopacket encode; every length and checksum is its own.
func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buffer.Bytes())
}

// theirTCP is gopacket's layer for a segment, with the options in any order
// and an unknown one and SACK blocks among them where there is room.
func theirTCP(r *rand.Rand, tuple *probe.FourTuple, s *probe.Segment) *layers.TCP {
	f := func(bit probe.Flags) bool { return s.Flags.Has(bit) }
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(tuple.Local.Port()), DstPort: layers.TCPPort(tuple.Remote.Port()), Seq: uint32(s.Seq), Ack: uint32(s.Ack),
		FIN: f(probe.FIN), SYN: f(probe.SYN), RST: f(probe.RST), PSH: f(probe.PSH), ACK: f(probe.ACK), URG: f(probe.URG),
		ECE: f(probe.ECE), CWR: f(probe.CWR), NS: f(probe.AE), Window: s.Window, Urgent: s.Urgent,
	}
	room := 40
	add := func(kind layers.TCPOptionKind, v ...byte) bool {
		n := len(v) + 2
		if kind <= layers.TCPOptionKindNop {
			n = 1
		}
		if n > room {
			return false
		}
		room -= n
		tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: kind, OptionData: v})
		return true
	}
	o := &s.Options
	var u32 = binary.BigEndian.AppendUint32
	if o.Has(probe.OptMSS) {
		add(layers.TCPOptionKindMSS, byte(o.MSS>>8), byte(o.MSS))
	}
	if o.Has(probe.OptWindowScale) {
		add(layers.TCPOptionKindWindowScale, o.WindowScale)
	}
	if o.Has(probe.OptSACKPermitted) {
		add(layers.TCPOptionKindSACKPermitted)
	}
	if o.Has(probe.OptTimestamps) {
		add(layers.TCPOptionKindTimestamps, u32(u32(nil, o.TSVal), o.TSEcr)...)
	}
	if o.Has(probe.OptFastOpen) {
		add(34, o.Cookie[:o.CookieLen]...)
	}
	if r.IntN(2) == 0 && add(layers.TCPOptionKindSACK, make([]byte, 8*(1+r.IntN(3)))...) {
		o.Set |= probe.OptSACK
	}
	if r.IntN(2) == 0 && add(layers.TCPOptionKind(35+r.IntN(200)), make([]byte, r.IntN(12))...) {
		o.Set |= probe.OptUnknown
	}
	for r.IntN(2) == 0 {
		add(layers.TCPOptionKindNop)
	}
	r.Shuffle(len(tcp.Options), func(i, j int) {
		tcp.Options[i], tcp.Options[j] = tcp.Options[j], tcp.Options[i]
	})
	return tcp
}

// theirIP is gopacket's network layers for a segment: IPv4 options or IPv6
// extension headers by chance.
func theirIP(r *rand.Rand, tuple *probe.FourTuple, s *probe.Segment, tcp *layers.TCP) []gopacket.SerializableLayer {
	src, dst := net.IP(tuple.Local.Addr().AsSlice()), net.IP(tuple.Remote.Addr().AsSlice())
	if tuple.Local.Addr().Is4() {
		ip := &layers.IPv4{Version: 4, TTL: s.TTL, TOS: s.TOS, Protocol: layers.IPProtocolTCP, SrcIP: src, DstIP: dst, Id: uint16(r.Uint32())}
		if r.IntN(2) == 0 { // router alert
			ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{ip}
	}
	ip := &layers.IPv6{Version: 6, HopLimit: s.TTL, TrafficClass: s.TOS, FlowLabel: r.Uint32() & 0xfffff, SrcIP: src, DstIP: dst}
	_ = tcp.SetNetworkLayerForChecksum(ip)
	ls := []gopacket.SerializableLayer{ip}
	next := &ip.NextHeader // of the last header so far
	if r.IntN(2) == 0 {
		h := &layers.IPv6HopByHop{Options: []*layers.IPv6HopByHopOption{{OptionType: 0x1e, OptionData: make([]byte, 4)}}}
		*next, ls, next = layers.IPProtocolIPv6HopByHop, append(ls, h), &h.NextHeader
	}
	if r.IntN(2) == 0 {
		h := &layers.IPv6Destination{Options: []*layers.IPv6DestinationOption{{OptionType: 0x1e, OptionData: make([]byte, 4+8*r.IntN(5))}}}
		*next, ls, next = layers.IPProtocolIPv6Destination, append(ls, h), &h.NextHeader
	}
	if r.IntN(2) == 0 {
		h := &layers.IPv6Routing{RoutingType: 0, Reserved: make([]byte, 4), SourceRoutingIPs: []net.IP{net.IP(hop6.AsSlice())}}
		*next, ls, next = layers.IPProtocolIPv6Routing, append(ls, h), &h.NextHeader
	}
	if r.IntN(2) == 0 {
		h := &layers.IPv6Fragment{Identification: 7}
		*next, ls, next = layers.IPProtocolIPv6Fragment, append(ls, h), &h.NextHeader
	}
	*next = layers.IPProtocolTCP
	return ls
}

func TestWeDecodeGopackets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		tuple, s, payload := random(r)
		s.Options.Set &^= probe.OptFastOpen
		s.Options.CookieLen, s.Options.Cookie = 0, [16]byte{}
		tcp := theirTCP(r, &tuple, &s)
		b := serialize(t, append(theirIP(r, &tuple, &s, tcp), tcp, gopacket.Payload(payload))...)

		p := parse(t, b)
		if p.Kind != wire.KindTCP || p.Checksum != wire.ChecksumValid || p.Protocol != 6 ||
			netip.AddrPortFrom(p.Src, p.SrcPort) != tuple.Local || netip.AddrPortFrom(p.Dst, p.DstPort) != tuple.Remote ||
			!bytes.Equal(p.Payload, payload) {
			t.Fatalf("%+v\n%x", p, b)
		}
		if got := unraw(p.Segment); got != s {
			t.Fatalf("segment\n got %+v\nwant %+v\n%x", got, s, b)
		}

		// The same packet in an error's quote, whole and cut behind SEG.SEQ.
		for _, quote := range [][]byte{b, b[:len(b)-len(payload)-int(tcp.DataOffset)*4+8]} {
			quoted(t, &tuple, &s, quote)
		}
	}
}

func quoted(t *testing.T, tuple *probe.FourTuple, s *probe.Segment, quote []byte) {
	t.Helper()
	var b []byte
	v6 := tuple.Local.Addr().Is6()
	if v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 61, NextHeader: layers.IPProtocolICMPv6, SrcIP: hop6.AsSlice(), DstIP: us6.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 3)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		b = serialize(t, ip, icmp, gopacket.Payload(append(make([]byte, 4), quote...)))
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 61, Protocol: layers.IPProtocolICMPv4, SrcIP: hop4.AsSlice(), DstIP: us4.AsSlice()}
		b = serialize(t, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, gopacket.Payload(quote))
	}
	p := parse(t, b)
	want := probe.ICMP{V6: v6, Type: 3, Code: 1, Seq: s.Seq, From: hop4}
	if v6 {
		want.Type, want.Code, want.From = 1, 3, hop6
	}
	if p.Kind != wire.KindICMPError || p.ICMP != want || p.Checksum != wire.ChecksumValid || p.Segment.TTL != 61 ||
		netip.AddrPortFrom(p.Quote.Src, p.Quote.SrcPort) != tuple.Local || netip.AddrPortFrom(p.Quote.Dst, p.Quote.DstPort) != tuple.Remote {
		t.Fatalf("quote %+v\n%x", p, b)
	}
}

func TestGopacketDecodesOurICMP(t *testing.T) {
	s := syn()
	about4, about6 := wire.AppendPacket(nil, &tuple4, &s, nil), wire.AppendPacket(nil, &tuple6, &s, nil)
	for _, c := range []struct {
		b     []byte
		first gopacket.LayerType
		about []byte
	}{
		{icmp4(3, 4, 1400, about4), layers.LayerTypeIPv4, about4},
		{icmp6(2, 0, 1400, about6), layers.LayerTypeIPv6, about6},
	} {
		p := gopacket.NewPacket(c.b, c.first, gopacket.Default)
		if err := verify(p); err != nil {
			t.Error(err)
		}
		if c.first == layers.LayerTypeIPv4 {
			icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			if !ok || icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != 1400 || !bytes.Equal(icmp.Payload, c.about) {
				t.Errorf("%+v", icmp)
			}
			continue
		}
		icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if !ok || icmp.TypeCode != layers.CreateICMPv6TypeCode(2, 0) || !bytes.HasSuffix(icmp.Payload, c.about) {
			t.Errorf("%+v", icmp)
		}
	}
}
