package targets

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

const (
	// linger is how long a conversation claims its four-tuple after the
	// verdict: long enough for the SYN-ACKs that Linux retransmits after 1 s
	// and 3 s to be known for what they are.
	linger = 4 * time.Second
	// resetGrace is how long our kernel has to reset a SYN-ACK. It takes
	// microseconds, or it never will.
	resetGrace = 50 * time.Millisecond
)

// An instance is what the engine probes of a target and where that is booked: one,
// or one an address with resolve: all.
type instance struct {
	engine   *engine.Target
	metrics  *metrics.Target
	recorder *recorder.Recorder
}

// instances are a target's, by their ip label.
type instances map[string]*instance

// A change collects what is to happen to the engine and the metrics.
type change struct {
	add, remove []*engine.Target
	dead        []*metrics.Target
	changed     []*target // their metrics have other options
	errs        []error
}

// plan gives a target the instances that it is to have.
func (r *Roster) plan(ch *change, t *target) {
	before := t.instances
	if in := before[""]; in != nil && t.name == nil && len(before) == 1 { // as most are, in most lists
		before[""] = ch.place(in, &t.conf, "", t.conf.IP)
		return
	}
	after := make(instances)
	for ip, addr := range t.wanted(before) {
		in := before[ip]
		if in == nil {
			m, err := r.metrics.AddTarget(labels(&t.conf, ip), options(&t.conf.Module))
			if err != nil {
				ch.errs = append(ch.errs, err)
				continue
			}
			in = &instance{metrics: m, recorder: new(recorder.Recorder)}
		}
		after[ip] = ch.place(in, &t.conf, ip, addr)
	}
	ch.drop(before, after)
	t.instances = after
}

// place has the engine probe an instance of a target.
func (ch *change) place(in *instance, t *config.Target, ip string, addr netip.Addr) *instance {
	want := Probing(t, ip, addr)
	want.Sink, want.Recorder = in.metrics, in.recorder
	if in.engine != nil {
		if *in.engine == want {
			return in
		}
		ch.remove = append(ch.remove, in.engine)
	}
	e := want // which the heap has only now
	ch.add = append(ch.add, &e)
	return &instance{&e, in.metrics, in.recorder}
}

// drop ends the instances that are not in after.
func (ch *change) drop(before, after instances) {
	for ip, in := range before {
		if after[ip] == nil {
			ch.remove = append(ch.remove, in.engine)
			ch.dead = append(ch.dead, in.metrics)
		}
	}
}

// commit carries a change out.
func (r *Roster) commit(ch *change) {
	if len(ch.add)+len(ch.remove) > 0 {
		r.engine.Update(ch.add, ch.remove)
	}
	for _, m := range ch.dead {
		r.metrics.RemoveTarget(m)
	}
	for _, t := range ch.changed {
		for _, in := range t.instances {
			if err := r.metrics.Reconfigure(in.metrics, options(&t.conf.Module)); err != nil {
				r.log.Error("cannot change a target's buckets", "target", t.conf.Address, "err", err)
			}
		}
	}
}

// identity is what makes a target the same one across a reload: what its series
// are labelled with. Quotes keep apart what only looks alike when joined.
func identity(t *config.Target) string { return string(appendIdentity(nil, t)) }

func appendIdentity(b []byte, t *config.Target) []byte {
	for _, s := range []string{t.Job, t.Address, t.Module.Name} {
		b = strconv.AppendQuote(b, s)
	}
	for _, l := range t.Labels {
		b = strconv.AppendQuote(b, l.Name)
		b = strconv.AppendQuote(b, l.Value)
	}
	return b
}

// labels are those of an instance's series.
func labels(t *config.Target, ip string) metrics.Labels {
	l := metrics.Labels{Job: t.Job, Target: t.Address, Module: t.Module.Name, IP: ip, Extra: make(map[string]string)}
	for _, own := range t.Labels {
		l.Extra[own.Name] = own.Value
	}
	return l
}

// options are those of a module's series.
func options(m *config.Module) metrics.TargetOptions {
	return metrics.TargetOptions{Kind: m.Probe, Measure: m.Measure, Flows: m.Flows, Buckets: m.Buckets}
}

// sameOptions reports whether two modules have the same options.
func sameOptions(a, b *config.Module) bool {
	return a.Probe == b.Probe && a.Measure == b.Measure && a.Flows == b.Flows && slices.Equal(a.Buckets, b.Buckets)
}

// idOf is the same for a target in every process.
func idOf(t *config.Target, ip string) uint64 {
	var space [256]byte
	h := fnv.New64a()
	h.Write(append(appendIdentity(space[:0], t), ip...))
	return h.Sum64()
}

// Probing is how the engine is to probe a target at an address, the zero Addr for a
// name that does not resolve, less where that is booked.
func Probing(t *config.Target, ip string, addr netip.Addr) engine.Target {
	m := &t.Module
	e := engine.Target{
		ID:       idOf(t, ip),
		Params:   m.Params(),
		Send:     string(m.Send),
		SYN:      probe.Segment{Flags: probe.SYN, Window: m.Window, Options: m.Options(addr)},
		Interval: t.Interval,
		Jitter:   t.Jitter,
		Flows:    m.Flows,
		Source:   m.SourceAddress,
		Device:   m.Interface,
		TTL:      m.TTL,
		TOS:      m.TOS,
		Direct:   m.Packet,
	}
	e.Params.Linger, e.Params.IPv6 = linger, addr.Is6()
	if m.Probe == probe.HalfOpen {
		e.Params.ResetGrace = resetGrace // else the port is guarded, and our kernel keeps quiet
	}
	if addr.IsValid() {
		e.Remote = netip.AddrPortFrom(addr, t.Port)
	}
	if m.TCPOptions.ECN {
		// "an ECN-setup SYN packet": RFC 3168 §6.1.1.
		e.SYN.Flags |= probe.ECE | probe.CWR
	}
	return e
}
