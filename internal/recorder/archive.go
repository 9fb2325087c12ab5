package recorder

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/probed/probed/probe"
)

// An archive is the transcripts that are kept, as octets, each once, even if it is both
// among the last and among the last that failed.
type archive struct {
	octets []byte  // of all, with what lies idle between them
	pieces []piece // in the order of their verdicts
}

// A piece is where a transcript lies.
type piece struct {
	number     uint64
	at         uint32
	room, size uint16 // octets that it may take, and does
	last       bool   // it is among the last
	failed     bool   // it is among the last that failed
}

// appendPart appends a transcript, or what has come since it was kept, with its length.
func appendPart(b []byte, t *probe.Transcript) []byte {
	at := len(b)
	b = t.AppendOctets(append(b, 0, 0))
	binary.LittleEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// put keeps a transcript, whose octets b are, in the place of one that is no longer to
// be kept.
func (a *archive) put(number uint64, failed bool, b []byte) {
	var hole piece
	a.retire(&hole, func(p *piece) *bool { return &p.last })
	if failed {
		a.retire(&hole, func(p *piece) *bool { return &p.failed })
	}
	if len(a.pieces) == cap(a.pieces) { // one by one: most targets never need more than the first few
		a.pieces = append(make([]piece, 0, max(MaxTranscripts, len(a.pieces)+1)), a.pieces...)
	}
	a.pieces = append(a.pieces, piece{number: number, last: true, failed: failed})
	a.write(len(a.pieces)-1, hole, b)
}

// retire has the oldest piece of which something is true go out of that, if there are
// most already. If it is kept for nothing else, its place is the hole.
func (a *archive) retire(hole *piece, is func(*piece) *bool) {
	n, oldest := 0, -1
	for i := range a.pieces {
		if *is(&a.pieces[i]) {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n < MaxTranscripts {
		return
	}
	p := &a.pieces[oldest]
	if *is(p) = false; !p.last && !p.failed {
		if p.room > hole.room {
			*hole = *p
		}
		a.pieces = slices.Delete(a.pieces, oldest, oldest+1)
	}
}

// write puts the i-th piece's octets into the hole, if they fit, else at the end.
func (a *archive) write(i int, hole piece, b []byte) {
	p := &a.pieces[i]
	p.at, p.room = hole.at, hole.room
	if len(b) > int(hole.room) {
		p.room = 0
		p.at = a.compact((len(b) + 15) &^ 15)
		p.room = uint16(len(b)+15) &^ 15
	}
	p.size = uint16(copy(a.octets[p.at:][:len(b)], b))
}

// compact closes the holes and returns where there is then room for n octets.
func (a *archive) compact(n int) uint32 {
	order := make([]int, 0, 2*MaxTranscripts) // on the stack
	used := 0
	for i := range a.pieces {
		j := len(order)
		for ; j > 0 && a.pieces[order[j-1]].at > a.pieces[i].at; j-- {
		}
		order = slices.Insert(order, j, i)
		used += int(a.pieces[i].room)
	}
	to := a.octets
	if used+n > len(to) {
		to = append([]byte(nil), make([]byte, used+n)...)
		to = to[:cap(to)]
	}
	at := uint32(0)
	for _, i := range order {
		p := &a.pieces[i]
		copy(to[at:], a.octets[p.at:][:p.size])
		p.at = at
		at += uint32(p.room)
	}
	a.octets = to
	return at
}

// find returns which piece a transcript's is, -1 if it is not kept.
func (a *archive) find(number uint64) int {
	for i := range a.pieces {
		if a.pieces[i].number == number {
			return i
		}
	}
	return -1
}

// of returns the i-th piece's octets.
func (a *archive) of(i int) []byte {
	p := &a.pieces[i]
	return a.octets[p.at:][:p.size]
}

// replace puts other octets in place of the i-th piece's.
func (a *archive) replace(i int, b []byte) {
	if len(b) > math.MaxUint16 {
		return // more was added than one conversation does
	}
	hole := a.pieces[i]
	a.pieces[i].room = 0
	a.write(i, hole, b)
}

// read returns the i-th piece.
func (a *archive) read(i int) (t probe.Transcript) {
	b := a.of(i)
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

// all returns those of which something is true, the newest first.
func (a *archive) all(is func(*piece) bool) []probe.Transcript {
	all := make([]probe.Transcript, 0, MaxTranscripts)
	for i := len(a.pieces) - 1; i >= 0; i-- {
		if is(&a.pieces[i]) {
			all = append(all, a.read(i))
		}
	}
	return all
}
