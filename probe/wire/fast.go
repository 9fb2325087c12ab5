package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe"
)

// parsePlain reads what nearly every packet is: an IPv4 header without options or an
// IPv6 header without extensions, not a fragment, all of it captured, and a TCP segment
// in it. It reports whether the packet was that; p is untouched if not. unverified
// leaves the checksum alone.
func (p *Packet) parsePlain(b []byte, unverified bool) bool {
	if len(b) < ipv4HeaderLen+tcpHeaderLen {
		return false
	}
	var ip, total int
	switch {
	case b[0] == 0x45 && b[ipv4Protocol] == protocolTCP &&
		binary.BigEndian.Uint16(b[ipv4Fragment:])&(ipv4FragmentOffset|ipv4MoreFragments) == 0:
		ip, total = ipv4HeaderLen, int(binary.BigEndian.Uint16(b[ipv4Length:]))
	case b[0]>>4 == 6 && len(b) >= ipv6HeaderLen+tcpHeaderLen && b[ipv6NextHeader] == protocolTCP:
		ip, total = ipv6HeaderLen, ipv6HeaderLen+int(binary.BigEndian.Uint16(b[ipv6Length:]))
	default:
		return false
	}
	if total > len(b) || total < ip+tcpHeaderLen {
		return false
	}
	t := b[ip:total]
	header := int(t[tcpFlags]>>4) * 4
	if header < tcpHeaderLen || header > len(t) {
		return false
	}
	var src, dst netip.Addr
	var ttl, tos uint8
	if ip == ipv4HeaderLen {
		src, dst = netip.AddrFrom4([4]byte(b[ipv4Src:])), netip.AddrFrom4([4]byte(b[ipv4Dst:]))
		ttl, tos = b[ipv4TTL], b[ipv4TOS]
	} else {
		src, dst = netip.AddrFrom16([16]byte(b[ipv6Src:])), netip.AddrFrom16([16]byte(b[ipv6Dst:]))
		if src.Is4In6() || dst.Is4In6() {
			return false
		}
		ttl, tos = b[ipv6HopLimit], b[0]<<4|b[1]>>4
	}
	*p = Packet{Kind: KindTCP, Protocol: protocolTCP, Src: src, Dst: dst}
	p.readSegment(t, header, len(t))
	p.Segment.TTL, p.Segment.TOS = ttl, tos
	if !unverified {
		s := pseudo(src, dst, protocolTCP, len(t))
		switch {
		case fold(sum(t, s)) == 0xffff:
			p.Checksum = ChecksumValid
		case binary.BigEndian.Uint16(t[tcpChecksum:]) == fold(s):
			p.Checksum = ChecksumPartial
		default:
			p.Checksum = ChecksumBad
		}
	}
	return true
}

// readSegment reads a TCP segment of length octets whose header is all there.
func (p *Packet) readSegment(b []byte, header, length int) {
	p.SrcPort = binary.BigEndian.Uint16(b[tcpSrcPort:])
	p.DstPort = binary.BigEndian.Uint16(b[tcpDstPort:])
	p.Payload = b[header:]

	s := &p.Segment
	s.Seq = probe.Seq(binary.BigEndian.Uint32(b[tcpSeq:]))
	s.Ack = probe.Seq(binary.BigEndian.Uint32(b[tcpAck:]))
	s.Flags = probe.Flags(binary.BigEndian.Uint16(b[tcpFlags:]) & tcpFlagBits)
	s.Window = binary.BigEndian.Uint16(b[tcpWindow:])
	s.Urgent = binary.BigEndian.Uint16(b[tcpUrgent:])
	s.Len = uint32(length - header)
	if header > tcpHeaderLen {
		ParseOptions(b[tcpHeaderLen:header], &s.Options)
	}
}
