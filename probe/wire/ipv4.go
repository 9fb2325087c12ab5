package wire

import (
	"encoding/binary"
	"net/netip"
)

// The IPv4 header, RFC 791 §3.1: offsets and masks.
const (
	ipv4HeaderLen = 20

	ipv4TOS      = 1
	ipv4Length   = 2
	ipv4ID       = 4
	ipv4Fragment = 6
	ipv4TTL      = 8
	ipv4Protocol = 9
	ipv4Checksum = 10
	ipv4Src      = 12
	ipv4Dst      = 16

	ipv4DontFragment   = 0x4000
	ipv4MoreFragments  = 0x2000
	ipv4FragmentOffset = 0x1fff
)

func (n *network) parseIPv4(b []byte, quoted bool) error {
	if len(b) < ipv4HeaderLen {
		return ErrShort
	}
	header := int(b[0]&0x0f) * 4
	if header < ipv4HeaderLen {
		return ErrHeaderLength
	}
	total := int(binary.BigEndian.Uint16(b[ipv4Length:]))
	if quoted || total == 0 {
		total, n.guessed = max(len(b), header), true
	}
	if total < header {
		return ErrHeaderLength
	}
	if len(b) < header {
		return ErrShort
	}
	fragment := binary.BigEndian.Uint16(b[ipv4Fragment:])
	n.later = fragment&ipv4FragmentOffset != 0
	n.partial = fragment&(ipv4FragmentOffset|ipv4MoreFragments) != 0
	n.first = n.partial && !n.later
	n.tos = b[ipv4TOS]
	n.ttl = b[ipv4TTL]
	n.protocol = b[ipv4Protocol]
	n.src = netip.AddrFrom4([4]byte(b[ipv4Src:]))
	n.dst = netip.AddrFrom4([4]byte(b[ipv4Dst:]))
	n.payload = n.cut(b, total)[header:]
	n.length = total - header
	return nil
}

// IPv4Header is an IPv4 header to encode.
type IPv4Header struct {
	Src, Dst       netip.Addr // IPv4 or IPv4-mapped
	Protocol       uint8
	TTL            uint8
	TOS            uint8
	ID             uint16
	DontFragment   bool
	MoreFragments  bool
	FragmentOffset uint16 // in units of 8 octets, 13 bits
	Options        []byte // at most 40 octets; padded with zeros to a multiple of 4
}

// AppendIPv4 appends the header, with its checksum, and the payload. A packet
// longer than 65,535 octets gets the length 0, as in Linux. It panics if an
// address is not IPv4. The payload must not lie in dst's spare capacity.
func AppendIPv4(dst []byte, h *IPv4Header, payload []byte) []byte {
	return append(appendIPv4Header(dst, h, len(payload)), payload...)
}

// appendIPv4Header appends the header of a packet with length octets after it.
func appendIPv4Header(dst []byte, h *IPv4Header, length int) []byte {
	options := h.Options[:min(len(h.Options), 40)]
	header := ipv4HeaderLen + (len(options)+3)&^3
	total := header + length
	if total > 0xffff {
		total = 0
	}
	fragment := h.FragmentOffset & ipv4FragmentOffset
	if h.DontFragment {
		fragment |= ipv4DontFragment
	}
	if h.MoreFragments {
		fragment |= ipv4MoreFragments
	}
	src, to := h.Src.Unmap().As4(), h.Dst.Unmap().As4()

	start := len(dst)
	dst = append(dst, 0x40|uint8(header/4), h.TOS)
	dst = binary.BigEndian.AppendUint16(dst, uint16(total))
	dst = binary.BigEndian.AppendUint16(dst, h.ID)
	dst = binary.BigEndian.AppendUint16(dst, fragment)
	dst = append(dst, h.TTL, h.Protocol, 0, 0)
	dst = append(dst, src[:]...)
	dst = append(dst, to[:]...)
	dst = append(dst, options...)
	for len(dst) < start+header {
		dst = append(dst, 0)
	}
	binary.BigEndian.PutUint16(dst[start+ipv4Checksum:], ^fold(sum(dst[start:], 0)))
	return dst
}
