package probe

import (
	"encoding/binary"
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
	t.Number = r.uvarint()
	t.Offset = int64(r.fixed(8))
	t.Lost = uint32(r.uvarint())
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

// A reader reads what octets writes. Once it has failed, all is zero.
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

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v := r.uvarint()
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
	r.at += Instant(r.varint())
	to.At = r.at
	if what&hasOtherStates != 0 {
		r.state = r.octet()
	}
	to.Local, to.Peer = State(r.state>>4), State(r.state&15)
	if what&hasDiscard != 0 {
		ev.Discard = DiscardReason(r.octet())
	}
	if what&hasStamp != 0 {
		ev.Stamp.Wall = r.varint() + int64(r.at) + offset
		ev.Stamp.Kernel = what&hasKernelStamp != 0
		if what&hasClock != 0 {
			r.clock = uint32(r.uvarint())
		}
		ev.Stamp.Clock = r.clock
	}
	if what&hasSegment != 0 {
		r.segment(&ev.Segment, direction(ev.Kind))
	}
	if what&hasICMP != 0 {
		i := &ev.ICMP
		i.V6 = r.octet() != 0
		i.Type, i.Code = r.octet(), r.octet()
		i.Seq = r.seq[0] + Seq(r.varint())
		i.From = r.addr()
	}
}

func (r *reader) segment(s *Segment, way int) {
	what := r.octet()
	s.Flags = Flags(r.fixed(2))
	s.Seq = r.seq[way] + Seq(r.varint())
	r.seq[way] = s.Seq
	if what&hasAck != 0 {
		s.Ack = r.seq[1-way] + Seq(r.varint())
		r.seq[1-way] = s.Ack
	}
	if what&hasWindow != 0 {
		s.Window = uint16(r.fixed(2))
	}
	if what&hasUrgent != 0 {
		s.Urgent = uint16(r.fixed(2))
	}
	if what&hasLen != 0 {
		s.Len = uint32(r.uvarint())
	}
	if what&hasTTL != 0 {
		s.TTL = r.octet()
	}
	if what&hasTOS != 0 {
		s.TOS = r.octet()
	}
	if what&hasOptions != 0 {
		r.options(&s.Options)
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
	f.record = uint32(r.uvarint())
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
		o.Octets = uint32(r.uvarint())
	}
	if what&hasPeer != 0 {
		p := &o.Peer
		p.TTL, p.WindowScale = r.octet(), int8(r.octet())
		traits := r.octet()
		p.SACK, p.Timestamps, p.ECN, p.SYNCookies = traits&1 != 0, traits&2 != 0, traits&4 != 0, Tristate(traits>>3)
		p.MSS, p.Window = uint16(r.fixed(2)), uint16(r.fixed(2))
	}
	if what&hasDuration != 0 {
		o.Duration = time.Duration(r.varint())
	}
	if what&hasLeast != 0 {
		o.Least = time.Duration(r.varint())
	}
}
