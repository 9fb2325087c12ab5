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
// one that does not exist is a verdict. may says why an address may not be probed for
// whoever asks: it is asked about the address that then is. An error means that there
// is no verdict: none of the addresses may be probed, the look-up failed, or ctx ended
// first.
func (r *Roster) Once(ctx context.Context, t *config.Target, may func(netip.Addr) error) (probe.Transcript, error) {
	addrs := []netip.Addr{t.IP}
	if !t.IP.IsValid() {
		var err error
		if addrs, err = r.resolve(ctx, t); err != nil {
			return probe.Transcript{}, fmt.Errorf("looking %s up: %w", t.Host, err)
		}
	}
	var addr netip.Addr // of a name that does not exist
	if len(addrs) > 0 {
		left, err := r.filter(addrs, may)
		if err != nil {
			return probe.Transcript{}, err
		}
		addr = left[0]
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

// resolve returns the addresses that can be probed of a target with a host name, none
// if there is none.
func (r *Roster) resolve(ctx context.Context, t *config.Target) ([]netip.Addr, error) {
	addrs, err := lookUp(ctx, r.resolver, t)
	if err != nil && gone(err) {
		return nil, nil
	}
	return addrs, err
}
