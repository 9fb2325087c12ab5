package wire

import (
	"encoding/binary"
	"net/netip"
)

// network is what the upper layers need of an IP header and its extension
// headers.
type network struct {
	src, dst netip.Addr
	protocol uint8
	ttl, tos uint8
	later    bool   // a fragment other than the first
	first    bool   // the first of several
	partial  bool   // the upper layer's message or its final destination is not all here: no checksum can be verified
	guessed  bool   // the header gives no length: length is what was captured
	payload  []byte // the upper layer's octets that are here
	length   int    // the upper layer's octets that should be
}

// parse reads the IP headers of a packet as captured.
func (n *network) parse(b []byte) error { return n.read(b, false) }

// parseQuoted reads the IP headers of a quoted packet: it may be cut anywhere,
// and its length is not believed (some stacks quote it changed or in host order).
func (n *network) parseQuoted(b []byte) error { return n.read(b, true) }

func (n *network) read(b []byte, quoted bool) error {
	if len(b) == 0 {
		return ErrShort
	}
	switch b[0] >> 4 {
	case 4:
		return n.parseIPv4(b, quoted)
	case 6:
		return n.parseIPv6(b, quoted)
	}
	return ErrVersion
}

// cut returns the packet's octets that are here out of the total that its
// header announces, and notes what that means for the upper layer.
func (n *network) cut(b []byte, total int) []byte {
	if len(b) > total {
		return b[:total]
	}
	if len(b) < total {
		n.partial = true
	}
	return b
}

// HeaderIntact reports whether an IPv4 header's checksum is right: a host drops a packet that arrives
// otherwise (net/ipv4/ip_input.c, ip_rcv_core). IPv6 has none.
func HeaderIntact(b []byte) bool {
	if len(b) < ipv4HeaderLen || b[0]>>4 != 4 {
		return true
	}
	header := int(b[0]&0x0f) * 4
	return header < ipv4HeaderLen || header > len(b) || fold(sum(b[:header], 0)) == 0xffff
}

// Truncated reports whether a packet is shorter than its header says, which a host drops, too (the
// same; net/ipv6/ip6_input.c, ip6_rcv_core). A length of 0 is one that the header has no room for,
// and says of a packet that it has room for that nothing is in it.
func Truncated(b []byte) bool {
	total := 0
	switch {
	case len(b) >= ipv4HeaderLen && b[0]>>4 == 4:
		total = int(binary.BigEndian.Uint16(b[ipv4Length:]))
	case len(b) >= ipv6HeaderLen && b[0]>>4 == 6:
		if total = int(binary.BigEndian.Uint16(b[ipv6Length:])); total > 0 {
			total += ipv6HeaderLen
		}
	default:
		return false
	}
	return total > len(b) || total == 0 && len(b) <= 0xffff
}
