package wire

import (
	"encoding/binary"
	"net/netip"
)

// The IPv6 header, RFC 8200 §3: offsets.
const (
	ipv6HeaderLen = 40

	ipv6Length     = 4
	ipv6NextHeader = 6
	ipv6HopLimit   = 7
	ipv6Src        = 8
	ipv6Dst        = 24
)

// The extension headers that are walked, RFC 8200 §4 and RFC 4302.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAH          = 51
	extDestination = 60
)

func (n *network) parseIPv6(b []byte, quoted bool) error {
	if len(b) < ipv6HeaderLen {
		return ErrShort
	}
	total := ipv6HeaderLen + int(binary.BigEndian.Uint16(b[ipv6Length:]))
	if quoted || total == ipv6HeaderLen {
		total, n.guessed = len(b), true
	}
	n.tos = b[0]<<4 | b[1]>>4
	n.ttl = b[ipv6HopLimit]
	n.src = netip.AddrFrom16([16]byte(b[ipv6Src:]))
	n.dst = netip.AddrFrom16([16]byte(b[ipv6Dst:]))
	if n.src.Is4In6() || n.dst.Is4In6() {
		return ErrAddress
	}
	n.payload = n.cut(b, total)[ipv6HeaderLen:]
	n.length = total - ipv6HeaderLen
	return n.walk(b[ipv6NextHeader])
}

// walk goes through the extension headers to the upper layer. It stops at a
// fragment that is not the first: what follows there is not a header.
func (n *network) walk(next uint8) error {
	for {
		var header int
		switch next {
		case extHopByHop, extDestination, extRouting, extFragment, extAH:
			if n.length < 8 {
				return ErrHeaderLength
			}
			if len(n.payload) < 8 {
				return ErrShort
			}
		default:
			n.protocol = next
			return nil
		}
		b := n.payload
		switch next {
		case extFragment: // RFC 8200 §4.5: fixed length; an atomic fragment is whole (RFC 6946)
			header = 8
			offset := binary.BigEndian.Uint16(b[2:])
			if offset&^7 != 0 {
				n.protocol, n.later, n.partial = b[0], true, true
				return nil
			}
			if offset&1 != 0 {
				n.partial, n.first = true, true
			}
		case extAH: // RFC 4302 §2.2: in 4-octet units, minus 2
			header = (int(b[1]) + 2) * 4
		case extRouting:
			header = (int(b[1]) + 1) * 8
			// RFC 8200 §8.1: the pseudo-header has the final destination,
			// which is not in the IPv6 header until no segments are left.
			if b[3] != 0 {
				n.partial = true
			}
		default:
			header = (int(b[1]) + 1) * 8
		}
		if header > n.length {
			return ErrHeaderLength
		}
		if header > len(b) {
			return ErrShort
		}
		next = b[0]
		n.payload = b[header:]
		n.length -= header
	}
}

// IPv6Header is an IPv6 header to encode. Extension headers, if any, are the
// beginning of the payload.
type IPv6Header struct {
	Src, Dst     netip.Addr
	NextHeader   uint8
	HopLimit     uint8
	TrafficClass uint8
	FlowLabel    uint32 // 20 bits
}

// AppendIPv6 appends the header and the payload. A payload longer than 65,535
// octets gets the length 0, as in Linux. The payload must not lie in dst's
// spare capacity.
func AppendIPv6(dst []byte, h *IPv6Header, payload []byte) []byte {
	return append(appendIPv6Header(dst, h, len(payload)), payload...)
}

// appendIPv6Header appends the header of a packet with length octets after it.
func appendIPv6Header(dst []byte, h *IPv6Header, length int) []byte {
	if length > 0xffff {
		length = 0
	}
	src, to := h.Src.As16(), h.Dst.As16()
	dst = binary.BigEndian.AppendUint32(dst, 6<<28|uint32(h.TrafficClass)<<20|h.FlowLabel&0xfffff)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(dst, h.NextHeader, h.HopLimit)
	dst = append(dst, src[:]...)
	return append(dst, to[:]...)
}
