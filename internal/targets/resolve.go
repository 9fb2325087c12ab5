package targets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/probed/probed/config"
)

const (
	// lookupTimeout bounds one look-up.
	lookupTimeout = 5 * time.Second
	// lookups bounds how many run at once.
	lookups = 16
)

// A Resolver looks host names up, as net.Resolver does: network is "ip", "ip4"
// or "ip6", and the answers come in the order of RFC 6724 where it can tell.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A question is what a resolver is asked.
type question struct{ network, host string }

// A name is a host name that targets have in common.
type name struct {
	question
	targets []*target
	asked   bool         // there was an answer, or none in time
	addrs   []netip.Addr // that can be probed; empty: the name does not resolve
	failing bool         // the last look-up failed
	busy    bool         // a look-up is under way
	due     time.Time    // of the next one
}

// use returns the name of a target, with what is known of it already.
func (r *Roster) use(names map[question]*name, t *config.Target) *name {
	network := "ip"
	switch t.Module.IPProtocol {
	case config.IP4:
		network = "ip4"
	case config.IP6:
		network = "ip6"
	}
	q := question{network, t.Host}
	n := names[q]
	if n == nil {
		n = &name{question: q}
		if old := r.names[q]; old != nil {
			n.asked, n.addrs, n.failing = old.asked, old.addrs, old.failing
			if !old.busy { // else its answer will find nobody
				n.due = old.due
			}
		}
		names[q] = n
	}
	return n
}

// first returns the address to probe of a name with several: the one that was
// probed before, as long as it is among them.
func (n *name) first(before instances) netip.Addr {
	if in := before[""]; in != nil && slices.Contains(n.addrs, in.engine.Remote.Addr()) {
		return in.engine.Remote.Addr()
	}
	return n.addrs[0]
}

// Run looks names up until ctx ends, each again and again.
func (r *Roster) Run(ctx context.Context) {
	slots := make(chan struct{}, lookups)
	for {
		next := time.Hour
		for n := range r.due(time.Now(), &next) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-slots }()
				r.lookup(ctx, n)
			}()
		}
		select {
		case <-ctx.Done():
			return
		case <-r.renamed:
		case <-time.After(next):
		}
	}
}

// due returns the names to look up now, and in next how long until more are.
func (r *Roster) due(now time.Time, next *time.Duration) map[*name]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[*name]struct{})
	for _, n := range r.names {
		if soon := now.Add(r.every); n.due.After(soon) {
			n.due = soon // a reload has shortened the interval
		}
		switch wait := n.due.Sub(now); {
		case n.busy && wait <= 0: // for longer than the interval: look again later
			*next = min(*next, r.every)
		case wait <= 0:
			n.busy, n.due = true, now.Add(r.every)
			names[n] = struct{}{}
			*next = min(*next, r.every)
		default:
			*next = min(*next, wait)
		}
	}
	return names
}

// lookup asks about a name and puts the answer in force.
func (r *Roster) lookup(ctx context.Context, n *name) {
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.resolver.LookupNetIP(bounded, n.network, n.host)
	if ctx.Err() != nil {
		return
	}
	r.answer(n, usable(addrs), err)
}

// answer puts the answer about a name in force. A name that is known not to
// exist resolves to nothing; a look-up that merely failed leaves the addresses
// of the last one.
func (r *Roster) answer(n *name, addrs []netip.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.busy = false
	if r.names[n.question] != n {
		return // a reload has taken its place
	}
	var dns *net.DNSError
	gone := errors.As(err, &dns) && dns.IsNotFound || err == nil && len(addrs) == 0
	if err == nil && gone {
		err = errors.New("no unicast address")
	}
	if err != nil {
		r.ResolveFailures.Add(1)
	}
	if failing := err != nil; failing != n.failing || !n.asked {
		n.failing = failing
		if failing {
			r.log.Warn("host name does not resolve", "host", n.host, "err", err)
		} else if n.asked {
			r.log.Info("host name resolves again", "host", n.host, "addresses", addrs)
		}
	}
	n.asked = true
	if err == nil || gone {
		n.addrs = addrs
	}
	var ch change
	for _, t := range n.targets {
		t.instances = r.plan(&ch, t, t.instances)
	}
	for _, err := range ch.errs {
		r.log.Error("cannot add a target", "err", err)
	}
	r.commit(&ch)
}

// usable returns the addresses that can be probed, each once.
func usable(addrs []netip.Addr) []netip.Addr {
	var ok []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		broadcast := a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
		if !a.IsMulticast() && !a.IsUnspecified() && !broadcast && !slices.Contains(ok, a) {
			ok = append(ok, a)
		}
	}
	return ok
}
