package recorder

import (
	"encoding/binary"
	"math/bits"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
)

// A history is the last samples, MaxSamples at most, as octets in a ring: of each
// sample what differs from what the one before lets expect, some six octets where a
// target is probed at an even pace. Nothing is lost thereby.
//
// A sample is an octet of what there is of it (hasRTT and the port's form above the
// outcome's five bits), one with the sizes of the two numbers that follow, the second
// difference of its time in µs, its round trip, and the port if that is another than one of
// those to be expected. Of one that is as most are, answered, from such a port and after about as long as
// the one before, one octet says all of that: usual, the port's form, and the two sizes; and the
// second number is by how much longer its round trip is.
type history struct {
	ring   []byte
	first  int  // where the oldest begins
	used   int  // octets
	n      int  // samples
	before mark // the state that the oldest one was written after
	after  mark // and the newest
}

// A mark is what a sample is written relative to.
type mark struct {
	at   int64 // of the sample before, in µs
	step int64 // from the one before that
	rtt  int64 // of the last that has one, in ns
	port uint16
}

const (
	// discarded is what outcomes that are no verdicts are counted from.
	discarded = uint8(probe.NumReasons) - 1
	// The outcome has room in its five bits.
	_ = uint(32 - probe.NumReasons - probe.NumDiscardReasons)

	outcomeBits  = 0x1f
	hasRTT       = 0x20
	portNext     = 0x40 // one more than before
	portAnother  = 0x80
	usual        = portNext | portAnother // no port is both
	usualNext    = 0x20                   // as portNext
	usualTurn    = 7                      // octets at most, above
	usualRTT     = 4                      // octets at most, and one at least
	mostOfSample = 2 + 8 + 8 + 2
	leastRing    = 64
)

// push adds a sample, whose time is a whole µs.
func (h *history) push(at int64, rtt time.Duration, port uint16, r probe.Reason, d probe.DiscardReason) {
	var b [mostOfSample + 8]byte // numbers are written eight octets at a time
	outcome := uint8(r)
	if d != 0 {
		outcome = discarded + uint8(d)
	}
	m := &h.after
	at /= 1000
	step := at - m.at
	turn := folded(step - m.step)
	turnSize := octetsOf(turn)
	if change := folded(int64(rtt) - m.rtt); outcome == 0 && rtt != 0 && turnSize <= usualTurn && octetsOf(change) <= usualRTT && port-m.port <= 1 {
		size := max(octetsOf(change), 1)
		b[0] = usual | byte(turnSize<<2) | byte(size-1)
		if port != m.port {
			b[0] |= usualNext
		}
		binary.LittleEndian.PutUint64(b[1:], turn)
		binary.LittleEndian.PutUint64(b[1+turnSize:], change)
		*m = mark{at, step, int64(rtt), port}
		h.append(b[:1+turnSize+size])
		return
	}
	trip := folded(int64(rtt))
	tripSize := octetsOf(trip)
	b[0], b[1] = outcome, byte(tripSize<<4|turnSize)
	binary.LittleEndian.PutUint64(b[2:], turn)
	n := 2 + turnSize
	if rtt != 0 {
		b[0] |= hasRTT
		binary.LittleEndian.PutUint64(b[n:], trip)
		n += tripSize
		m.rtt = int64(rtt)
	}
	switch port {
	case m.port:
	case m.port + 1:
		b[0] |= portNext
	default:
		b[0] |= portAnother
		binary.LittleEndian.PutUint16(b[n:], port)
		n += 2
	}
	*m = mark{at, step, m.rtt, port}
	h.append(b[:n])
}

// append puts a sample's octets into the ring.
func (h *history) append(b []byte) {
	if h.used+len(b) > len(h.ring) {
		h.grow(h.used + len(b))
	}
	at := h.first + h.used
	if at >= len(h.ring) {
		at -= len(h.ring)
	}
	if n := copy(h.ring[at:], b); n < len(b) {
		copy(h.ring, b[n:])
	}
	h.used += len(b)
	h.n++
}

// ahead adds the addresses of the next sample's place and of the oldest.
func (h *history) ahead(to []uintptr) []uintptr {
	if len(h.ring) == 0 {
		return to
	}
	at := h.first + h.used
	if at >= len(h.ring) {
		at -= len(h.ring)
	}
	ring := uintptr(unsafe.Pointer(unsafe.SliceData(h.ring)))
	return append(to, ring+uintptr(at), ring+uintptr(h.first))
}

// grow makes the ring a little larger than is needed: it is to fit.
func (h *history) grow(least int) {
	ring := append([]byte(nil), make([]byte, max(leastRing, least+least/8))...)
	ring = ring[:cap(ring)]
	n := copy(ring, h.ring[h.first:min(len(h.ring), h.first+h.used)])
	copy(ring[n:], h.ring[:h.used-n])
	h.ring, h.first = ring, 0
}

// drop forgets the oldest sample, and returns it.
func (h *history) drop() (s Sample) {
	_, n := h.read(h.first, &h.before, &s)
	h.first += n
	if h.first >= len(h.ring) {
		h.first -= len(h.ring)
	}
	h.used -= n
	h.n--
	return s
}

// read reads the sample at a place of the ring, written after m, which it moves on, into
// an empty one but for the RTT, which it returns with how many octets the sample has.
func (h *history) read(at int, m *mark, s *Sample) (rtt time.Duration, octets int) {
	var b [mostOfSample + 8]byte
	if n := copy(b[:mostOfSample], h.ring[at:]); n < mostOfSample {
		copy(b[n:mostOfSample], h.ring)
	}
	if b[0] >= usual {
		turnSize, size := int(b[0]>>2&usualTurn), int(b[0]&(usualRTT-1))+1
		m.step += unfolded(binary.LittleEndian.Uint64(b[1:]) & lowest(turnSize))
		m.at += m.step
		if b[0]&usualNext != 0 {
			m.port++
		}
		m.rtt += unfolded(binary.LittleEndian.Uint64(b[1+turnSize:]) & lowest(size))
		s.At, s.Port = 1000*m.at, m.port
		return time.Duration(m.rtt), 1 + turnSize + size
	}
	size := int(b[1] & 15)
	m.step += unfolded(binary.LittleEndian.Uint64(b[2:]) & lowest(size))
	m.at += m.step
	n := 2 + size
	if b[0]&hasRTT != 0 {
		size := int(b[1] >> 4)
		m.rtt = unfolded(binary.LittleEndian.Uint64(b[n:]) & lowest(size))
		rtt = time.Duration(m.rtt)
		n += size
	}
	switch {
	case b[0]&portNext != 0:
		m.port++
	case b[0]&portAnother != 0:
		m.port = binary.LittleEndian.Uint16(b[n:])
		n += 2
	}
	s.At, s.Port = 1000*m.at, m.port
	if outcome := b[0] & outcomeBits; outcome > discarded {
		s.Discard = probe.DiscardReason(outcome - discarded)
	} else {
		s.Reason = probe.Reason(outcome)
	}
	return rtt, n
}

// appendTo appends the samples, the oldest first.
func (h *history) appendTo(to []Sample) []Sample {
	m, at := h.before, h.first
	for range h.n {
		var s Sample
		rtt, n := h.read(at, &m, &s)
		s.RTT = seconds(rtt)
		if at += n; at >= len(h.ring) {
			at -= len(h.ring)
		}
		to = append(to, s)
	}
	return to
}

// seconds is a round trip as samples have it.
func seconds(d time.Duration) float32 { return float32(d.Seconds()) }

// folded has small numbers below 0 need few octets.
func folded(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

func unfolded(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// octetsOf is how many octets a number needs.
func octetsOf(v uint64) int { return (bits.Len64(v) + 7) / 8 }

// lowest has as many octets set, of eight at most.
func lowest(octets int) uint64 {
	if octets >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*octets) - 1
}
