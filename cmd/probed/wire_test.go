package main

import (
	"net/netip"
	"testing"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// The default source ports' halves.
const (
	reservedFirst, reservedLast = 61000, 61127
	guardedFirst, guardedLast   = 61128, 61255
)

// ourPorts is the capture filter for both halves, ICMP left out.
const ourPorts = "tcp portrange 61000-61255"

// A segment is one TCP segment of a capture.
type segment struct {
	wire.Packet
	wall int64
	data []byte
}

// segments parses a capture's packets, all of which must be whole TCP.
func segments(t *testing.T, packets []lab.CapturedPacket) []segment {
	t.Helper()
	var all []segment
	for _, p := range packets {
		s := segment{wall: p.Wall, data: p.Data}
		if err := wire.Parse(p.Data, &s.Packet); err != nil {
			t.Fatalf("captured %x: %v", p.Data, err)
		}
		if s.Kind == wire.KindTCP {
			all = append(all, s)
		}
	}
	return all
}

// ours reports whether probed, or its kernel for it, sent the segment.
func (s *segment) ours() bool { return reservedFirst <= s.SrcPort && s.SrcPort <= guardedLast }

func (s *segment) to() netip.AddrPort { return netip.AddrPortFrom(s.Dst, s.DstPort) }

// is reports whether exactly these of SYN, ACK, RST and FIN are set.
func (s *segment) is(f probe.Flags) bool {
	return s.Segment.Flags&(probe.SYN|probe.ACK|probe.RST|probe.FIN) == f
}

// An exchange is what a capture shows of one probe: from its SYN on, as long as
// its four-tuple has no other.
type exchange struct {
	syn     segment
	synAcks []segment
	resets  []segment // ours
}

// exchanges follows every SYN of ours through a capture. Segments of ours that
// belong to none fail the test.
func exchanges(t *testing.T, all []segment) []*exchange {
	t.Helper()
	type tuple struct{ local, remote netip.AddrPort }
	open := make(map[tuple]*exchange)
	var list []*exchange
	for _, s := range all {
		src, dst := netip.AddrPortFrom(s.Src, s.SrcPort), netip.AddrPortFrom(s.Dst, s.DstPort)
		switch {
		case s.ours() && s.is(probe.SYN):
			x := &exchange{syn: s}
			open[tuple{src, dst}] = x
			list = append(list, x)
		case s.ours():
			x := open[tuple{src, dst}]
			if x == nil || !s.is(probe.RST) || s.Segment.Seq != x.syn.Segment.Seq.Add(1) {
				t.Errorf("%v > %v %v seq %v: not what a half_open probe sends", src, dst, s.Segment.Flags, s.Segment.Seq)
				continue
			}
			x.resets = append(x.resets, s)
		case s.is(probe.SYN | probe.ACK):
			if x := open[tuple{dst, src}]; x != nil {
				x.synAcks = append(x.synAcks, s)
			}
		}
	}
	return list
}
