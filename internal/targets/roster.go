package targets

import (
	"fmt"
	"log/slog"
	"net/netip"
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

	engine   Engine
	metrics  *metrics.Metrics
	resolver Resolver
	log      *slog.Logger
	renamed  chan struct{} // the names have changed

	mu      sync.Mutex
	targets map[string]*target // by identity
	order   []*target          // as configured
	names   map[question]*name
	every   time.Duration // from one look-up of a name to the next
}

// A target is one line of the configuration.
type target struct {
	conf      config.Target
	name      *name // nil for an IP address
	instances instances
}

// New returns an empty roster.
func New(e Engine, m *metrics.Metrics, r Resolver, log *slog.Logger) *Roster {
	return &Roster{
		engine: e, metrics: m, resolver: r, log: log,
		renamed: make(chan struct{}, 1),
		targets: make(map[string]*target),
		names:   make(map[question]*name),
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
	targets := make(map[string]*target, len(list))
	names := make(map[question]*name)
	order := make([]*target, 0, len(list))
	for i := range list {
		conf := &list[i]
		id := identity(conf)
		if targets[id] != nil {
			ch.errs = append(ch.errs, fmt.Errorf("target %s: %w", conf.Address, metrics.ErrDuplicate))
			continue
		}
		t := &target{conf: *conf}
		targets[id], order = t, append(order, t)
		if old := r.targets[id]; old != nil {
			t.instances = old.instances
			if !sameOptions(&old.conf.Module, &conf.Module) {
				ch.changed = append(ch.changed, t)
			}
		}
		if !conf.IP.IsValid() {
			t.name = r.use(names, conf)
			if !t.name.asked {
				continue // until the answer it goes on as before
			}
		}
		t.instances = r.plan(&ch, t, t.instances)
	}
	for id, old := range r.targets {
		if targets[id] == nil {
			ch.drop(old.instances, nil)
		}
	}
	r.targets, r.order, r.names, r.every = targets, order, names, every
	r.gather()
	r.commit(&ch)
	select {
	case r.renamed <- struct{}{}:
	default:
	}
	return ch.errs
}

// gather tells the names in force who has them.
func (r *Roster) gather() {
	for _, n := range r.names {
		n.targets = nil
	}
	for _, t := range r.targets {
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
