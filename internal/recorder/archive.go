package recorder

import (
	"encoding/binary"
	"unsafe"

	"github.com/probed/probed/probe"
)

// An archive is the transcripts that are kept, as octets, each once, even if it is both
// among the last and among the last that failed.
type archive struct {
	octets []byte // of all, with what lies idle between them
	n      uint8
	pieces [2 * MaxTranscripts]piece // n of them, in the order of their verdicts
}

// A piece is where a transcript lies. Four of them are a line of the processor's cache.
type piece struct {
	number   uint64
	at, room uint16 // where, and how many octets it may take, in units
	size     uint16 // octets that it takes
	why      reasons
}

// unit is what room is given out in, in octets.
const unit = 16

// units is how many of them octets need.
func units(octets int) uint16 { return uint16((octets + unit - 1) / unit) }

// reasons are why a transcript is kept.
type reasons uint16

const (
	last   reasons = 1 << iota // it is among the last
	failed                     // it is among the last that failed
)

// appendPart appends a transcript, or what has come since it was kept, with its length.
func appendPart(b []byte, t *probe.Transcript) []byte {
	at := len(b)
	b = t.AppendOctets(append(b, 0, 0))
	binary.LittleEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// put keeps a transcript, whose octets b are, in the place of one that is no longer to
// be kept.
func (a *archive) put(number uint64, why reasons, b []byte) {
	hole := a.retire(last)
	if why&failed != 0 {
		if other := a.retire(failed); other.room > hole.room {
			hole = other
		}
	}
	a.n++
	p := &a.pieces[a.n-1]
	*p = piece{number: number, why: why}
	a.write(p, hole, b)
}

// ahead adds the addresses of the place that the next transcript is likely to have: the
// oldest one's.
func (a *archive) ahead(to []uintptr) []uintptr {
	if a.n < MaxTranscripts {
		return to
	}
	p := &a.pieces[0]
	at := uintptr(unsafe.Pointer(unsafe.SliceData(a.octets))) + uintptr(p.at)*unit
	for n := uintptr(0); n < uintptr(p.size); n += 64 {
		to = append(to, at+n)
	}
	return to
}

// retire has the oldest piece that is kept for a reason be kept for that no longer, if
// there are most already. If it was the only one, its place is returned.
func (a *archive) retire(why reasons) (hole piece) {
	n, oldest := 0, 0
	for i := int(a.n) - 1; i >= 0; i-- {
		if a.pieces[i].why&why != 0 {
			n, oldest = n+1, i
		}
	}
	if n < MaxTranscripts {
		return hole
	}
	p := &a.pieces[oldest]
	if p.why &^= why; p.why == 0 {
		hole = *p
		copy(a.pieces[oldest:], a.pieces[oldest+1:a.n])
		a.n--
	}
	return hole
}

// write puts a piece's octets into the hole, if they fit, else at the end.
func (a *archive) write(p *piece, hole piece, b []byte) {
	p.at, p.room = hole.at, hole.room
	// One that is much too large, a flood's, goes back.
	if need := units(len(b)); need > hole.room || hole.room > 4*need {
		p.room = 0
		p.at = a.compact(int(need))
		p.room = need
	}
	p.size = uint16(copy(a.octets[int(p.at)*unit:][:len(b)], b))
}

// compact closes the holes and returns where there is then room for n units.
func (a *archive) compact(n int) uint16 {
	var order [len(a.pieces)]uint8 // by place
	used := 0
	for i := range a.n {
		j := i
		for ; j > 0 && a.pieces[order[j-1]].at > a.pieces[i].at; j-- {
			order[j] = order[j-1]
		}
		order[j] = i
		used += int(a.pieces[i].room)
	}
	to := a.octets
	if need := (used + n) * unit; need > len(to) || 4*need < len(to) {
		to = append([]byte(nil), make([]byte, need)...)
		to = to[:cap(to)]
	}
	at := uint16(0)
	for _, i := range order[:a.n] {
		p := &a.pieces[i]
		copy(to[int(at)*unit:], a.of(p))
		p.at = at
		at += p.room
	}
	a.octets = to
	return at
}

// find returns a transcript's piece, nil if it is not kept.
func (a *archive) find(number uint64) *piece {
	for i := range a.n {
		if a.pieces[i].number == number {
			return &a.pieces[i]
		}
	}
	return nil
}

// of returns a piece's octets; before compact has room for it, none.
func (a *archive) of(p *piece) []byte {
	if p.room == 0 {
		return nil
	}
	return a.octets[int(p.at)*unit:][:p.size]
}

// mostOctets is more than one conversation makes.
const mostOctets = 1<<16 - 1

// replace puts other octets in place of a piece's.
func (a *archive) replace(p *piece, b []byte) {
	if len(b) > mostOctets {
		return
	}
	hole := *p
	p.room = 0
	a.write(p, hole, b)
}

// read returns a piece's transcript.
func (a *archive) read(p *piece) (t probe.Transcript) {
	b := a.of(p)
	for first := true; len(b) > 0; first = false {
		part := b[2:][:binary.LittleEndian.Uint16(b)]
		b = b[2+len(part):]
		var since probe.Transcript
		to := &since
		if first {
			to = &t
		}
		if err := to.ReadOctets(part); err != nil {
			panic("recorder: " + err.Error()) // it wrote them itself
		}
		if !first {
			t.Extend(&since)
		}
	}
	return t
}

// all returns those that are kept for a reason, the newest first.
func (a *archive) all(why reasons) []probe.Transcript {
	all := make([]probe.Transcript, 0, MaxTranscripts)
	for i := int(a.n) - 1; i >= 0; i-- {
		if p := &a.pieces[i]; p.why&why != 0 {
			all = append(all, a.read(p))
		}
	}
	return all
}
