package main

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	sd "github.com/prometheus/prometheus/discovery"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/metrics"
)

const (
	// addressesEvery is how often a host looks whether its addresses or routes have
	// changed, if it may be a mesh's node.
	addressesEvery = time.Second
	// reasonsSaid is how many of the reasons why discovered targets are left out
	// the log gives.
	reasonsSaid = 3
)

// discoveries are the jobs' that have any.
func discoveries(c *config.Config) map[string]sd.Configs {
	all := make(map[string]sd.Configs)
	for i := range c.Jobs {
		if j := &c.Jobs[i]; len(j.Discovery) > 0 {
			all[j.Name] = j.Discovery
		}
	}
	return all
}

// rediscover puts what is discovered by now in force.
func (d *daemon) rediscover() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expand()
}

// expand has the targets of the configuration in force probed: those that it
// names and those that are discovered. d.mu is held.
func (d *daemon) expand() {
	if err := d.addresses.refresh(); err != nil {
		d.log.Error("this host's addresses are not known: those of before count", "err", err)
	}
	all := d.config.Expand(d.discovery.Found())
	refused := d.roster.Apply(all.Targets, d.config.Global.ResolveInterval)
	d.targets = len(all.Targets) - len(refused)
	d.tell(&all, refused)
}

// probed returns how many targets there are.
func (d *daemon) probed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.targets
}

// A finding is what was said of what discovery found, to be said once.
type finding struct {
	invalid map[string]string // by job
	refused string
	over    int    // how many limits were exceeded
	outside string // the meshes that have nodes, of which this host is none
}

// tell says in the metrics how many targets each job discovered, and in the log,
// once, what is wrong with them.
func (d *daemon) tell(all *config.Expansion, refused []error) {
	var figures []metrics.Discovered
	invalid := make(map[string]string)
	for i, t := range all.Jobs {
		if len(d.config.Jobs[i].Discovery) == 0 {
			continue
		}
		figures = append(figures, metrics.Discovered{Job: t.Job, Targets: t.Discovered, Invalid: t.Invalid})
		if t.Invalid > 0 {
			invalid[t.Job] = reasons(all.Problems, t.Job)
		}
	}
	d.metrics.Discovery(figures)
	for _, t := range all.Jobs {
		if why := invalid[t.Job]; why != d.found.invalid[t.Job] && why != "" {
			d.log.Warn("discovered targets are not probed", "job", t.Job, "targets", t.Invalid, "of", t.Discovered, "why", why)
		}
	}
	said := ""
	if len(refused) > 0 {
		if said = show.SafeText(refused[0].Error()); said != d.found.refused {
			d.log.Error("targets are not probed", "targets", len(refused), "why", said)
		}
	}
	over := d.config.Global.Limits.Exceeded(all.Targets)
	if len(over) > d.found.over {
		d.log.Warn("the discovered targets exceed the limits: probes that do not fit are skipped", "why", strings.Join(over, "; "))
	}
	outside := outsiders(all)
	if outside != "" && outside != d.found.outside {
		d.log.Warn("no address of this host is among the nodes: it probes none of them", "jobs", outside)
	}
	d.found = finding{invalid, said, len(over), outside}
}

// outsiders are the jobs whose mesh has nodes, and not this host.
func outsiders(all *config.Expansion) string {
	var jobs []string
	for _, t := range all.Jobs {
		if t.Nodes > 0 && !t.Member {
			jobs = append(jobs, t.Job)
		}
	}
	return show.SafeText(strings.Join(jobs, ", "))
}

// reasons are those why some of a job's targets are left out, in one line.
func reasons(all []config.Problem, job string) string {
	var some []string
	for _, p := range all {
		if p.Job != job || len(some) == reasonsSaid {
			continue
		}
		some = append(some, show.SafeText(strings.TrimPrefix(p.String(), "job "+job+": ")))
	}
	return strings.Join(some, "; ")
}

// ownAddrs are this host's addresses, as last asked for.
type ownAddrs struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
}

// refresh asks for them.
func (o *ownAddrs) refresh() error {
	_, err := o.changed()
	return err
}

// changed asks for them and reports whether they are others than before.
func (o *ownAddrs) changed() (bool, error) {
	have, err := host.Addresses()
	if err != nil {
		return false, err
	}
	addrs := make(map[netip.Addr]bool, len(have))
	for _, a := range have {
		addrs[a] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	changed := !maps.Equal(addrs, o.addrs)
	o.addrs = addrs
	return changed, nil
}

// has reports whether an address is this host's.
func (o *ownAddrs) has(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.addrs[a]
}

// watchAddresses has a mesh divided again when this host's addresses change, until
// ctx ends. generation rises when they may have.
func (d *daemon) watchAddresses(ctx context.Context, generation func() uint64) {
	tick := time.NewTicker(addressesEvery)
	defer tick.Stop()
	for last := generation(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if g := generation(); g != last && meshed(d.running()) {
				last = g
				if changed, err := d.addresses.changed(); err == nil && changed {
					d.rediscover()
				}
			}
		}
	}
}

// meshed reports whether any job is a mesh.
func meshed(c *config.Config) bool {
	return slices.ContainsFunc(c.Jobs, func(j config.Job) bool { return j.Mesh.Peers > 0 })
}
