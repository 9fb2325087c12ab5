package engine

import (
	"net/netip"
	"time"
	"unique"

	"github.com/probed/probed/probe"
)

// A Target is what to probe and how. It does not change once it was added: a
// new address or interval is a new Target with the same ID and Sink.
type Target struct {
	ID       uint64         // stable identity; decides the phase and the jitter
	Remote   netip.AddrPort // invalid: its name does not resolve, and each probe fails as such
	Params   probe.Params
	SYN      unique.Handle[probe.Segment] // flags, window and options of the SYN; SEG.SEQ and TSval are filled in
	Send     string                       // what Params.Send counts
	Interval time.Duration
	Jitter   time.Duration // each probe is late by less than this, at random
	Source   netip.Addr    // invalid: as the host routes
	Device   string        // empty: as the host routes
	TTL      uint8         // 0: the host's default
	TOS      uint8
	FitMSS   bool   // the SYN's MSS is at most what the route's MTU has room for
	Direct   bool   // segments go to their next hop by a packet socket, where that can be
	Flows    int32  // more than 1: that many source ports, in turn
	Count    uint64 // more than 0: that many probes are made of it and no more, the first at once
	Sink     Sink
	Recorder Recorder // nil: no transcripts are made
}

// spent reports whether all probes of a target with a Count are made. It is in the
// schedule no more.
func (e *entry) spent() bool { return e.counted && e.probes >= e.Count }

// A Sink receives what is observed of a target, from its shard's goroutine. One that
// has ObserveAll(o []probe.Observation) and Ahead as well gets all that one event has
// told by one call of that.
//
// By Ahead(step int, to []uintptr) []uintptr a Sink or a Recorder adds the addresses of
// memory that it will need for the answer to a probe, a step of the way to it after the
// other, from 0 to AheadSteps-1: those of step 1 may follow from what lies at those of
// step 0. They are only fetched into the processor's caches, never read: so they may
// be wrong, or no more be anybody's.
type Sink interface {
	Observe(o *probe.Observation)
}

// AheadSteps is how many steps there are.
const AheadSteps = 3

// ahead is whatever has Ahead.
type ahead interface {
	Ahead(step int, to []uintptr) []uintptr
}

// A Recorder receives a target's transcripts, from its shard's goroutine. They are
// the shard's: copy one to keep it.
type Recorder interface {
	// Settled hands over each probe's transcript, once, when it has a verdict, or
	// none for a reason of ours, and nothing of it is open any more.
	Settled(t *probe.Transcript)
	// Record hands over what has come since, if anything has, when the four-tuple is
	// free, and some times before if that is long after: another transcript of the same
	// number, to Extend the first by.
	Record(since *probe.Transcript)
}

// An Observer receives what concerns probed itself, from its shard's goroutine.
type Observer interface {
	ScheduleDelay(d time.Duration) // due to sent
	Skipped(r SkipReason, probes int)

	// Trouble says what this host has against a target's segments, once until
	// it has something else against them or one leaves.
	Trouble(t *Target, err error)

	// ClockStep says that the clock which stamps packets was set.
	ClockStep(by time.Duration)
}

// SkipReason says why a probe was not sent at all.
type SkipReason uint8

// The skip reasons.
const (
	SkipLate      SkipReason = iota // the loop came round after the next probe was due
	SkipRateLimit                   // the limits left no room before the next probe was due
	SkipNoPort                      // every source port is in a conversation with this peer
	SkipUnsent                      // SYNs to this address still lie in this host
	NumSkipReasons
)

// String is the reason's label value.
func (r SkipReason) String() string {
	return [...]string{"late", "rate_limit", "no_port", "unsent"}[r]
}
