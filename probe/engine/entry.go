package engine

import (
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
)

// An entry is a target in the schedule. What each of its probes needs comes first, and
// lies together.
type entry struct {
	slot          probe.Instant // the scheduled moment
	interval      time.Duration
	peer          *peer // nil: its name does not resolve
	manner        *manner
	generation    uint64 // of the route
	sent          uint64 // probes sent, to take the flows in turn
	before        uint64 // of them, to other addresses
	index         int32  // its number
	conversations int32  // that are in the table
	asked         bool   // for the route
	reached       bool   // local is a source that it had
	throttled     bool   // it waits for the limit per address
	prompt        bool   // the peer is to be asked for the acknowledgement of a FIN
	guarded       bool   // its probes leave from guarded ports
	scheduled     bool
	gone          bool
	jitters       bool
	counted       bool  // there is a Count
	flows         bool  // more than one
	waits         bool  // for room beside the schedule
	lowest        int32 // the interface by which what it has answered last left last; 0: unknown

	due      probe.Instant // slot and jitter
	hop      uint64        // 0: as the host routes
	recorder aheadRecorder
	sink     aheadSink
	local    int32 // the source address: an index of table.locals
	ifindex  int32
	between  uint64 // what the addresses add to a checksum

	remote       netip.AddrPort
	resetsUnseen bool // reported
	resetsItself bool // the last RST of our kernel was not seen leaving in time: one of ours is to go
	hindered     bool // so was that going past the firewall hinders them
	rejects      bool // so was that the firewall rejects what comes
	troubled     bool // there is a trouble

	probes uint64 // made, those of them that could not be sent included, if counted
	id     uint64
	*Target
	route   route
	trouble *string // what kept its last SYN here, as reported, if troubled

	known     probe.Instant // since when lowest is
	reachedAt probe.Instant // when what it has answered last left
}

// An aheadSink is a Sink that takes all that an event has told in one call, and names
// the memory that it will need for it.
type aheadSink interface {
	ObserveAll(o []probe.Observation)
	ahead
}

// each hands them to a Sink that does not, one by one.
type each struct{ Sink }

// ObserveAll implements aheadSink.
func (s each) ObserveAll(o []probe.Observation) {
	for i := range o {
		s.Observe(&o[i])
	}
}

// Ahead implements aheadSink.
func (each) Ahead(_ int, to []uintptr) []uintptr { return to }

// sinkOf makes a Sink an aheadSink.
func sinkOf(s Sink) aheadSink {
	if m, ok := s.(aheadSink); ok {
		return m
	}
	return each{s}
}

// An aheadRecorder names the memory that it will need.
type aheadRecorder interface {
	Recorder
	ahead
}

// unknown is a Recorder that does not.
type unknown struct{ Recorder }

// Ahead implements aheadRecorder.
func (unknown) Ahead(_ int, to []uintptr) []uintptr { return to }

// recorderOf makes a Recorder an aheadRecorder.
func recorderOf(r Recorder) aheadRecorder {
	switch r := r.(type) {
	case nil:
		return nil
	case aheadRecorder:
		return r
	}
	return unknown{r}
}

// enter makes an entry for a target.
func (s *Shard) enter(t *Target) *entry {
	e := &entry{
		Target: t, manner: s.manners.use(t, t.SYN), guarded: t.Params.Kind != probe.HalfOpen,
		interval: t.Interval, id: t.ID, jitters: t.Jitter > 0, counted: t.Count > 0, flows: t.Flows > 1, remote: t.Remote, sink: sinkOf(t.Sink), recorder: recorderOf(t.Recorder),
	}
	if n := len(s.spare); n > 0 {
		e.index, s.spare = s.spare[n-1], s.spare[:n-1]
		s.entries[e.index] = e
	} else {
		e.index = int32(len(s.entries))
		s.entries = append(s.entries, e)
	}
	return e
}

// letGo frees the number of an entry once its target is gone and neither the schedule
// nor a conversation names it any more.
func (s *Shard) letGo(e *entry) {
	if e.gone && !e.scheduled && e.conversations == 0 {
		s.entries[e.index] = nil
		s.spare = append(s.spare, e.index)
		s.manners.unuse(e.manner)
	}
}
