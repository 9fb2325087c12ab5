package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe"
)

// A Template is a segment without payload that is sent often: its header is made and
// summed once, and each copy gets what differs, with the checksum brought up to date
// instead of computed (RFC 1624 §3).
type Template struct {
	header [tcpHeaderLen + probe.MaxOptions]byte
	length uint8
	tsVal  uint8  // the offset of TSval; 0: none
	sum    uint64 // of the header without ports, SEG.SEQ and TSval
}

// NewTemplate makes one of a segment as AppendTCP would write it.
func NewTemplate(s *probe.Segment) Template {
	var t Template
	blank := *s
	blank.Seq = 0
	if blank.Options.RawLen == 0 {
		blank.Options.TSVal = 0
	}
	b := appendHeader(t.header[:0], 0, 0, &blank)
	t.length = uint8(len(b))
	t.sum = sum(b, 0)
	if o := &s.Options; o.RawLen == 0 && o.Has(probe.OptTimestamps) {
		// AppendOptions writes the MSS, two octets, and then kind and length before it.
		t.tsVal = tcpHeaderLen + 4
		if o.Has(probe.OptMSS) {
			t.tsVal += lenMSS
		}
	}
	return t
}

// Append appends the segment with these ports, SEG.SEQ and, if it has timestamps,
// TSval. between is PseudoSum of its addresses.
func (t *Template) Append(dst []byte, between uint64, srcPort, dstPort uint16, seq probe.Seq, tsVal uint32) []byte {
	start := len(dst)
	dst = append(dst, t.header[:t.length]...)
	b := dst[start:]
	ports := uint32(srcPort)<<16 | uint32(dstPort)
	binary.BigEndian.PutUint32(b[tcpSrcPort:], ports)
	binary.BigEndian.PutUint32(b[tcpSeq:], uint32(seq))
	// Octets that begin at a multiple of 2 are summed alike, wherever they lie.
	s := t.sum + uint64(ports) + uint64(seq) + uint64(t.length)
	if t.tsVal != 0 {
		binary.BigEndian.PutUint32(b[t.tsVal:], tsVal)
		s += uint64(tsVal)
	}
	binary.BigEndian.PutUint16(b[tcpChecksum:], ^fold(s+between))
	return dst
}

// PseudoSum is what two addresses of one family and TCP add to a segment's checksum,
// but for its length.
func PseudoSum(src, dst netip.Addr) uint64 {
	return uint64(fold(pseudo(src.Unmap(), dst.Unmap(), protocolTCP, 0)))
}
