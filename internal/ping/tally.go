package ping

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/probed/probed/probe"
)

// A Tally is what all probes together were. Its memory does not grow with them
// beyond what Series says: for each figure 8 MiB. The zero value is empty.
type Tally struct {
	Probes    uint64 // with a verdict
	Failures  [probe.NumReasons]uint64
	Discarded [probe.NumDiscardReasons]uint64
	Skipped   map[string]uint64 // probes that were due and never made, by reason

	Late       uint64 // SYN-ACKs after the verdict
	Duplicates uint64 // further SYN-ACKs
	Rejected   [probe.NumRejectReasons]uint64
	FINAgain   [probe.NumSides]uint64 // FINs that went once more
	Forms      [probe.NumForms]uint64
	Answers    [probe.NumAnswers]uint64

	figures [probe.NumObservations]*Series
	flows   map[uint16]*flow // by source port
}

// A flow is one source port's share.
type flow struct {
	probes, failed, answered uint64
	min, max                 time.Duration // of the handshake
	sum                      float64       // ns
}

func (f *flow) mean() time.Duration { return time.Duration(f.sum / float64(max(f.answered, 1))) }

// measuredKinds are the figures that are summed up, in a conversation's order.
var measuredKinds = [...]probe.ObservationKind{probe.HandshakeRTT, probe.FINACKRTT, probe.CloseWaitTime, probe.PeerCloseTime,
	probe.LastACKRTT, probe.Teardown, probe.TimeWaitReuse, probe.TimeWaitLasted}

// Settle books a probe that has come to its end. flows says whether each source
// port has an account of its own.
func (t *Tally) Settle(tr *probe.Transcript, flows bool) {
	reason, discarded, _ := tr.Settled()
	if discarded != probe.NotDiscarded {
		t.Discarded[discarded]++
		return
	}
	t.Probes++
	if reason != probe.OK {
		t.Failures[reason]++
	}
	for _, f := range tr.Figures() {
		switch f.Kind {
		case probe.Teardown:
			t.Forms[f.Form]++
		case probe.TimeWaitReuse:
			t.Answers[f.Answer]++
		}
		if slices.Contains(measuredKinds[:], f.Kind) {
			t.Figure(f.Kind).Add(f.Duration)
		}
	}
	if flows {
		t.settleFlow(tr.Tuple.Local, tr, reason)
	}
}

func (t *Tally) settleFlow(local netip.AddrPort, tr *probe.Transcript, reason probe.Reason) {
	if !local.IsValid() {
		return
	}
	if t.flows == nil {
		t.flows = make(map[uint16]*flow)
	}
	f := t.flows[local.Port()]
	if f == nil {
		f = new(flow)
		t.flows[local.Port()] = f
	}
	f.probes++
	if reason != probe.OK {
		f.failed++
	}
	if o, ok := tr.Figure(probe.HandshakeRTT); ok {
		if d := o.Duration; f.answered == 0 {
			f.min, f.max = d, d
		} else {
			f.min, f.max = min(f.min, d), max(f.max, d)
		}
		f.answered++
		f.sum += float64(o.Duration)
	}
}

// Observe books what was seen beside a probe's verdict and figures.
func (t *Tally) Observe(o *probe.Observation) {
	switch o.Kind {
	case probe.SYNACKDuplicate:
		t.Duplicates++
	case probe.SYNACKLate:
		t.Late++
	case probe.Rejected:
		t.Rejected[o.Reject]++
	case probe.FINRetransmit:
		t.FINAgain[o.Side]++
	}
}

// NotSent books a probe that was due and never made.
func (t *Tally) NotSent(reason string) {
	if t.Skipped == nil {
		t.Skipped = make(map[string]uint64)
	}
	t.Skipped[reason]++
}

// Figure returns the durations of a kind.
func (t *Tally) Figure(k probe.ObservationKind) *Series {
	if t.figures[k] == nil {
		t.figures[k] = new(Series)
	}
	return t.figures[k]
}

// Failed is how many probes failed.
func (t *Tally) Failed() (n uint64) {
	for _, of := range t.Failures {
		n += of
	}
	return n
}

// Lost is how many probes have no verdict for a reason of ours, those apart that
// were under way when somebody stopped probing.
func (t *Tally) Lost() (n uint64) {
	for d, of := range t.Discarded {
		if probe.DiscardReason(d) != probe.DiscardShutdown {
			n += of
		}
	}
	return n
}

// Loss is the share of the probes that failed, of those with a verdict.
func (t *Tally) Loss() float64 {
	if t.Probes == 0 {
		return 0
	}
	return float64(t.Failed()) / float64(t.Probes)
}

// ports are the flows' source ports in order.
func (t *Tally) ports() []uint16 { return slices.Sorted(maps.Keys(t.flows)) }
