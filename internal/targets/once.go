package targets

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// retryAfter is how long after a probe that the limits or the source ports have no
// room for the next attempt is made.
const retryAfter = 100 * time.Millisecond

// A once is a probe that somebody waits for.
type once struct {
	engine.Recorder // gets the transcript as well, if not nil
	settled         chan probe.Transcript
}

// Settled implements engine.Recorder.
func (o *once) Settled(t *probe.Transcript) {
	if o.Recorder != nil {
		o.Recorder.Settled(t)
	}
	select {
	case o.settled <- t.Clone():
	default: // a conversation is settled once, and there is one
	}
}

// Record implements engine.Recorder.
func (o *once) Record(t *probe.Transcript) {
	if o.Recorder != nil {
		o.Recorder.Record(t)
	}
}

// Observe implements engine.Sink: what is observed is in the transcript.
func (o *once) Observe(*probe.Observation) {}

// Once probes a target that need not be configured, one time, within the limits,
// and returns its transcript. It is booked nowhere. A host name is looked up first;
// one that does not exist is a verdict. An error means that there is none: the
// look-up failed, or ctx ended first.
func (r *Roster) Once(ctx context.Context, t *config.Target) (probe.Transcript, error) {
	addr := t.IP
	if !addr.IsValid() {
		var err error
		if addr, err = r.resolve(ctx, t); err != nil {
			return probe.Transcript{}, fmt.Errorf("looking %s up: %w", t.Host, err)
		}
	}
	o := &once{settled: make(chan probe.Transcript, 1)}
	e := Probing(t, "", addr)
	e.Sink, e.Recorder = o, o
	return r.wait(ctx, &e, o)
}

// Now probes a configured target one time more. The probe is booked like the
// others.
func (r *Roster) Now(ctx context.Context, v *View) (probe.Transcript, error) {
	o := &once{Recorder: v.Recorder, settled: make(chan probe.Transcript, 1)}
	e := *v.engine
	e.Recorder = o
	return r.wait(ctx, &e, o)
}

// wait has the engine make one probe and waits for what becomes of it.
func (r *Roster) wait(ctx context.Context, e *engine.Target, o *once) (probe.Transcript, error) {
	e.Count, e.Interval, e.Jitter = 1, retryAfter, 0
	r.engine.Update([]*engine.Target{e}, nil)
	defer r.engine.Update(nil, []*engine.Target{e})
	select {
	case t := <-o.settled:
		return t, nil
	case <-ctx.Done():
		return probe.Transcript{}, fmt.Errorf("the probe is not over: %w", context.Cause(ctx))
	}
}

// resolve returns the address to probe of a target with a host name, the zero Addr
// if there is none.
func (r *Roster) resolve(ctx context.Context, t *config.Target) (netip.Addr, error) {
	addr, err := Lookup(ctx, r.resolver, t)
	if err != nil && gone(err) {
		return netip.Addr{}, nil
	}
	return addr, err
}
