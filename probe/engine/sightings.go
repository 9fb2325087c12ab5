package engine

import (
	"time"

	"github.com/probed/probed/probe/wire"
)

// A sightings log tells a packet that a stacked device (a bridge, VLAN, macvlan,
// bond) shows once a layer from one that came twice: the former is seen on
// another interface, and within stackDelay.
type sightings [256]sighting

type sighting struct {
	packet  uint64 // its hash
	wall    int64
	ifindex int
}

// stackDelay bounds the way of a packet through the layers of one host.
const stackDelay = 5 * time.Millisecond

// again reports whether a frame shows a packet that another layer has shown.
func (l *sightings) again(f *frame) bool {
	h := f.identity()
	s := &l[h%uint64(len(l))]
	if s.packet == h && s.ifindex != f.ifindex && time.Duration(f.wall-s.wall).Abs() < stackDelay {
		return true
	}
	*s = sighting{h, f.wall, f.ifindex}
	return false
}

// identity mixes what makes a packet: its direction, its ends, and what it says. The
// key's hash stands for the peer's end and our port.
func (f *frame) identity() uint64 {
	p := &f.packet
	what := uint64(p.Kind)
	if f.outgoing {
		what |= 1 << 8
	}
	if p.Kind == wire.KindICMPError {
		srcHi, srcLo := halves(p.Src)
		dstHi, dstLo := halves(p.Dst)
		h := mix(mix(f.hash, what), mix(mix(srcHi, srcLo), mix(dstHi, dstLo)))
		return mix(h, uint64(p.ICMP.Seq)<<16|uint64(p.ICMP.Type)<<8|uint64(p.ICMP.Code))
	}
	hi, lo := halves(f.local)
	s := &p.Segment
	h := mix(mix(f.hash, what), mix(hi, lo))
	return mix(h^uint64(s.Seq)<<32^uint64(s.Ack), uint64(s.Flags)<<32|uint64(s.Len))
}
