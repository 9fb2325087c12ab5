package show

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/probed/probed/probe"
)

// SegmentOptions says how AppendSegment writes.
type SegmentOptions struct {
	Absolute bool // sequence numbers as on the wire
	Stamp    bool // the wall clock in front, UTC with nanoseconds
}

// stampLayout is tcpdump's with -tttt and nanoseconds.
const stampLayout = "2006-01-02 15:04:05.000000000"

// AppendSegment appends step i as one line in tcpdump's manner, without the
// newline; nothing for a step that crossed no wire. With Absolute a segment is
// what `tcpdump -n -S` writes, octet for octet, less its words about the payload.
// It differs in options of a length that is not their kind's, behind which tcpdump
// loses its place, and in MD5, MPTCP and SCPS, which are not decoded here; the AE
// bit and the reserved ones are known to newer tcpdumps only. Of an ICMP error the
// length is not known; in its place stands which segment it quotes.
func (c *Conversation) AppendSegment(b []byte, i int, o SegmentOptions) []byte {
	s := &c.Steps[i]
	if s.Way == Here {
		return b
	}
	if o.Stamp {
		b = time.Unix(0, s.Wall).UTC().AppendFormat(b, stampLayout)
		b = append(b, ' ')
	}
	if s.Way == Error {
		return c.appendICMP(b, i, o)
	}
	from, to := c.Tuple.Local, c.Tuple.Remote
	if s.Way == In {
		from, to = to, from
	}
	b = appendProtocol(b, to.Addr())
	b = appendEnd(b, from)
	b = append(b, " > "...)
	b = appendEnd(b, to)
	b = append(b, ": "...)
	var n bases
	if !o.Absolute {
		n = c.basesAt(i)
	}
	seq, ack := c.relative(s, n)
	// A SACK block names octets that its receiver sent.
	blocks := n.irs
	if s.Way == In {
		blocks = n.iss
	}
	return appendTCP(b, &s.Segment, seq, ack, blocks)
}

// appendTCP follows tcp_print of tcpdump's print-tcp.c.
func appendTCP(b []byte, s *probe.Segment, seq, ack, blocks probe.Seq) []byte {
	b = append(b, "Flags ["...)
	b = append(b, s.Flags.String()...)
	b = append(b, ']')
	if s.Len > 0 || s.Flags&(probe.SYN|probe.FIN|probe.RST) != 0 {
		b = appendUint(append(b, ", seq "...), seq)
		if s.Len > 0 {
			b = appendUint(append(b, ':'), seq.Add(s.Len))
		}
	}
	if s.Flags.Has(probe.ACK) {
		b = appendUint(append(b, ", ack "...), ack)
	}
	b = appendUint(append(b, ", win "...), s.Window)
	if s.Flags.Has(probe.URG) {
		b = appendUint(append(b, ", urg "...), s.Urgent)
	}
	b, ok := appendOptions(b, &s.Options, blocks)
	if !ok {
		return b
	}
	return appendUint(append(b, ", length "...), s.Len)
}

func appendProtocol(b []byte, a netip.Addr) []byte {
	if a.Unmap().Is4() {
		return append(b, "IP "...)
	}
	return append(b, "IP6 "...)
}

// appendEnd writes an address and a port as tcpdump does: 198.18.0.1.61000.
func appendEnd(b []byte, a netip.AddrPort) []byte {
	b = appendAddr(b, a.Addr())
	return appendUint(append(b, '.'), a.Port())
}

func appendAddr(b []byte, a netip.Addr) []byte {
	return a.Unmap().WithZone("").AppendTo(b)
}

func appendUint[T ~uint8 | ~uint16 | ~uint32 | ~int](b []byte, n T) []byte {
	return strconv.AppendUint(b, uint64(n), 10)
}
