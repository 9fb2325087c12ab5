package probe

import (
	"net/netip"
	"time"
)

// ReadOctets makes t the transcript that AppendOctets wrote, in t's memory where that
// suffices. After an error t is empty.
func (t *Transcript) ReadOctets(b []byte) error {
	r := reader{b: b}
	*t = Transcript{Kind: Kind(r.octet()), records: t.records[:0], figures: t.figures[:0]}
	t.Tuple.Local = r.end()
	t.Tuple.Remote = r.end()
	sizes := r.octet()
	t.Number = r.fixed(int(sizes & 15))
	t.Lost = uint32(r.fixed(int(sizes >> 4)))
	t.Offset = int64(r.fixed(8))
	records, figures := int(r.octet()), int(r.octet())
	if records > MaxRecords {
		r.fail()
	}
	for ; records > 0 && !r.failed; records-- {
		t.records = append(t.records, Record{})
		r.record(t.Offset, &t.records[len(t.records)-1])
	}
	for ; figures > 0 && !r.failed; figures-- {
		t.figures = append(t.figures, Figure{})
		r.figure(&t.figures[len(t.figures)-1])
	}
	if r.failed || len(r.b) > 0 {
		t.Reset(FourTuple{}, 0)
		return errOctets
	}
	return nil
}

// A reader reads what a writer writes. Once it has failed, all is zero.
type reader struct {
	b      []byte
	failed bool
	at     Instant
	clock  uint32
	state  byte
	seq    [2]Seq
}

func (r *reader) fail() { r.b, r.failed = nil, true }

// take returns the next n octets, nil if there are fewer.
func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// fixed reads a number of n octets, the lowest first.
func (r *reader) fixed(n int) (v uint64) {
	for i, c := range r.take(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

func (r *reader) octet() byte { return byte(r.fixed(1)) }

// number reads what folded made of a number, of so many octets.
func (r *reader) number(octets byte) int64 {
	v := r.fixed(int(octets))
	return int64(v>>1) ^ -int64(v&1)
}

func (r *reader) addr() (a netip.Addr) {
	if a.UnmarshalBinary(r.take(int(r.octet()))) != nil {
		r.fail()
	}
	return a
}

func (r *reader) end() netip.AddrPort {
	a := r.addr()
	return netip.AddrPortFrom(a, uint16(r.fixed(2)))
}

func (r *reader) record(offset int64, to *Record) {
	ev := &to.Event
	what := uint16(r.fixed(2))
	ev.Kind = EventKind(what & 15)
	to.Note = Note(r.octet())
	sizes := r.octet()
	r.at += Instant(r.number(sizes & 15))
	to.At = r.at
	if what&hasOtherStates != 0 {
		r.state = r.octet()
	}
	to.Local, to.Peer = State(r.state>>4), State(r.state&15)
	if what&hasDiscard != 0 {
		ev.Discard = DiscardReason(r.octet())
	}
	if what&hasStamp != 0 {
		ev.Stamp.Wall = r.number(sizes>>4) + int64(r.at) + offset
		ev.Stamp.Kernel = what&hasKernelStamp != 0
		if what&hasClock != 0 {
			r.clock = uint32(r.fixed(4))
		}
		ev.Stamp.Clock = r.clock
	}
	if what&hasSegment != 0 {
		r.segment(&ev.Segment, direction(ev.Kind))
	}
	if what&hasOptions != 0 {
		r.options(&ev.Segment.Options)
	}
	if what&hasICMP != 0 {
		i := &ev.ICMP
		i.V6 = r.octet() != 0
		i.Type, i.Code = r.octet(), r.octet()
		i.Seq = Seq(r.fixed(4))
		i.From = r.addr()
	}
}

func (r *reader) segment(s *Segment, way int) {
	what := r.octet()
	s.Flags = Flags(r.fixed(2))
	sizes := r.octet()
	s.Seq = r.seq[way] + Seq(r.number(sizes&15))
	r.seq[way] = s.Seq
	if ack := r.fixed(int(sizes >> 4)); ack != 0 {
		ack >>= 1
		s.Ack = r.seq[1-way] + Seq(int64(ack>>1)^-int64(ack&1))
		r.seq[1-way] = s.Ack
	}
	if what&hasWindow != 0 {
		s.Window = uint16(r.fixed(2))
	}
	if what&hasUrgent != 0 {
		s.Urgent = uint16(r.fixed(2))
	}
	if what&hasLen != 0 {
		s.Len = uint32(r.fixed(4))
	}
	if what&hasTTL != 0 {
		s.TTL = r.octet()
	}
	if what&hasTOS != 0 {
		s.TOS = r.octet()
	}
}

func (r *reader) options(o *Options) {
	what := r.octet()
	o.Set = OptionSet(r.fixed(2))
	if what&hasMSS != 0 {
		o.MSS = uint16(r.fixed(2))
	}
	if what&hasWindowScale != 0 {
		o.WindowScale = r.octet()
	}
	if what&hasTimestamps != 0 {
		o.TSVal, o.TSEcr = uint32(r.fixed(4)), uint32(r.fixed(4))
	}
	if what&hasCookie != 0 {
		o.CookieLen = r.octet()
		copy(o.Cookie[:], r.take(min(int(o.CookieLen), len(o.Cookie))))
	}
	if what&hasRaw != 0 {
		o.RawLen = r.octet()
		copy(o.Raw[:], r.take(min(int(o.RawLen), len(o.Raw))))
	}
}

func (r *reader) figure(f *Figure) {
	o := &f.Observation
	o.Kind = ObservationKind(r.octet())
	what := r.octet()
	f.record = uint32(r.octet())
	if what&hasFarRecord != 0 {
		f.record |= uint32(r.fixed(3)) << 8
	}
	if what&hasReason != 0 {
		o.Reason = Reason(r.octet())
	}
	if what&hasRare != 0 {
		o.Discard, o.Reject, o.Form = DiscardReason(r.octet()), RejectReason(r.octet()), Form(r.octet())
		o.Side, o.Answer = Side(r.octet()), Answer(r.octet())
	}
	if what&hasPort != 0 {
		o.Port = uint16(r.fixed(2))
	}
	if what&hasOctets != 0 {
		o.Octets = uint32(r.fixed(4))
	}
	if what&hasPeer != 0 {
		p := &o.Peer
		p.TTL, p.WindowScale = r.octet(), int8(r.octet())
		traits := r.octet()
		p.SACK, p.Timestamps, p.ECN, p.SYNCookies = traits&1 != 0, traits&2 != 0, traits&4 != 0, Tristate(traits>>3)
		p.MSS, p.Window = uint16(r.fixed(2)), uint16(r.fixed(2))
	}
	if what&hasTimes != 0 {
		sizes := r.octet()
		o.Duration, o.Least = time.Duration(r.number(sizes&15)), time.Duration(r.number(sizes>>4))
	}
}
