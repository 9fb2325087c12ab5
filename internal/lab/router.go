package lab

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe/wire"
	"golang.org/x/sys/unix"
)

// ICMP and ICMPv6 errors that a router sends (RFC 792, RFC 4443).
const (
	icmpUnreachable   = 3
	icmpFragNeeded    = 4 // code, RFC 1191
	icmpTimeExceeded  = 11
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
)

// A router answers for a direction's MTU and Hops: from an address next to the
// sender's.
type router struct{ addr4, addr6 netip.Addr }

// tooBig appends the answer to a packet above the MTU.
func (r *router) tooBig(dst, packet []byte, mtu int) []byte {
	return r.answer(dst, packet, icmpUnreachable, icmpFragNeeded, icmp6TooBig, uint32(mtu))
}

// expired appends the answer to a packet whose TTL is used up.
func (r *router) expired(dst, packet []byte) []byte {
	return r.answer(dst, packet, icmpTimeExceeded, 0, icmp6TimeExceeded, 0)
}

// answer appends a whole packet with the error, or nothing where none is
// allowed: RFC 1122 §3.2.2 and RFC 4443 §2.4(e) forbid one about an ICMP error
// or a fragment that is not the first.
func (r *router) answer(dst, packet []byte, type4, code4, type6 uint8, rest uint32) []byte {
	if isICMPError(packet) {
		return dst
	}
	if packet[0]>>4 == 6 {
		to := netip.AddrFrom16([16]byte(packet[8:24]))
		message := wire.AppendICMPError(nil, &wire.ICMPError{Src: r.addr6, Dst: to, Type: type6, Rest: rest}, packet)
		return wire.AppendIPv6(dst, &wire.IPv6Header{Src: r.addr6, Dst: to, NextHeader: unix.IPPROTO_ICMPV6, HopLimit: 64}, message)
	}
	if binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
		return dst
	}
	to := netip.AddrFrom4([4]byte(packet[12:16]))
	message := wire.AppendICMPError(nil, &wire.ICMPError{Src: r.addr4, Dst: to, Type: type4, Code: code4, Rest: rest}, packet)
	return wire.AppendIPv4(dst, &wire.IPv4Header{Src: r.addr4, Dst: to, Protocol: unix.IPPROTO_ICMP, TTL: 64}, message)
}

// isICMPError tells an ICMP error from everything else, echo included.
func isICMPError(b []byte) bool {
	if b[0]>>4 == 6 {
		return b[6] == unix.IPPROTO_ICMPV6 && len(b) > 40 && b[40] < 128
	}
	if n := headerLen(b); b[9] == unix.IPPROTO_ICMP && len(b) > n {
		switch b[n] {
		case 3, 4, 5, 11, 12:
			return true
		}
	}
	return false
}

// mayFragment tells whether a router may cut the packet: IPv4 without DF.
// Packets with IP options, of which some must not be copied, are not cut here.
func mayFragment(b []byte) bool {
	return b[0]>>4 == 4 && binary.BigEndian.Uint16(b[6:])&0x4000 == 0 && headerLen(b) == 20
}

// fragments calls send with each fragment of an IPv4 packet (RFC 791 §3.2).
// The fragment is valid until send returns.
func fragments(b []byte, mtu int, send func([]byte)) {
	word := binary.BigEndian.Uint16(b[6:])
	offset, more := int(word&0x1fff), word&0x2000 != 0
	step := (mtu - 20) &^ 7
	for payload := b[20:]; len(payload) > 0; {
		n := min(step, len(payload))
		last := n == len(payload)
		send(wire.AppendIPv4(nil, &wire.IPv4Header{
			Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])),
			Protocol: b[9], TTL: b[8], TOS: b[1], ID: binary.BigEndian.Uint16(b[4:]),
			MoreFragments: more || !last, FragmentOffset: uint16(offset),
		}, payload[:n]))
		offset, payload = offset+n/8, payload[n:]
	}
}

// travel takes hops off the packet's TTL, in place; false if it does not last.
func travel(b []byte, hops int) bool {
	if hops == 0 {
		return true
	}
	ttl := &b[7]
	if b[0]>>4 == 4 {
		ttl = &b[8]
	}
	if int(*ttl) <= hops {
		return false
	}
	if b[0]>>4 == 4 {
		// RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m'), m the word of TTL and protocol.
		before := binary.BigEndian.Uint16(b[8:])
		*ttl -= uint8(hops)
		sum := uint32(^binary.BigEndian.Uint16(b[10:])) + uint32(^before) + uint32(binary.BigEndian.Uint16(b[8:]))
		sum = sum&0xffff + sum>>16
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
		return true
	}
	*ttl -= uint8(hops)
	return true
}
