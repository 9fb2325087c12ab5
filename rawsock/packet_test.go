package rawsock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP's control bits as tests name them.
const (
	fin, syn, rst, psh, ack byte = 1, 2, 4, 8, 16
)

// A seg is a TCP segment of a test.
type seg struct {
	from, to netip.AddrPort
	flags    byte
	seq      uint32
	payload  []byte
}

// tcp encodes the segment with its checksum.
func (s seg) tcp() []byte {
	b := make([]byte, tcpHeaderLen, tcpHeaderLen+len(s.payload))
	binary.BigEndian.PutUint16(b[0:], s.from.Port())
	binary.BigEndian.PutUint16(b[2:], s.to.Port())
	binary.BigEndian.PutUint32(b[tcpSeq:], s.seq)
	binary.BigEndian.PutUint32(b[8:], 0x01020304)
	b[tcpDataOffset] = tcpHeaderLen / 4 << 4
	b[tcpFlags] = s.flags
	binary.BigEndian.PutUint16(b[tcpWindow:], 1024)
	b = append(b, s.payload...)
	binary.BigEndian.PutUint16(b[tcpChecksum:], tcpSum(s.from.Addr(), s.to.Addr(), b))
	return b
}

// packet is the segment as something to send.
func (s seg) packet() Packet {
	return Packet{Segment: s.tcp(), Src: s.from.Addr(), Dst: s.to.Addr()}
}

// seen decodes a frame that the filter passed and that has no IPv6 extension
// headers; ok tells whether it is TCP.
func seen(data []byte) (s seg, ttl, tos byte, ok bool) {
	var src, dst netip.Addr
	var protocol byte
	header := ipv6HeaderLen
	if data[0]>>4 == 4 {
		header = int(data[0]&0xf) * 4
		tos, ttl, protocol = data[1], data[8], data[9]
		src, dst = netip.AddrFrom4([4]byte(data[12:])), netip.AddrFrom4([4]byte(data[16:]))
	} else {
		tos, protocol, ttl = data[0]<<4|data[1]>>4, data[6], data[7]
		src, dst = netip.AddrFrom16([16]byte(data[8:])), netip.AddrFrom16([16]byte(data[24:]))
	}
	if protocol != unix.IPPROTO_TCP {
		return s, ttl, tos, false
	}
	tcp := data[header:]
	s.from = netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp))
	s.to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:]))
	s.seq = binary.BigEndian.Uint32(tcp[tcpSeq:])
	s.flags = tcp[tcpFlags]
	return s, ttl, tos, true
}

// ip4 puts an IPv4 header, with words of options, before a payload.
func ip4(protocol byte, options int, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20+4*options)
	b[0] = 0x40 | byte(len(b)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, protocol
	copy(b[12:], []byte{198, 18, 0, 1, 198, 18, 0, 2})
	return append(b, payload...)
}

// ip6 puts an IPv6 header before a payload.
func ip6(protocol byte, payload []byte) []byte {
	b := make([]byte, ipv6HeaderLen)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, 64
	copy(b[8:], netip.MustParseAddr("2001:db8::1").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8::2").AsSlice())
	return append(b, payload...)
}

// tcpPorts is a bare SYN's header.
func tcpPorts(from, to uint16) []byte {
	return seg{
		from: netip.AddrPortFrom(netip.IPv4Unspecified(), from),
		to:   netip.AddrPortFrom(netip.IPv4Unspecified(), to), flags: syn,
	}.tcp()
}

// icmp puts an ICMP or ICMPv6 header before a quote.
func icmp(typ byte, quote []byte) []byte { return append([]byte{typ, 1, 0, 0, 0, 0, 0, 0}, quote...) }
