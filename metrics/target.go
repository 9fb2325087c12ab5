package metrics

import (
	"slices"
	"sync"
	"unsafe"

	"github.com/probed/probed/probe"
)

// A Target holds the aggregates of one target. Observe may be called while
// scrapes run.
type Target struct {
	metrics *Metrics
	labels  labelSet

	mu      sync.Mutex // uncontended but for a scrape's short copy
	usual   usual
	rare    *rare              // nil as long as nothing of it has happened
	rtt     histogram          // handshake
	closing *closing           // nil for half_open
	flows   map[uint16]history // by source port; nil where all serve one flow
}

// counts is what a scrape copies in one piece, so that its figures belong
// together.
type counts struct {
	usual
	rare
}

// usual is what nearly every target has something of.
type usual struct {
	probes   uint64
	flows    int32
	kind     probe.Kind
	judged   bool // there has been a verdict
	success  bool // the last one
	peerSeen bool
	peer     probe.Fingerprint
}

// rare is what many a target has nothing of.
type rare struct {
	some       bool // has happened
	failures   [probe.NumReasons]uint64
	discarded  [probe.NumDiscardReasons]uint64
	rejected   [probe.NumRejectReasons]uint64
	duplicates uint64
	late       uint64
	changes    [probe.NumTraits]uint64
}

// TargetOptions are what may change while a target keeps its counters.
type TargetOptions struct {
	// Kind is how the target is probed, half_open if 0. Only what the kind can
	// observe is exported, and has memory.
	Kind probe.Kind
	// Measure is what a time_wait probe measures.
	Measure probe.Measure
	Flows   int // fixed source ports; probed_flows and probed_flows_failing are exported above 1
	// Buckets are the upper bounds of the classic buckets in seconds, rising.
	// Without any there are no classic buckets.
	Buckets []float64
}

// Observe counts one observation. It does not allocate, except when something happens
// for the first time: a failure, say, or a duration that falls into a bucket which no
// earlier one reached.
func (t *Target) Observe(o *probe.Observation) {
	if o.Kind == probe.Reaction {
		t.metrics.self.reaction.observe(o.Duration)
		return
	}
	t.mu.Lock()
	t.book(o)
	t.mu.Unlock()
}

// ObserveAll is Observe for what one event has told.
func (t *Target) ObserveAll(all []probe.Observation) {
	if len(all) == 1 && all[0].Kind == probe.Reaction { // as our kernel's RST tells no more
		t.metrics.self.reaction.observe(all[0].Duration)
		return
	}
	reactions := 0
	t.mu.Lock()
	for i := range all {
		if all[i].Kind == probe.Reaction {
			reactions++
		} else {
			t.book(&all[i])
		}
	}
	t.mu.Unlock()
	for i := 0; reactions > 0; i++ {
		if all[i].Kind == probe.Reaction {
			reactions--
			t.metrics.self.reaction.observe(all[i].Duration)
		}
	}
}

// Ahead adds the addresses of what an answer will be booked in, as engine.Sink says.
func (t *Target) Ahead(step int, to []uintptr) []uintptr {
	switch step {
	case 0:
		at := uintptr(unsafe.Pointer(t))
		return append(to, at, at+64, at+unsafe.Sizeof(*t)-1)
	case 1:
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.rtt.ahead(to)
	}
	return to
}

// book counts an observation of the target. t.mu is held.
func (t *Target) book(o *probe.Observation) {
	switch o.Kind {
	case probe.Verdict:
		n := &t.usual
		n.probes++
		n.judged, n.success = true, o.Reason == probe.OK
		if !n.success && int(o.Reason) < probe.NumReasons {
			t.rarely().failures[o.Reason]++
		}
		t.bookFlow(o)
	case probe.HandshakeRTT:
		t.rtt.observe(o.Duration)
		t.bookFlow(o)
	case probe.PeerSeen:
		t.sees(&o.Peer)
	case probe.Discarded:
		if int(o.Discard) < probe.NumDiscardReasons {
			t.rarely().discarded[o.Discard]++
		}
	case probe.Rejected:
		if int(o.Reject) < probe.NumRejectReasons {
			t.rarely().rejected[o.Reject]++
		}
	case probe.SYNACKDuplicate:
		t.rarely().duplicates++
	case probe.SYNACKLate:
		t.rarely().late++
	default:
		t.closing.observe(o)
	}
}

// rarely returns the target's rare. t.mu is held.
func (t *Target) rarely() *rare {
	if t.rare == nil {
		t.rare = &rare{some: true}
	}
	return t.rare
}

// load copies the counts of one moment.
func (t *Target) load(n *counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.usual = t.usual
	if t.rare != nil {
		n.rare = *t.rare
	} else {
		n.rare = rare{}
	}
}

// closes reports whether the target is probed in a way that closes connections.
func (t *Target) closes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closing != nil
}

// loadClosing copies those of the closing, and reports whether there is one.
func (t *Target) loadClosing(n *closeCounts) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing == nil {
		return false
	}
	*n = t.closing.n
	return true
}

// copyInterval copies a histogram of the closing, and reports whether there is
// such a one.
func (t *Target) copyInterval(i interval, dst *histogram) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing == nil || t.closing.intervals[i] == nil {
		return false
	}
	t.closing.intervals[i].copyTo(dst)
	return true
}

// configure sets what the options say. It keeps the counters; the histograms
// start again if the classic buckets differ, because counts can't move between
// buckets, and the closing does if the kind of probe differs. t.mu is held, or
// nobody else knows t yet.
func (t *Target) configure(o TargetOptions, b *bounds) {
	n := &t.usual
	if n.flows != int32(o.Flows) || n.kind != o.Kind { // other ports, then
		t.flows = nil
	}
	n.kind, n.flows = o.Kind, int32(o.Flows)
	if t.rtt.bounds == nil || !slices.Equal(b.upper, t.rtt.bounds.upper) {
		t.rtt = newHistogram(b)
		t.closing.rebucket(b)
	}
	if t.closing.differs(o.Kind, o.Measure) {
		t.closing = newClosing(o.Kind, o.Measure, b)
	}
}
