package targets

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe/engine"
)

// An Engine is who probes.
type Engine interface {
	Update(add, remove []*engine.Target)
}

// A Roster is the list of targets in force. Its methods may be called from any
// goroutine.
type Roster struct {
	// ResolveFailures counts look-ups that gave no address to probe.
	ResolveFailures atomic.Uint64
	// Forbidden is how many addresses, of those that names have, the limits forbid.
	Forbidden atomic.Int64

	engine   Engine
	metrics  *metrics.Metrics
	resolver Resolver
	log      *slog.Logger
	renamed  chan struct{} // the names have changed

	mu      sync.Mutex
	targets map[uint64]*target // by hash
	order   []*target          // as configured
	names   map[question]*name
	every   time.Duration // from one look-up of a name to the next
	round   uint64        // counts Apply
	limits  *config.Limits
	changes uint64 // counts those of what is probed
	census  census
	hash    func(*config.Target) uint64
}

// A target is one line of the configuration, or what discovery has found.
type target struct {
	conf      config.Target
	name      *name // nil for an IP address
	instances instances
	round     uint64  // the last one that had it
	twin      *target // another one with this one's hash

	// Room for an only instance.
	first instance
	room  [1]*instance
}

// apiece is how many targets are handled in a row. After as many, the engine's loop
// may go first: a long list would keep the processors from it.
const apiece = 64

// New returns an empty roster.
func New(e Engine, m *metrics.Metrics, r Resolver, log *slog.Logger) *Roster {
	return &Roster{
		engine: e, metrics: m, resolver: r, log: log,
		renamed: make(chan struct{}, 1),
		targets: make(map[uint64]*target),
		hash:    func(t *config.Target) uint64 { return idOf(t, "") },
		names:   make(map[question]*name),
		limits:  new(config.Limits),
	}
}

// Apply puts a list of targets in force, whose names are looked up every so often.
// Targets that stay keep their counters, their place in the schedule and their
// conversations. One that can't be, because its series would be another's, is left
// out; the errors say which and why.
func (r *Roster) Apply(list []config.Target, every time.Duration) (refused []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ch change
	names := make(map[question]*name)
	before := r.order
	r.order = make([]*target, 0, len(list))
	r.round++
	for i := range list {
		if i%apiece == 0 {
			runtime.Gosched()
		}
		r.take(&ch, names, &list[i])
	}
	for _, t := range before {
		if t.round != r.round {
			r.forget(t)
			ch.drop(t.instances, nil)
		}
	}
	for q, n := range r.names {
		if names[q] == nil {
			r.Forbidden.Add(-int64(n.forbidden))
		}
	}
	r.names, r.every = names, every
	r.gather()
	r.commit(&ch)
	select {
	case r.renamed <- struct{}{}:
	default:
	}
	return ch.errs
}

// take puts one target of a list in force.
func (r *Roster) take(ch *change, names map[question]*name, conf *config.Target) {
	hash := r.hash(conf)
	t := r.targets[hash]
	for t != nil && !same(&t.conf, conf) {
		t = t.twin
	}
	switch {
	case t == nil:
		t = &target{twin: r.targets[hash]}
		r.targets[hash] = t
	case t.round == r.round:
		ch.errs = append(ch.errs, fmt.Errorf("target %s: %w", conf.Address, metrics.ErrDuplicate))
		return
	case !sameOptions(t.conf.Module, conf.Module):
		ch.changed = append(ch.changed, t)
	}
	t.conf, t.round, t.name = *conf, r.round, nil
	r.order = append(r.order, t)
	if !conf.IP.IsValid() {
		t.name = r.use(names, conf)
		if !t.name.asked {
			return // until the answer it goes on as before
		}
	}
	r.plan(ch, t)
}

// forget takes a target out of the list.
func (r *Roster) forget(t *target) {
	hash := r.hash(&t.conf)
	if first := r.targets[hash]; first != t {
		for first.twin != t {
			first = first.twin
		}
		first.twin = t.twin
	} else if r.targets[hash] = t.twin; t.twin == nil {
		delete(r.targets, hash)
	}
}

// gather tells the names in force who has them.
func (r *Roster) gather() {
	for _, n := range r.names {
		n.targets = nil
	}
	for _, t := range r.order {
		if t.name != nil {
			t.name.targets = append(t.name.targets, t)
		}
	}
}

// wanted returns the addresses to probe by the label that tells them apart.
func (t *target) wanted(before instances) map[string]netip.Addr {
	switch {
	case t.name == nil:
		return map[string]netip.Addr{"": t.conf.IP}
	case len(t.name.addrs) == 0:
		return map[string]netip.Addr{"": {}}
	case t.conf.Module.Resolve == config.ResolveAll:
		all := make(map[string]netip.Addr, len(t.name.addrs))
		for _, a := range t.name.addrs {
			all[a.String()] = a
		}
		return all
	}
	return map[string]netip.Addr{"": t.name.first(before)}
}
