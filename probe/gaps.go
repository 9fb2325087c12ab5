package probe

import "encoding/binary"

// Gaps are the stretches of the peer's octets that have come ahead of RCV.NXT,
// in no order. Only where they lie is kept: what they say is nobody's business.
type gaps struct {
	n    uint8
	last uint8 // the one that grew last, which RFC 2018 §4 reports first
	list [4]stretch
}

// A stretch is from the first octet to the one after the last.
type stretch struct{ from, to Seq }

// add takes a stretch that came, and returns how far there is no gap from next
// on. A fifth stretch is forgotten: the peer sends it again.
func (g *gaps) add(next, from, to Seq) Seq {
	s := stretch{from, to}
	for i := 0; i < int(g.n); {
		o := g.list[i]
		if s.to.Less(o.from) || o.to.Less(s.from) {
			i++
			continue
		}
		if o.from.Less(s.from) {
			s.from = o.from
		}
		if s.to.Less(o.to) {
			s.to = o.to
		}
		g.remove(i)
	}
	if s.from.LessEq(next) {
		if next.Less(s.to) {
			next = s.to
		}
		return next
	}
	if int(g.n) < len(g.list) {
		g.list[g.n], g.last = s, g.n
		g.n++
	}
	return next
}

func (g *gaps) remove(i int) {
	g.n--
	g.list[i] = g.list[g.n]
	g.list[g.n] = stretch{}
	g.last = 0
}

// option writes RFC 2018 §3's SACK option, behind whatever o has.
func (g *gaps) option(o *Options) {
	const (
		kindNop, kindSACK, kindTimestamps = 1, 5, 8
		blockLen                          = 8
	)
	b := o.Raw[:0]
	if o.Has(OptTimestamps) {
		b = append(b, kindNop, kindNop, kindTimestamps, 10)
		b = binary.BigEndian.AppendUint32(b, o.TSVal)
		b = binary.BigEndian.AppendUint32(b, o.TSEcr)
	}
	n := min(int(g.n), (MaxOptions-len(b)-4)/blockLen)
	b = append(b, kindNop, kindNop, kindSACK, byte(2+n*blockLen))
	for i := range n {
		s := g.list[(int(g.last)+i)%int(g.n)]
		b = binary.BigEndian.AppendUint32(b, uint32(s.from))
		b = binary.BigEndian.AppendUint32(b, uint32(s.to))
	}
	o.Set |= OptSACK
	o.RawLen = uint8(len(b))
}
