package engine

import (
	"unsafe"

	"github.com/probed/probed/probe"
)

// What a probe needs of its target, and a frame of its conversation, lies scattered over
// more memory than the caches hold when there are many, and each piece names the next.
// So before a group of them is worked off, the pieces of all are touched, one step of
// the way after the other: the processor waits for a step's memory all at once instead
// of for each piece by itself. What is read is added up, lest the compiler leave it out;
// what belongs to others is prefetched.

// warmSends is for how many probes memory is fetched at a time, and more if as many ticks have them.
const warmSends = 32

// warmEntries fetches what the probes that are due next need, once it was used for those
// that it was fetched for before.
func (s *Shard) warmEntries() {
	if s.fetched > 0 {
		return
	}
	s.schedule.gather(s.now.Add(maxStretch), warmSends)
	// All of the heap, since its first are not its earliest; but no more than the caches hold.
	next := s.schedule.near[:min(len(s.schedule.near), 4*warmSends)]
	if len(next) < 2 {
		return
	}
	s.fetched = len(next)
	to := s.addresses[:0]
	for _, x := range next {
		to = append(to, uintptr(unsafe.Pointer(&s.entries[x.value])))
	}
	prefetch(to)
	to = to[:0]
	for _, x := range next {
		to = s.entries[x.value].ahead(to)
	}
	prefetch(to)
	to = to[:0]
	for _, x := range next {
		if p := s.entries[x.value].peer; p != nil {
			at := uintptr(unsafe.Pointer(p))
			to = append(to, at, at+cacheLine, at+unsafe.Sizeof(*p)-1)
		}
	}
	prefetch(to)
	to = to[:0]
	for _, x := range next {
		e := s.entries[x.value]
		if p := e.peer; p != nil {
			ports, at := s.cfg.Reserved, p.ports[0]
			if e.guarded {
				ports, at = s.cfg.Guarded, p.ports[1]
			}
			k := p.key(ports.First + uint16(at%ports.len()))
			cell := &s.table.index.cells[s.table.index.start(k.hash())]
			addr := uintptr(unsafe.Pointer(p.address))
			to = append(to, addr, addr+cacheLine, addr+unsafe.Sizeof(*p.address)-1, uintptr(unsafe.Pointer(cell)))
		}
	}
	prefetch(to)
	prefetch(s.table.ahead(len(next), to[:0]))
	s.addresses = to
}

// ahead adds the addresses of what the next conversations will lie in.
func (t *table) ahead(n int, to []uintptr) []uintptr {
	for _, i := range t.spare[max(len(t.spare)-n, 0):] {
		at := uintptr(unsafe.Pointer(t.slot(i)))
		to = append(to, at, at+cacheLine, uintptr(unsafe.Pointer(t.alarm(i))))
	}
	return to
}

// warmTimers fetches the alarms of the timers that go off next: of most there is no more to say than
// that nobody waits for them any more.
func (t *table) warmTimers(end probe.Instant) {
	t.timers.gather(end, 1)
	var to [16]uintptr
	n := 0
	for _, x := range t.timers.near[:min(len(t.timers.near), len(to))] {
		to[n] = uintptr(unsafe.Pointer(t.alarm(x.value)))
		n++
	}
	prefetch(to[:n])
}

// warmFrames touches the conversations of the frames that were read.
func (s *Shard) warmFrames() {
	frames := s.frames[:s.nFrames]
	if len(frames) < 4 {
		return
	}
	x := &s.table.index
	var sum uint64
	for i := range frames {
		sum += uint64(x.cells[x.start(frames[i].hash)].hash)
	}
	to := s.addresses[:0]
	for i := range frames {
		if slot, same := x.at(x.start(frames[i].hash), frames[i].hash); same && slot != none {
			sl := s.table.slot(slot)
			sum += uint64(sl.local) + sl.number + uint64(s.table.alarm(slot).queued)
			// An outgoing RST follows an answer.
			if sl.target != free && (!frames[i].outgoing || !frames[i].packet.Segment.Flags.Has(probe.RST)) {
				e := s.entries[sl.target]
				to = e.ahead(to)
				if !frames[i].outgoing {
					s.answered = append(s.answered, e)
				}
			}
		}
	}
	s.warmth += sum
	prefetch(to)
	s.addresses = to
	s.warmBooks()
	clear(s.answered)
	s.answered = s.answered[:0]
}

// warmBooks fetches what the answers that have come will be booked in.
func (s *Shard) warmBooks() {
	to := s.addresses
	for step := range AheadSteps {
		to = to[:0]
		for _, e := range s.answered {
			to = e.sink.Ahead(step, to)
			if e.recorder != nil {
				to = e.recorder.Ahead(step, to)
			}
		}
		prefetch(to)
	}
	s.addresses = to
}

// ahead adds the addresses of what a probe and its frames need of an entry: its first lines.
func (e *entry) ahead(to []uintptr) []uintptr {
	at := uintptr(unsafe.Pointer(e))
	return append(to, at, at+cacheLine, at+2*cacheLine)
}

const cacheLine = 64

// warmLapses touches the conversations whose four-tuples become free.
func (s *Shard) warmLapses(next []timed[int32]) {
	var sum uint64
	for _, x := range next {
		sum += uint64(s.table.alarm(x.value).queued)
	}
	for _, x := range next {
		sl := s.table.slot(x.value)
		sum += sl.number + sl.key.hi
	}
	for _, x := range next {
		sl := s.table.slot(x.value)
		if sl.target == free {
			continue
		}
		c := s.table.index.cells[s.table.index.start(sl.key.hash())]
		sum += uint64(c.hash) + uint64(s.entries[sl.target].conversations)
	}
	s.warmth += sum
}

// fetch fetches a block.
func (p *blocks) fetch(b int32) {
	if b == 0 {
		return
	}
	at := uintptr(unsafe.Pointer(p.at(b)))
	prefetch([]uintptr{at, at + cacheLine, at + 2*cacheLine, at + 3*cacheLine})
}
