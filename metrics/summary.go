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
	n := &t.rtt.native
	all := make([]Bucket, 0, len(n.keys)+1)
	if n.zero > 0 {
		all = append(all, Bucket{Count: n.zero})
	}
	for i, key := range n.keys {
		all = append(all, Bucket{n.bound(key - 1), n.bound(key), n.counts[i]})
	}
	return all
}

// bound is the upper bound of the bucket with a key.
func (n *native) bound(key int16) time.Duration {
	return time.Duration(math.Exp2(float64(key)/float64(int(1)<<n.schema)) * float64(time.Second))
}
