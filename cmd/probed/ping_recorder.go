package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A pingRecorder books what the engine sees and hands it on to be shown. It is the
// shard's goroutine's, until that has ended.
type pingRecorder struct {
	tally  *ping.Tally
	out    *pingOutput
	left   uint64 // probes that have not come to their end
	enough func() // when none is left
	flows  bool

	unanswered []probe.Transcript // the last of them
	interval   time.Duration
}

// keptUnanswered is how many probes without an answer are kept until one may come: more
// than linger at any rate that limits allow a person.
const keptUnanswered = 1024

// Settled implements engine.Recorder.
func (r *pingRecorder) Settled(t *probe.Transcript) {
	r.tally.Settle(t, r.flows)
	r.out.put(pingEvent{transcript: t})
	r.tellLate(t, t)
	if reason, _, _ := t.Settled(); reason != probe.OK {
		if len(r.unanswered) == keptUnanswered {
			r.unanswered = slices.Delete(r.unanswered, 0, keptUnanswered/2)
		}
		r.unanswered = append(r.unanswered, t.Clone())
	}
	if r.left--; r.left == 0 {
		r.enough()
	}
}

// Record implements engine.Recorder: of what comes after the verdict, an answer is
// worth a line.
func (r *pingRecorder) Record(since *probe.Transcript) {
	i := slices.IndexFunc(r.unanswered, func(t probe.Transcript) bool { return t.Number == since.Number })
	if i < 0 {
		return
	}
	t := &r.unanswered[i]
	t.Extend(since)
	r.tellLate(t, since)
	r.unanswered = slices.Delete(r.unanswered, i, i+1)
}

// tellLate says so if a part of a transcript has an answer after the timeout.
func (r *pingRecorder) tellLate(t, part *probe.Transcript) {
	late := func(x probe.Record) bool { return x.Note == probe.NoteSYNACKLate }
	if slices.ContainsFunc(part.Records(), late) {
		r.out.put(pingEvent{transcript: t, late: true})
	}
}

// Observe implements engine.Sink.
func (r *pingRecorder) Observe(o *probe.Observation) { r.tally.Observe(o) }

// Trouble implements engine.Observer.
func (r *pingRecorder) Trouble(_ *engine.Target, err error) {
	r.out.put(pingEvent{ours: "this host keeps segments from leaving: " + err.Error(), grave: true})
}

// ClockStep implements engine.Observer.
func (r *pingRecorder) ClockStep(by time.Duration) {
	r.out.put(pingEvent{ours: clockStepError(by).Error(), grave: true})
}

// Skipped implements engine.Observer.
func (r *pingRecorder) Skipped(reason engine.SkipReason, probes int) {
	for range probes {
		r.tally.NotSent(reason.String())
	}
	why := map[engine.SkipReason]string{
		engine.SkipLate:      "this host was too busy to send it in time",
		engine.SkipRateLimit: "the limit of what is sent to one address was used up",
		engine.SkipNoPort:    "every source port is in a conversation",
		engine.SkipUnsent:    "SYNs before it still lie in this host, since no neighbour takes them",
	}[reason]
	what := "not sent"
	if probes > 1 {
		what = fmt.Sprintf("%d not sent", probes)
	}
	r.out.put(pingEvent{ours: fmt.Sprintf("%s: %s, %s", what, reason, why)})
}

// ScheduleDelay implements engine.Observer. A probe that went late is measured
// like any other, from when it left; it only shows what state this host is in.
func (r *pingRecorder) ScheduleDelay(d time.Duration) {
	if d > max(r.interval/2, 20*time.Millisecond) {
		r.out.put(pingEvent{ours: "sent " + show.FormatDuration(d.Round(time.Millisecond)) + " late: this host was busy, or the limit of what is sent to one address was used up"})
	}
}
