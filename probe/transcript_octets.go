package probe

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
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
	hasOptions
)

// What of a segment is there.
const (
	hasWindow = 1 << iota
	hasUrgent
	hasLen
	hasTTL
	hasTOS
)

// What of options is there.
const (
	hasMSS byte = 1 << iota
	hasWindowScale
	hasTimestamps
	hasCookie
	hasRaw
)

// What of a figure is there.
const (
	hasReason byte = 1 << iota
	hasRare
	hasPort
	hasOctets
	hasPeer
	hasTimes
	hasFarRecord // that has no room in one octet
)

// The most octets that parts of a transcript take. Numbers are written eight octets at a
// time, of which those that are needed stay: hence some more.
const (
	mostHead   = 80 + 2*0xff
	mostRecord = 150 + 0xff
	mostFigure = 64
)

// AppendOctets appends the transcript in a compact form, that of an answered half_open
// in some 200 octets, and returns the result. Numbers are written as differences
// from what came before, in as many octets as they need, and what is zero is left out.
// All of a transcript is kept, but for octets of an option's cookie or of the raw
// options beyond their length, for Event.Fragment, of which the note tells, and
// for Event.Narrow, of which the segments do.
func (t *Transcript) AppendOctets(b []byte) []byte {
	n := len(b)
	b = grown(b[:cap(b)], n, mostHead+len(t.records)*64)
	b[n] = byte(t.Kind)
	n = putEnd(b, n+1, t.Tuple.Local)
	n = putEnd(b, n, t.Tuple.Remote)
	b[n] = byte(size(t.Number)) | byte(size(uint64(t.Lost)))<<4
	n = put(b, n+1, t.Number)
	n = put(b, n, uint64(t.Lost))
	n = putFixed(b, n, uint64(t.Offset), 8)
	n = putFixed(b, n, uint64(len(t.records))|uint64(len(t.figures))<<8, 2)
	w := writer{offset: t.Offset}
	for i := range t.records {
		b = grown(b, n, mostRecord)
		n = w.record(b, n, &t.records[i])
	}
	for i := range t.figures {
		b = grown(b, n, mostFigure)
		n = t.figures[i].put(b, n)
	}
	return b[:n]
}

// grown returns b, all of which may be written, with room for more octets after n.
func grown(b []byte, n, more int) []byte {
	if len(b)-n < more {
		b = slices.Grow(b[:n], more)
		b = b[:cap(b)]
	}
	return b
}

// putFixed writes the lowest octets of a number at b[n] and returns where they end. For
// eight of them there is room.
func putFixed(b []byte, n int, v uint64, octets int) int {
	binary.LittleEndian.PutUint64(b[n:], v)
	return n + octets
}

// put writes as many octets as a number needs; the reader is told how many.
func put(b []byte, n int, v uint64) int { return putFixed(b, n, v, size(v)) }

// size is how many octets a number needs, 0 to 8.
func size(v uint64) int { return (bits.Len64(v) + 7) / 8 }

// folded has small numbers below 0 need few octets.
func folded(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// states are both in one octet: there are fewer than sixteen.
func (r *Record) states() byte { return byte(r.Local)<<4 | byte(r.Peer)&15 }

// A writer is what the differences are from.
type writer struct {
	offset int64
	at     Instant
	clock  uint32
	state  byte
	seq    [2]Seq // the last numbers of either direction, whichever way a segment went
}

// record writes a record at b[n], as all its parts do, and returns where it ends.
func (w *writer) record(b []byte, n int, r *Record) int {
	ev := &r.Event
	what := uint16(ev.Kind) & 15
	at, wall := folded(int64(r.At-w.at)), uint64(0)
	w.at = r.At
	if s := &ev.Stamp; s.Wall != 0 || s.Clock != 0 || s.Kernel {
		what |= hasStamp
		wall = folded(s.Wall - int64(r.At) - w.offset)
		if s.Kernel {
			what |= hasKernelStamp
		}
		if s.Clock != w.clock {
			what |= hasClock
		}
	}
	if ev.Segment.Options.any() {
		what |= hasSegment | hasOptions
	} else if ev.Segment.any() {
		what |= hasSegment
	}
	if ev.ICMP.any() {
		what |= hasICMP
	}
	if ev.Discard != 0 {
		what |= hasDiscard
	}
	if r.states() != w.state {
		what |= hasOtherStates
	}
	n = putFixed(b, n, uint64(what)|uint64(r.Note)<<16|uint64(size(at))<<24|uint64(size(wall))<<28, 4)
	n = put(b, n, at)
	if what&hasOtherStates != 0 {
		w.state = r.states()
		b[n] = w.state
		n++
	}
	if what&hasDiscard != 0 {
		b[n] = byte(ev.Discard)
		n++
	}
	n = put(b, n, wall)
	if what&hasClock != 0 {
		w.clock = ev.Stamp.Clock
		n = putFixed(b, n, uint64(w.clock), 4)
	}
	if what&hasSegment != 0 {
		n = w.segment(b, n, &ev.Segment, direction(ev.Kind))
	}
	if what&hasOptions != 0 {
		n = ev.Segment.Options.put(b, n)
	}
	if what&hasICMP != 0 {
		n = ev.ICMP.put(b, n)
	}
	return n
}

// direction is 1 for an event's segment that came from the peer, 0 for one of ours.
func direction(k EventKind) int {
	if k == SegmentArrives {
		return 1
	}
	return 0
}

// any reports whether there is a segment, options aside.
func (s *Segment) any() bool {
	return uint32(s.Seq)|uint32(s.Ack)|s.Len|uint32(s.Flags|Flags(s.Window)|Flags(s.Urgent)|Flags(s.TTL)|Flags(s.TOS)) != 0
}

// any reports whether there are options.
func (o *Options) any() bool {
	return uint32(o.Set)|uint32(o.MSS)|uint32(o.WindowScale|o.CookieLen|o.RawLen)|o.TSVal|o.TSEcr != 0
}

// any reports whether there is an error.
func (i *ICMP) any() bool {
	return i.Type|i.Code != 0 || i.Seq != 0 || i.V6 || i.From.IsValid()
}

func (w *writer) segment(b []byte, n int, s *Segment, way int) int {
	seq, ack := folded(int64(s.Seq.Sub(w.seq[way]))), uint64(0)
	w.seq[way] = s.Seq
	if s.Ack != 0 { // else it is not in use: what the next one differs from stays
		ack = folded(int64(s.Ack.Sub(w.seq[1-way])))<<1 | 1
		w.seq[1-way] = s.Ack
	}
	what := uint64(0)
	at := n
	n = put(b, n+4, seq)
	n = put(b, n, ack)
	if s.Window != 0 {
		what |= hasWindow
		n = putFixed(b, n, uint64(s.Window), 2)
	}
	if s.Urgent != 0 {
		what |= hasUrgent
		n = putFixed(b, n, uint64(s.Urgent), 2)
	}
	if s.Len != 0 {
		what |= hasLen
		n = putFixed(b, n, uint64(s.Len), 4)
	}
	if s.TTL != 0 {
		what |= hasTTL
		b[n] = s.TTL
		n++
	}
	if s.TOS != 0 {
		what |= hasTOS
		b[n] = s.TOS
		n++
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(what|uint64(s.Flags)<<8|uint64(size(seq))<<24|uint64(size(ack))<<28))
	return n
}

func (o *Options) put(b []byte, n int) int {
	at, what := n, byte(0)
	n = putFixed(b, n, uint64(o.Set)<<8, 3)
	if o.MSS != 0 {
		what |= hasMSS
		n = putFixed(b, n, uint64(o.MSS), 2)
	}
	if o.WindowScale != 0 {
		what |= hasWindowScale
		b[n] = o.WindowScale
		n++
	}
	if o.TSVal|o.TSEcr != 0 {
		what |= hasTimestamps
		n = putFixed(b, n, uint64(o.TSVal)|uint64(o.TSEcr)<<32, 8)
	}
	if o.CookieLen != 0 {
		what |= hasCookie
		b[n] = o.CookieLen
		n++
		n += copy(b[n:], o.Cookie[:min(int(o.CookieLen), len(o.Cookie))])
	}
	if o.RawLen != 0 {
		what |= hasRaw
		b[n] = o.RawLen
		n++
		*(*[MaxOptions]byte)(b[n:]) = o.Raw // for all of it there is room
		n += min(int(o.RawLen), len(o.Raw))
	}
	b[at] = what
	return n
}

func (i *ICMP) put(b []byte, n int) int {
	n = putFixed(b, n, uint64(bit(i.V6))|uint64(i.Type)<<8|uint64(i.Code)<<16|uint64(i.Seq)<<24, 7)
	return putAddr(b, n, i.From)
}

// putEnd writes one end of a connection.
func putEnd(b []byte, n int, a netip.AddrPort) int {
	n = putAddr(b, n, a.Addr())
	return putFixed(b, n, uint64(a.Port()), 2)
}

// putAddr writes an address with its length. A zone longer than any interface's name is
// cut.
func putAddr(b []byte, n int, a netip.Addr) int {
	if a.Is4() {
		v := a.As4()
		return putFixed(b, n, 4|uint64(binary.LittleEndian.Uint32(v[:]))<<8, 5)
	}
	all, _ := a.AppendBinary(b[n+1 : n+1]) // cannot fail
	length := min(len(all), 0xff)
	b[n] = byte(length)
	return n + 1 + copy(b[n+1:], all[:length]) // which may have had no room there
}

func bit(is bool) byte {
	if is {
		return 1
	}
	return 0
}

func (f *Figure) put(b []byte, n int) int {
	o := &f.Observation
	at, what := n, byte(0)
	n = putFixed(b, n, uint64(o.Kind)|uint64(f.record)<<16, 3)
	if f.record > 0xff {
		what |= hasFarRecord
		n += 3
	}
	if o.Reason != 0 {
		what |= hasReason
		b[n] = byte(o.Reason)
		n++
	}
	if uint8(o.Discard)|uint8(o.Reject)|uint8(o.Form)|uint8(o.Side)|uint8(o.Answer) != 0 {
		what |= hasRare
		n = putFixed(b, n, uint64(o.Discard)|uint64(o.Reject)<<8|uint64(o.Form)<<16|uint64(o.Side)<<24|uint64(o.Answer)<<32, 5)
	}
	if o.Port != 0 {
		what |= hasPort
		n = putFixed(b, n, uint64(o.Port), 2)
	}
	if o.Octets != 0 {
		what |= hasOctets
		n = putFixed(b, n, uint64(o.Octets), 4)
	}
	p := &o.Peer
	traits := bit(p.SACK) | bit(p.Timestamps)<<1 | bit(p.ECN)<<2 | byte(p.SYNCookies)<<3
	if peer := uint64(p.TTL) | uint64(uint8(p.WindowScale))<<8 | uint64(traits)<<16 | uint64(p.MSS)<<24 | uint64(p.Window)<<40; peer != 0 {
		what |= hasPeer
		n = putFixed(b, n, peer, 7)
	}
	if o.Duration|o.Least != 0 {
		what |= hasTimes
		d, least := folded(int64(o.Duration)), folded(int64(o.Least))
		b[n] = byte(size(d)) | byte(size(least))<<4
		n = put(b, n+1, d)
		n = put(b, n, least)
	}
	b[at+1] = what
	return n
}
