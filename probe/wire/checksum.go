package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Checksum says what verifying a packet's TCP or ICMP checksum gave.
type Checksum uint8

// The results.
const (
	ChecksumUnchecked Checksum = iota // it can't be verified: not all of what it covers was captured, or a fragment
	ChecksumValid
	ChecksumPartial // TCP: the pseudo-header's sum alone, left for hardware to complete (Linux's CHECKSUM_PARTIAL)
	ChecksumBad
)

// String names the result.
func (c Checksum) String() string {
	switch c {
	case ChecksumValid:
		return "valid"
	case ChecksumPartial:
		return "partial"
	case ChecksumBad:
		return "bad"
	}
	return "unchecked"
}

// sum adds b to a running one's complement sum, RFC 1071. b starts on an even
// octet of what is summed, and only the last b may have an odd length. The sum
// is kept in 64 bits: 2⁶⁴ ≡ 1 modulo 2¹⁶-1, so carries come round at the end.
func sum(b []byte, s uint64) uint64 {
	var carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0]) << 8
	}
	s, carry = bits.Add64(s, tail, carry)
	return s + carry
}

// fold reduces a running sum to 16 bits.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// pseudo is the sum of the pseudo-header: RFC 9293 §3.1 for IPv4, RFC 8200
// §8.1 for IPv6. length is the upper layer's, in octets.
func pseudo(src, dst netip.Addr, protocol uint8, length int) uint64 {
	s := uint64(protocol) + uint64(length)
	if src.Is4() {
		a, b := src.As4(), dst.As4()
		return sum(b[:], sum(a[:], s))
	}
	a, b := src.As16(), dst.As16()
	return sum(b[:], sum(a[:], s))
}

// verify judges the checksum of the upper layer's message, whose pseudo-header
// sums to s.
func (n *network) verify(s uint64) Checksum {
	switch {
	case n.partial:
		return ChecksumUnchecked
	case fold(sum(n.payload, s)) == 0xffff:
		return ChecksumValid
	case n.guessed: // the capture may have been cut, and nothing says so
		return ChecksumUnchecked
	}
	return ChecksumBad
}
