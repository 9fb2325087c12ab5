package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// errOctets means that octets are not those of a transcript.
var errOctets = errors.New("not a transcript's octets")

// What of a record is there. The event's kind is in the lowest four bits.
const (
	hasStamp uint16 = 1 << (4 + iota)
	hasKernelStamp
	hasClock // another than the last stamp's
	hasSegment
	hasICMP
	hasDiscard
	hasOtherStates // than the record before
)

// What of a segment is there.
const (
	hasAck byte = 1 << iota
	hasWindow
	hasUrgent
	hasLen
	hasTTL
	hasTOS
	hasOptions
)

// What of options is there.
const (
	hasMSS uint8 = 1 << iota
	hasWindowScale
	hasTimestamps
	hasCookie
	hasRaw
)

// What of a figure is there.
const (
	hasReason uint8 = 1 << iota
	hasRare
	hasPort
	hasOctets
	hasPeer
	hasDuration
	hasLeast
)

// AppendOctets appends the transcript in a compact form, that of an answered half_open
// in some 200 octets, and returns the result. Numbers are written as differences
// from what came before, and what is zero is left out. All of a transcript is kept,
// but for octets of an option's cookie or of the raw options beyond their length.
func (t *Transcript) AppendOctets(b []byte) []byte {
	b = append(b, byte(t.Kind))
	b = appendEnd(appendEnd(b, t.Tuple.Local), t.Tuple.Remote)
	b = binary.AppendUvarint(b, t.Number)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.Offset))
	b = binary.AppendUvarint(b, uint64(t.Lost))
	b = append(b, byte(len(t.records)), byte(len(t.figures)))
	e := octets{b: b}
	for i := range t.records {
		e.record(t.Offset, &t.records[i])
	}
	for i := range t.figures {
		e.figure(&t.figures[i])
	}
	return e.b
}

// octets is a transcript's compact form while it is written, with what the differences
// are from.
type octets struct {
	b     []byte
	at    Instant
	clock uint32
	state byte
	seq   [2]Seq // the last numbers of either direction, whichever way a segment went
}

// states are both in one octet: there are fewer than sixteen.
func (r *Record) states() byte { return byte(r.Local)<<4 | byte(r.Peer)&15 }

func (e *octets) record(offset int64, r *Record) {
	ev := &r.Event
	what := uint16(ev.Kind) & 15
	if ev.Stamp != (Stamp{}) {
		what |= hasStamp
		if ev.Stamp.Kernel {
			what |= hasKernelStamp
		}
		if ev.Stamp.Clock != e.clock {
			what |= hasClock
		}
	}
	if ev.Segment != (Segment{}) {
		what |= hasSegment
	}
	if ev.ICMP != (ICMP{}) {
		what |= hasICMP
	}
	if ev.Discard != 0 {
		what |= hasDiscard
	}
	if r.states() != e.state {
		what |= hasOtherStates
	}
	e.b = append(e.b, byte(what), byte(what>>8), byte(r.Note))
	e.b = binary.AppendVarint(e.b, int64(r.At-e.at))
	e.at = r.At
	if what&hasOtherStates != 0 {
		e.state = r.states()
		e.b = append(e.b, e.state)
	}
	if what&hasDiscard != 0 {
		e.b = append(e.b, byte(ev.Discard))
	}
	if what&hasStamp != 0 {
		e.b = binary.AppendVarint(e.b, ev.Stamp.Wall-int64(r.At)-offset)
	}
	if what&hasClock != 0 {
		e.clock = ev.Stamp.Clock
		e.b = binary.AppendUvarint(e.b, uint64(e.clock))
	}
	if what&hasSegment != 0 {
		e.segment(&ev.Segment, direction(ev.Kind))
	}
	if what&hasICMP != 0 {
		e.icmp(&ev.ICMP)
	}
}

// direction is 1 for an event's segment that came from the peer, 0 for one of ours.
func direction(k EventKind) int {
	if k == SegmentArrives {
		return 1
	}
	return 0
}

func (e *octets) segment(s *Segment, way int) {
	what := hasAck * bit(s.Ack != 0)
	what |= hasWindow*bit(s.Window != 0) | hasUrgent*bit(s.Urgent != 0) | hasLen*bit(s.Len != 0) | hasTTL*bit(s.TTL != 0) |
		hasTOS*bit(s.TOS != 0) | hasOptions*bit(s.Options != Options{})
	b := append(e.b, what, byte(s.Flags), byte(s.Flags>>8))
	b = binary.AppendVarint(b, int64(s.Seq.Sub(e.seq[way])))
	e.seq[way] = s.Seq
	if what&hasAck != 0 {
		b = binary.AppendVarint(b, int64(s.Ack.Sub(e.seq[1-way])))
		e.seq[1-way] = s.Ack
	}
	if what&hasWindow != 0 {
		b = binary.LittleEndian.AppendUint16(b, s.Window)
	}
	if what&hasUrgent != 0 {
		b = binary.LittleEndian.AppendUint16(b, s.Urgent)
	}
	if what&hasLen != 0 {
		b = binary.AppendUvarint(b, uint64(s.Len))
	}
	if what&hasTTL != 0 {
		b = append(b, s.TTL)
	}
	if what&hasTOS != 0 {
		b = append(b, s.TOS)
	}
	if what&hasOptions != 0 {
		b = s.Options.appendOctets(b)
	}
	e.b = b
}

func bit(is bool) byte {
	if is {
		return 1
	}
	return 0
}

func (o *Options) appendOctets(b []byte) []byte {
	at := len(b)
	b = append(b, 0, byte(o.Set), byte(o.Set>>8))
	if o.MSS != 0 {
		b[at] |= hasMSS
		b = binary.LittleEndian.AppendUint16(b, o.MSS)
	}
	if o.WindowScale != 0 {
		b[at] |= hasWindowScale
		b = append(b, o.WindowScale)
	}
	if o.TSVal != 0 || o.TSEcr != 0 {
		b[at] |= hasTimestamps
		b = binary.LittleEndian.AppendUint64(b, uint64(o.TSVal)|uint64(o.TSEcr)<<32)
	}
	if o.CookieLen != 0 {
		b[at] |= hasCookie
		b = append(b, o.CookieLen)
		b = append(b, o.Cookie[:min(int(o.CookieLen), len(o.Cookie))]...)
	}
	if o.RawLen != 0 {
		b[at] |= hasRaw
		b = append(b, o.RawLen)
		b = append(b, o.Raw[:min(int(o.RawLen), len(o.Raw))]...)
	}
	return b
}

func (e *octets) icmp(i *ICMP) {
	e.b = append(e.b, bit(i.V6), i.Type, i.Code)
	e.b = binary.AppendVarint(e.b, int64(i.Seq.Sub(e.seq[0])))
	e.b = appendAddr(e.b, i.From)
}

// appendEnd writes one end of a connection.
func appendEnd(b []byte, a netip.AddrPort) []byte {
	return binary.LittleEndian.AppendUint16(appendAddr(b, a.Addr()), a.Port())
}

// appendAddr writes an address with its length. A zone longer than any interface's
// name is cut.
func appendAddr(b []byte, a netip.Addr) []byte {
	at := len(b)
	b = append(b, 0)
	b, _ = a.AppendBinary(b) // cannot fail
	b = b[:min(len(b), at+1+0xff)]
	b[at] = byte(len(b) - at - 1)
	return b
}

func (e *octets) figure(f *Figure) {
	o := &f.Observation
	at := len(e.b)
	b := append(e.b, byte(o.Kind), 0)
	b = binary.AppendUvarint(b, uint64(f.record))
	what := uint8(0)
	if o.Reason != 0 {
		what |= hasReason
		b = append(b, byte(o.Reason))
	}
	if o.Discard != 0 || o.Reject != 0 || o.Form != 0 || o.Side != 0 || o.Answer != 0 {
		what |= hasRare
		b = append(b, byte(o.Discard), byte(o.Reject), byte(o.Form), byte(o.Side), byte(o.Answer))
	}
	if o.Port != 0 {
		what |= hasPort
		b = binary.LittleEndian.AppendUint16(b, o.Port)
	}
	if o.Octets != 0 {
		what |= hasOctets
		b = binary.AppendUvarint(b, uint64(o.Octets))
	}
	if p := &o.Peer; *p != (Fingerprint{}) {
		what |= hasPeer
		b = append(b, p.TTL, byte(p.WindowScale), bit(p.SACK)|bit(p.Timestamps)<<1|bit(p.ECN)<<2|byte(p.SYNCookies)<<3)
		b = binary.LittleEndian.AppendUint32(b, uint32(p.MSS)|uint32(p.Window)<<16)
	}
	if o.Duration != 0 {
		what |= hasDuration
		b = binary.AppendVarint(b, int64(o.Duration))
	}
	if o.Least != 0 {
		what |= hasLeast
		b = binary.AppendVarint(b, int64(o.Least))
	}
	b[at+1] = what
	e.b = b
}
