package ping

import (
	"maps"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// SummaryJSON is what all probes together were: the object "summary" that ends the
// output of `probed ping --json`. Fields are added to, not changed; one that has no
// value is absent.
type SummaryJSON struct {
	Target   string       `json:"target"`           // host:port as it was asked for
	Remote   string       `json:"remote"`           // the address:port that was probed
	Probe    string       `json:"probe"`            // the kind
	Duration show.Seconds `json:"duration_seconds"` // from the start to the end

	Probes    uint64            `json:"probes"` // with a verdict
	OK        uint64            `json:"ok"`
	Failed    uint64            `json:"failed"`
	LossRatio float64           `json:"loss_ratio"`          // failed of probes, 0 without any
	Failures  map[string]uint64 `json:"failures,omitempty"`  // by reason, as probed_probe_failures_total
	Discarded map[string]uint64 `json:"discarded,omitempty"` // ours, without a verdict: by reason, as probed_probes_discarded_total
	Skipped   map[string]uint64 `json:"skipped,omitempty"`   // ours, never sent: by reason, as probed_probes_skipped_total

	LateAnswers      uint64            `json:"late_answers,omitempty"`      // SYN-ACKs after the timeout
	Duplicates       uint64            `json:"synack_duplicates,omitempty"` // further SYN-ACKs
	Rejected         map[string]uint64 `json:"rejected,omitempty"`          // segments not believed, by reason
	FINRetransmits   map[string]uint64 `json:"fin_retransmits,omitempty"`   // by side: local, peer
	Teardowns        map[string]uint64 `json:"teardowns,omitempty"`         // by form
	TimeWaitReuse    map[string]uint64 `json:"time_wait_reuse,omitempty"`   // by answer
	HandshakeRTT     *FigureJSON       `json:"handshake_rtt_seconds,omitempty"`
	FINACKRTT        *FigureJSON       `json:"fin_ack_rtt_seconds,omitempty"`
	CloseWait        *FigureJSON       `json:"close_wait_seconds,omitempty"`
	PeerClose        *FigureJSON       `json:"peer_close_seconds,omitempty"`
	LastACKRTT       *FigureJSON       `json:"last_ack_rtt_seconds,omitempty"`
	Teardown         *FigureJSON       `json:"teardown_seconds,omitempty"`
	TimeWaitReuseRTT *FigureJSON       `json:"time_wait_reuse_rtt_seconds,omitempty"`
	TimeWaitMax      *FigureJSON       `json:"time_wait_max_seconds,omitempty"`
	Flows            []FlowJSON        `json:"flows,omitempty"` // with --flows above 1, by source port
}

// FigureJSON is how the durations of one figure are spread, in seconds.
type FigureJSON struct {
	Count uint64       `json:"count"`
	Min   show.Seconds `json:"min"`
	P50   show.Seconds `json:"p50"`
	P90   show.Seconds `json:"p90"`
	P99   show.Seconds `json:"p99"`
	Max   show.Seconds `json:"max"`
	// Jitter is the mean absolute difference of consecutive durations.
	Jitter    show.Seconds `json:"jitter"`
	Exact     bool         `json:"exact"` // else the quantiles are, to 0.05 %
	Histogram []BinJSON    `json:"histogram"`
}

// BinJSON is how many durations lie from From on and below To.
type BinJSON struct {
	From  show.Seconds  `json:"from"`
	To    *show.Seconds `json:"to,omitempty"` // absent in one without an end
	Count uint64        `json:"count"`
}

// FlowJSON is one source port's share.
type FlowJSON struct {
	Port      uint16        `json:"port"`
	Probes    uint64        `json:"probes"`
	Failed    uint64        `json:"failed"`
	LossRatio float64       `json:"loss_ratio"`
	Min       *show.Seconds `json:"handshake_rtt_min_seconds,omitempty"`
	Mean      *show.Seconds `json:"handshake_rtt_mean_seconds,omitempty"`
	Max       *show.Seconds `json:"handshake_rtt_max_seconds,omitempty"`
}

// JSON returns the summary for encoding/json.
func (t *Tally) JSON(of *Target, took time.Duration) SummaryJSON {
	failed := t.Failed()
	j := SummaryJSON{
		Target: of.Name, Remote: of.Remote.String(), Probe: of.Kind.String(), Duration: show.Seconds(took),
		Probes: t.Probes, OK: t.Probes - failed, Failed: failed, LossRatio: t.Loss(),
		Failures: byName(t.Failures[:], probe.Reason.String), Discarded: byName(t.Discarded[:], probe.DiscardReason.String),
		Skipped: maps.Clone(t.Skipped), LateAnswers: t.Late, Duplicates: t.Duplicates,
		Rejected:       byName(t.Rejected[:], probe.RejectReason.String),
		FINRetransmits: byName(t.FINAgain[:], probe.Side.String),
		Teardowns:      byName(t.Forms[:], probe.Form.String), TimeWaitReuse: byName(t.Answers[:], probe.Answer.String),
		HandshakeRTT: t.figureJSON(probe.HandshakeRTT), FINACKRTT: t.figureJSON(probe.FINACKRTT),
		CloseWait: t.figureJSON(probe.CloseWaitTime), PeerClose: t.figureJSON(probe.PeerCloseTime),
		LastACKRTT: t.figureJSON(probe.LastACKRTT), Teardown: t.figureJSON(probe.Teardown),
		TimeWaitReuseRTT: t.figureJSON(probe.TimeWaitReuse), TimeWaitMax: t.figureJSON(probe.TimeWaitLasted),
	}
	if j.Target == "" {
		j.Target = j.Remote
	}
	for _, port := range t.ports() {
		j.Flows = append(j.Flows, t.flows[port].json(port))
	}
	return j
}

func (f *flow) json(port uint16) FlowJSON {
	j := FlowJSON{Port: port, Probes: f.probes, Failed: f.failed, LossRatio: float64(f.failed) / float64(f.probes)}
	if f.answered > 0 {
		least, mean, most := show.Seconds(f.min), show.Seconds(f.mean()), show.Seconds(f.max)
		j.Min, j.Mean, j.Max = &least, &mean, &most
	}
	return j
}

func (t *Tally) figureJSON(k probe.ObservationKind) *FigureJSON {
	s := t.figures[k]
	if s == nil || s.Count() == 0 {
		return nil
	}
	q := func(i int) show.Seconds { return show.Seconds(s.Quantile(quantiles[i].q)) }
	j := &FigureJSON{
		Count: s.Count(), Min: show.Seconds(s.Min()), P50: q(0), P90: q(1), P99: q(2), Max: show.Seconds(s.Max()),
		Jitter: show.Seconds(s.Jitter()), Exact: s.Exact(),
	}
	for _, b := range s.Bins() {
		bin := BinJSON{From: show.Seconds(b.From), Count: b.Count}
		if b.To > 0 {
			to := show.Seconds(b.To)
			bin.To = &to
		}
		j.Histogram = append(j.Histogram, bin)
	}
	return j
}

// byName counts by name what there is more than none of.
func byName[T ~uint8](counts []uint64, name func(T) string) map[string]uint64 {
	var all map[string]uint64 // absent if there is none
	for i, n := range counts {
		if n > 0 && i > 0 {
			if all == nil {
				all = make(map[string]uint64)
			}
			all[name(T(i))] = n
		}
	}
	return all
}
