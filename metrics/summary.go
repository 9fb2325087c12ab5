package metrics

import (
	"math"
	"time"

	"github.com/probed/probed/probe"
)

// A Summary is what a target's counters say at one moment, for those who read it
// without Prometheus.
type Summary struct {
	Probes     uint64 // with a verdict
	Failures   [probe.NumReasons]uint64
	Discarded  [probe.NumDiscardReasons]uint64
	Rejected   [probe.NumRejectReasons]uint64
	Duplicates uint64 // SYN-ACKs
	Late       uint64
	Judged     bool // there has been a verdict
	Success    bool // the last one
}

// Failed is how many probes failed.
func (s *Summary) Failed() (n uint64) {
	for _, f := range s.Failures {
		n += f
	}
	return n
}

// Summary returns the target's counters.
func (t *Target) Summary() Summary {
	var n counts
	t.load(&n)
	return Summary{
		Probes: n.probes, Failures: n.failures, Discarded: n.discarded, Rejected: n.rejected,
		Duplicates: n.duplicates, Late: n.late, Judged: n.judged, Success: n.success,
	}
}

// A Bucket is one of a histogram's: how many values were above Lower and at most
// Upper.
type Bucket struct {
	Lower, Upper time.Duration
	Count        uint64
}

// HandshakeRTTs returns the native histogram of the handshake's round trips since
// the target was added, rising, without empty buckets. Each bound is the one above
// it less 9 %, or more if the values span many octaves.
func (t *Target) HandshakeRTTs() []Bucket {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := &t.rtt
	all := make([]Bucket, 0, len(h.native())+1)
	if h.zero > 0 {
		all = append(all, Bucket{Count: h.zero})
	}
	for _, c := range h.native() {
		all = append(all, Bucket{h.bound(c.key() - 1), h.bound(c.key()), c.count()})
	}
	return all
}

// bound is the upper bound of the native bucket with a key.
func (h *histogram) bound(key int16) time.Duration {
	return time.Duration(math.Exp2(float64(key)/float64(int(1)<<h.schema)) * float64(time.Second))
}
