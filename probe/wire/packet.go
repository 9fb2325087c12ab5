package wire

import (
	"errors"
	"net/netip"

	"github.com/probed/probed/probe"
)

// The errors of Parse. They are returned bare, so == finds them.
var (
	// ErrShort: the captured octets end before the headers do.
	ErrShort = errors.New("wire: packet ends inside a header")
	// ErrVersion: neither IPv4 nor IPv6.
	ErrVersion = errors.New("wire: neither IPv4 nor IPv6")
	// ErrHeaderLength: a length field contradicts the header that holds it or
	// the packet around it.
	ErrHeaderLength = errors.New("wire: impossible length in a header")
	// ErrFragment: a fragment other than the first, which has no ports.
	ErrFragment = errors.New("wire: not the first fragment")
	// ErrAddress: an IPv6 header with an IPv4-mapped address, which must not
	// be on any wire (Linux drops it too: net/ipv6/ip6_input.c).
	ErrAddress = errors.New("wire: IPv4-mapped address in an IPv6 header")
	// ErrQuote: an ICMP error whose quote is too short or too broken to tell
	// what it quotes.
	ErrQuote = errors.New("wire: unreadable quote in an ICMP error")
)

// Kind says what a packet is to a conversation.
type Kind uint8

// The kinds.
const (
	KindOther     Kind = iota // sound as far as it was read, and of no concern
	KindTCP                   // a TCP segment
	KindICMPError             // an ICMP or ICMPv6 error that quotes a TCP segment
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindTCP:
		return "tcp"
	case KindICMPError:
		return "icmp_error"
	}
	return "other"
}

// Quote is the addresses and ports of a quoted segment, as in its own header:
// Src and SrcPort are those of whoever sent it.
type Quote struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

// Packet is one IP packet as parsed. Fields that its kind does not have are
// zero. Addresses are IPv4 or IPv6, never IPv4-mapped.
type Packet struct {
	Kind             Kind
	Checksum         Checksum      // of the TCP segment or the ICMP message
	Protocol         uint8         // the upper layer's, after IPv6 extension headers
	Src, Dst         netip.Addr    // of the IP header
	SrcPort, DstPort uint16        // TCP
	Segment          probe.Segment // TCP; TTL and TOS are set for every kind
	Fragment         bool          // the first of several: Segment.Len is of it alone
	Payload          []byte        // the TCP payload as far as it was captured; aliases the input
	ICMP             probe.ICMP    // ICMP errors
	Quote            Quote         // ICMP errors: the quoted segment's
}

// Protocol numbers, https://www.iana.org/assignments/protocol-numbers.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolICMPv6 = 58
)

// Parse reads one packet, IP header first, into p. After an error p is only
// partly set: if Kind is, it says whose the packet claims to be (Src and Dst, and
// the ports, or Quote), and nothing else of it is to be used.
//
// Segment.Len is what the IP header says, also where fewer octets were
// captured; octets behind the IP packet (Ethernet padding) are ignored. A
// length of 0 in the IP header means "as much as was captured": so Linux shows
// segments that its hardware has yet to cut (net/ipv4/ip_output.c,
// iph_set_totlen). The IPv4 header checksum and those inside a quote are not
// verified: the former is covered by TCP's as far as addresses go, the latter
// have passed routers and NATs.
func Parse(b []byte, p *Packet) error {
	if p.parsePlain(b, false) {
		return nil
	}
	return p.parse(b)
}

// ParseUnverified is Parse for packets whose checksums somebody else has verified:
// those of plain TCP segments it leaves ChecksumUnchecked.
func ParseUnverified(b []byte, p *Packet) error {
	if p.parsePlain(b, true) {
		return nil
	}
	return p.parse(b)
}

// parse reads any packet.
func (p *Packet) parse(b []byte) error {
	*p = Packet{}
	var n network
	if err := n.parse(b); err != nil {
		return err
	}
	p.Src, p.Dst, p.Protocol = n.src, n.dst, n.protocol
	p.Segment.TTL, p.Segment.TOS = n.ttl, n.tos
	p.Fragment = n.first
	if n.later {
		return ErrFragment
	}
	switch {
	case n.protocol == protocolTCP:
		return p.parseTCP(&n)
	case n.protocol == protocolICMP && n.src.Is4(), n.protocol == protocolICMPv6 && n.src.Is6():
		return p.parseICMP(&n)
	}
	return nil
}
