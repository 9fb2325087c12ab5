package wire

import (
	"encoding/binary"

	"github.com/probed/probed/probe"
)

// The TCP header, RFC 9293 §3.1: offsets.
const (
	tcpHeaderLen = 20

	tcpSrcPort  = 0
	tcpDstPort  = 2
	tcpSeq      = 4
	tcpAck      = 8
	tcpFlags    = 12 // data offset (4 bits), flags (12 bits)
	tcpWindow   = 14
	tcpChecksum = 16
	tcpUrgent   = 18

	tcpFlagBits = 0x0fff
)

func (p *Packet) parseTCP(n *network) error {
	b := n.payload
	if len(b) >= tcpSeq {
		p.Kind = KindTCP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b[tcpSrcPort:]), binary.BigEndian.Uint16(b[tcpDstPort:])
	}
	if n.length < tcpHeaderLen {
		return ErrHeaderLength
	}
	if len(b) < tcpHeaderLen {
		return ErrShort
	}
	header := int(b[tcpFlags]>>4) * 4
	if header < tcpHeaderLen || header > n.length {
		return ErrHeaderLength
	}
	if header > len(b) {
		return ErrShort
	}
	p.readSegment(b, header, n.length)

	pseudoSum := pseudo(n.src, n.dst, protocolTCP, n.length)
	p.Checksum = n.verify(pseudoSum)
	offloaded := binary.BigEndian.Uint16(b[tcpChecksum:]) == fold(pseudoSum)
	if offloaded && !n.partial && p.Checksum != ChecksumValid {
		p.Checksum = ChecksumPartial
	}
	return nil
}

// AppendTCP appends a segment from t.Local to t.Remote: TCP header, options
// (see AppendOptions) and payload, with the whole checksum. s.Len is not read:
// the payload counts. TTL and TOS belong to the IP header. It panics if the two
// ends are not addresses of one family. The payload must not lie in dst's spare
// capacity.
func AppendTCP(dst []byte, t *probe.FourTuple, s *probe.Segment, payload []byte) []byte {
	start := len(dst)
	dst = appendHeader(dst, t.Local.Port(), t.Remote.Port(), s)
	dst = append(dst, payload...)
	segment := dst[start:]
	check := sum(segment, pseudo(t.Local.Addr().Unmap(), t.Remote.Addr().Unmap(), protocolTCP, len(segment)))
	binary.BigEndian.PutUint16(segment[tcpChecksum:], ^fold(check))
	return dst
}

// appendHeader appends a TCP header with its options, and 0 for the checksum.
func appendHeader(dst []byte, src, to uint16, s *probe.Segment) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, src)
	dst = binary.BigEndian.AppendUint16(dst, to)
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Seq))
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Ack))
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, s.Window)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, s.Urgent)
	dst = AppendOptions(dst, &s.Options)
	words := uint16(len(dst)-start) / 4
	binary.BigEndian.PutUint16(dst[start+tcpFlags:], words<<12|uint16(s.Flags)&tcpFlagBits)
	return dst
}

// AppendPacket appends the whole IP packet of a segment: AppendTCP behind an
// IPv4 header (don't fragment, ID 0: RFC 6864 §4.1) or an IPv6 header, with the
// segment's TTL and TOS as they are.
func AppendPacket(dst []byte, t *probe.FourTuple, s *probe.Segment, payload []byte) []byte {
	start := len(dst)
	src, to := t.Local.Addr().Unmap(), t.Remote.Addr().Unmap()
	// The header is written when the length is known, into room left for it.
	var room [ipv6HeaderLen]byte
	if src.Is4() {
		dst = AppendTCP(append(dst, room[:ipv4HeaderLen]...), t, s, payload)
		h := IPv4Header{Src: src, Dst: to, Protocol: protocolTCP, TTL: s.TTL, TOS: s.TOS, DontFragment: true}
		appendIPv4Header(dst[:start], &h, len(dst)-start-ipv4HeaderLen)
		return dst
	}
	dst = AppendTCP(append(dst, room[:]...), t, s, payload)
	h := IPv6Header{Src: src, Dst: to, NextHeader: protocolTCP, HopLimit: s.TTL, TrafficClass: s.TOS}
	appendIPv6Header(dst[:start], &h, len(dst)-start-ipv6HeaderLen)
	return dst
}
