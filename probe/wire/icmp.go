package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe"
)

// The ICMP and ICMPv6 error messages: type, code, checksum, a word that
// depends on the type, and the packet that the error is about (RFC 792, RFC
// 4443 §2.1).
const (
	icmpHeaderLen = 8

	icmpChecksum = 2

	icmpUnreachable      = 3
	icmpSourceQuench     = 4
	icmpTimeExceeded     = 11
	icmpParameterProblem = 12

	icmpv6Unreachable      = 1
	icmpv6PacketTooBig     = 2
	icmpv6TimeExceeded     = 3
	icmpv6ParameterProblem = 4

	// quoteLen is the least of a TCP header that a quote must hold: ports and
	// sequence number (RFC 792, "64 bits of original data datagram").
	quoteLen = 8
)

// isError reports whether an ICMP type is an error about a packet on its way.
// A redirect is not: the packet went on.
func isError(v6 bool, typ uint8) bool {
	if v6 {
		return typ >= icmpv6Unreachable && typ <= icmpv6ParameterProblem
	}
	switch typ {
	case icmpUnreachable, icmpSourceQuench, icmpTimeExceeded, icmpParameterProblem:
		return true
	}
	return false
}

// parseICMP reads an ICMP message. Only an error that quotes a TCP segment is
// of interest. The quote is read from its beginning as far as SEG.SEQ, so the
// extensions that may follow it (RFC 4884) don't matter.
func (p *Packet) parseICMP(n *network) error {
	b, v6 := n.payload, n.src.Is6()
	if n.length < icmpHeaderLen {
		return ErrHeaderLength
	}
	if len(b) < icmpHeaderLen {
		return ErrShort
	}
	if v6 {
		p.Checksum = n.verify(pseudo(n.src, n.dst, protocolICMPv6, n.length))
	} else {
		p.Checksum = n.verify(0)
	}
	if !isError(v6, b[0]) {
		return nil
	}
	var q network
	if err := q.parseQuoted(b[icmpHeaderLen:]); err != nil || q.src.Is6() != v6 {
		return ErrQuote
	}
	if q.protocol != protocolTCP || q.later {
		return nil
	}
	if len(q.payload) < tcpSeq {
		return ErrQuote
	}
	p.Kind = KindICMPError
	p.ICMP = probe.ICMP{V6: v6, Type: b[0], Code: b[1], From: n.src}
	p.Quote.Src, p.Quote.Dst = q.src, q.dst
	p.Quote.SrcPort = binary.BigEndian.Uint16(q.payload[tcpSrcPort:])
	p.Quote.DstPort = binary.BigEndian.Uint16(q.payload[tcpDstPort:])
	if len(q.payload) < quoteLen {
		return ErrQuote
	}
	p.ICMP.Seq = probe.Seq(binary.BigEndian.Uint32(q.payload[tcpSeq:]))
	return nil
}

// ICMPError is an ICMP or ICMPv6 error to encode: ICMPv6 if Src is an IPv6
// address.
type ICMPError struct {
	Src, Dst   netip.Addr // of the packet that carries the error
	Type, Code uint8
	Rest       uint32 // octets 4 to 7: next-hop MTU, pointer; else 0
}

// AppendICMPError appends the ICMP message, with its checksum, about the given
// packet (IP header first). It quotes as much of it as the error's packet may
// hold: 576 octets for IPv4 (RFC 1812 §4.3.2.3), 1280 for IPv6 (RFC 4443
// §2.4(c)). The packet must not lie in dst's spare capacity.
func AppendICMPError(dst []byte, e *ICMPError, packet []byte) []byte {
	src, to := e.Src.Unmap(), e.Dst.Unmap()
	quote, s := 576-ipv4HeaderLen-icmpHeaderLen, uint64(0)
	if src.Is6() {
		quote = 1280 - ipv6HeaderLen - icmpHeaderLen
	}
	packet = packet[:min(len(packet), quote)]
	if src.Is6() {
		s = pseudo(src, to, protocolICMPv6, icmpHeaderLen+len(packet))
	}
	start := len(dst)
	dst = append(dst, e.Type, e.Code, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, e.Rest)
	dst = append(dst, packet...)
	binary.BigEndian.PutUint16(dst[start+icmpChecksum:], ^fold(sum(dst[start:], s)))
	return dst
}
