package metrics

import (
	"slices"
	"sync"

	"github.com/probed/probed/probe"
)

// A Target holds the aggregates of one target. Observe may be called while
// scrapes run.
type Target struct {
	metrics *Metrics
	labels  labelSet

	mu      sync.Mutex // uncontended but for a scrape's short copy
	n       counts
	rtt     histogram          // handshake
	closing *closing           // nil for half_open
	flows   map[uint16]history // by source port; nil where all serve one flow
}

// counts is what a scrape copies in one piece, so that its figures belong
// together.
type counts struct {
	probes     uint64
	failures   [probe.NumReasons]uint64
	discarded  [probe.NumDiscardReasons]uint64
	rejected   [probe.NumRejectReasons]uint64
	duplicates uint64
	late       uint64
	changes    [probe.NumTraits]uint64
	peer       probe.Fingerprint
	peerSeen   bool
	judged     bool // there has been a verdict
	success    bool // the last one
	kind       probe.Kind
	flows      int32
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

// Observe counts one observation. It does not allocate, except when a duration
// falls into a bucket that no earlier one reached.
func (t *Target) Observe(o *probe.Observation) {
	if o.Kind == probe.Reaction {
		t.metrics.self.reaction.observe(o.Duration)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch n := &t.n; o.Kind {
	case probe.Verdict:
		n.probes++
		n.judged, n.success = true, o.Reason == probe.OK
		if !n.success && int(o.Reason) < len(n.failures) {
			n.failures[o.Reason]++
		}
		t.bookFlow(o)
	case probe.Discarded:
		if int(o.Discard) < len(n.discarded) {
			n.discarded[o.Discard]++
		}
	case probe.Rejected:
		if int(o.Reject) < len(n.rejected) {
			n.rejected[o.Reject]++
		}
	case probe.HandshakeRTT:
		t.rtt.observe(o.Duration)
		t.bookFlow(o)
	case probe.PeerSeen:
		n.peerSeenAs(o.Peer)
	case probe.SYNACKDuplicate:
		n.duplicates++
	case probe.SYNACKLate:
		n.late++
	default:
		t.closing.observe(o)
	}
}

// load copies the counts of one moment.
func (t *Target) load(n *counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*n = t.n
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
	if t.n.flows != int32(o.Flows) || t.n.kind != o.Kind { // other ports, then
		t.flows = nil
	}
	t.n.kind, t.n.flows = o.Kind, int32(o.Flows)
	if t.rtt.bounds == nil || !slices.Equal(b.upper, t.rtt.bounds.upper) {
		t.rtt = newHistogram(b)
		t.closing.rebucket(b)
	}
	if t.closing.differs(o.Kind, o.Measure) {
		t.closing = newClosing(o.Kind, o.Measure, b)
	}
}
