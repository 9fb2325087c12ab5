package targets

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unique"

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
	ip       string // the label
	engine   *engine.Target
	metrics  *metrics.Target
	recorder recorder.Recorder
}

// instances are a target's: nearly always one.
type instances []*instance

// of returns that of an ip label, nil without.
func (all instances) of(ip string) *instance {
	for _, in := range all {
		if in.ip == ip {
			return in
		}
	}
	return nil
}

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
	if in := before.of(""); in != nil && t.name == nil && len(before) == 1 { // as most are, in most lists
		ch.place(in, &t.conf, t.conf.IP)
		return
	}
	after := t.room[:0:1]
	if len(before) > 0 {
		after = nil // that is before's
	}
	for ip, addr := range t.wanted(before) {
		in := before.of(ip)
		if in == nil {
			m, err := r.metrics.AddTarget(labels(&t.conf, ip), options(t.conf.Module))
			if err != nil {
				ch.errs = append(ch.errs, err)
				continue
			}
			if in = &t.first; in.metrics != nil { // what books there may not be through
				in = new(instance)
			}
			in.ip, in.metrics = ip, m
		}
		ch.place(in, &t.conf, addr)
		after = append(after, in)
	}
	ch.drop(before, after)
	t.instances = after
}

// place has the engine probe an instance of a target.
func (ch *change) place(in *instance, t *config.Target, addr netip.Addr) {
	want := Probing(t, in.ip, addr)
	want.Sink, want.Recorder = in.metrics, &in.recorder
	if in.engine != nil {
		if *in.engine == want {
			return
		}
		ch.remove = append(ch.remove, in.engine)
	}
	e := want // which the heap has only now
	ch.add = append(ch.add, &e)
	in.engine = &e
}

// drop ends the instances that are not in after.
func (ch *change) drop(before, after instances) {
	for _, in := range before {
		if after.of(in.ip) == nil {
			ch.remove = append(ch.remove, in.engine)
			ch.dead = append(ch.dead, in.metrics)
		}
	}
}

// commit carries a change out.
func (r *Roster) commit(ch *change) {
	if len(ch.add)+len(ch.remove) > 0 {
		r.changes++
		r.engine.Update(ch.add, ch.remove)
	}
	for _, m := range ch.dead {
		r.metrics.RemoveTarget(m)
	}
	for _, t := range ch.changed {
		for _, in := range t.instances {
			if err := r.metrics.Reconfigure(in.metrics, options(t.conf.Module)); err != nil {
				r.log.Error("cannot change a target's buckets", "target", t.conf.Address, "err", err)
			}
		}
	}
}

// same reports whether a target is another one across a reload: whether its series
// are labelled alike.
func same(a, b *config.Target) bool {
	return a.Address == b.Address && a.Job == b.Job && a.Module.Name == b.Module.Name && slices.Equal(a.Labels, b.Labels)
}

// appendIdentity writes what same compares. Quotes keep apart what only looks alike when
// joined.
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
	m := t.Module
	syn := probe.Segment{Flags: probe.SYN, Window: m.Window, Options: m.Options(addr)}
	if m.TCPOptions.ECN {
		// "an ECN-setup SYN packet": RFC 3168 §6.1.1.
		syn.Flags |= probe.ECE | probe.CWR
	}
	e := engine.Target{
		ID:       idOf(t, ip),
		Params:   m.Params(),
		FitMSS:   m.MSS == 0,
		Send:     string(m.Send),
		SYN:      unique.Make(syn),
		Interval: t.Interval,
		Jitter:   t.Jitter,
		Source:   m.SourceAddress,
		Device:   m.Interface,
		TTL:      m.TTL,
		TOS:      m.TOS,
		Flows:    int32(m.Flows),
		Direct:   m.Packet,
	}
	e.Params.Linger, e.Params.IPv6 = linger, addr.Is6()
	if m.Probe == probe.HalfOpen {
		e.Params.ResetGrace = resetGrace // else the port is guarded, and our kernel keeps quiet
	}
	if addr.IsValid() {
		e.Remote = netip.AddrPortFrom(addr, t.Port)
	}
	return e
}
