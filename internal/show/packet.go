package show

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

const (
	protocolICMP   = 1
	protocolICMPv6 = 58

	inventedTTL = 64

	quotedTCP = 8 // what an ICMP error quotes at least: ports and SEG.SEQ (RFC 792)
)

// appendPacket appends the IP packet of a step as far as it is known, and returns
// how long it was on the wire.
func (c *Conversation) appendPacket(b []byte, i int) (packet []byte, length int) {
	s := &c.Steps[i]
	if s.Way == Error {
		b = c.appendICMPPacket(b, i)
		return b, len(b)
	}
	tuple := c.Tuple
	if s.Way == In {
		tuple.Local, tuple.Remote = tuple.Remote, tuple.Local
	}
	return appendSegmentPacket(b, &tuple, &s.Segment)
}

// appendSegmentPacket appends a segment's packet less its payload.
func appendSegmentPacket(b []byte, tuple *probe.FourTuple, s *probe.Segment) (packet []byte, length int) {
	b = wire.AppendPacket(b, tuple, s, nil)
	length = len(b) + int(s.Len)
	if s.Len > 0 {
		withoutPayload(b, length)
	}
	return b, length
}

// withoutPayload makes b the beginning of a packet of the given length whose
// payload is missing. Its TCP checksum cannot be known.
func withoutPayload(b []byte, length int) {
	tcp := 40
	switch b[0] >> 4 {
	case 4:
		tcp = 20
		total := uint16(length)
		if length > 0xffff {
			total = 0 // as Linux shows what hardware has yet to cut
		}
		binary.BigEndian.PutUint16(b[2:], total)
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], headerSum(b[:20]))
	default:
		payload := uint16(length - 40)
		if length-40 > 0xffff {
			payload = 0
		}
		binary.BigEndian.PutUint16(b[4:], payload)
	}
	binary.BigEndian.PutUint16(b[tcp+16:], 0)
}

// headerSum is the checksum of an IPv4 header (RFC 791 §3.1).
func headerSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// appendICMPPacket appends an ICMP error with its quote: the IP header of our
// segment, and of TCP's what every quote holds.
func (c *Conversation) appendICMPPacket(b []byte, i int) []byte {
	e, to := &c.Steps[i].ICMP, c.Tuple.Local.Addr().Unmap()
	quote, _ := appendSegmentPacket(nil, &c.Tuple, c.quoted(i))
	from := e.From.Unmap().WithZone("")
	if to.Is4() {
		if !from.Is4() {
			from = netip.IPv4Unspecified()
		}
		message := wire.AppendICMPError(nil, &wire.ICMPError{Src: from, Dst: to, Type: e.Type, Code: e.Code}, quote[:20+quotedTCP])
		return wire.AppendIPv4(b, &wire.IPv4Header{Src: from, Dst: to, Protocol: protocolICMP, TTL: inventedTTL}, message)
	}
	if !from.Is6() {
		from = netip.IPv6Unspecified()
	}
	message := wire.AppendICMPError(nil, &wire.ICMPError{Src: from, Dst: to, Type: e.Type, Code: e.Code}, quote[:40+quotedTCP])
	return wire.AppendIPv6(b, &wire.IPv6Header{Src: from, Dst: to, NextHeader: protocolICMPv6, HopLimit: inventedTTL}, message)
}

// quoted is our segment that the error at step i quotes: the last one before it
// with that sequence number, else what is known of it.
func (c *Conversation) quoted(i int) *probe.Segment {
	seq := c.Steps[i].ICMP.Seq
	for j := i - 1; j >= 0; j-- {
		if s := &c.Steps[j]; s.Way == Out && s.Segment.Seq == seq {
			return &s.Segment
		}
	}
	return &probe.Segment{Seq: seq, TTL: inventedTTL}
}
