package engine

import (
	"encoding/binary"
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
	h := f.hash()
	s := &l[h%uint64(len(l))]
	if s.packet == h && s.ifindex != f.ifindex && time.Duration(f.wall-s.wall).Abs() < stackDelay {
		return true
	}
	*s = sighting{h, f.wall, f.ifindex}
	return false
}

// hash mixes what makes a packet: its direction, its ends, and what it says.
func (f *frame) hash() uint64 {
	p := &f.packet
	h := uint64(p.Kind)
	if f.outgoing {
		h |= 1 << 8
	}
	h = mixAddr(mixAddr(h, p.Src), p.Dst)
	if p.Kind == wire.KindICMPError {
		q := &p.Quote
		h = mixAddr(h, q.Dst)
		h = splitmix(h ^ uint64(q.SrcPort)<<48 ^ uint64(q.DstPort)<<32 ^ uint64(p.ICMP.Seq))
		return splitmix(h ^ uint64(p.ICMP.Type)<<8 ^ uint64(p.ICMP.Code))
	}
	s := &p.Segment
	h = splitmix(h ^ uint64(p.SrcPort)<<48 ^ uint64(p.DstPort)<<32 ^ uint64(s.Seq))
	return splitmix(h ^ uint64(s.Ack)<<32 ^ uint64(s.Flags)<<16 ^ uint64(s.Len))
}

func mixAddr(h uint64, a addr) uint64 {
	b := a.As16()
	h = splitmix(h ^ binary.NativeEndian.Uint64(b[:8]))
	return splitmix(h ^ binary.NativeEndian.Uint64(b[8:]))
}
