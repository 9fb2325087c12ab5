package targets

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/probed/probed/config"
)

const (
	// lookupTimeout bounds one look-up.
	lookupTimeout = 5 * time.Second
	// lookups bounds how many run at once.
	lookups = 16
	// maxAddresses bounds how many addresses of one name are probed: what a
	// name server says is not what the configuration asked for.
	maxAddresses = 256
)

// Answers without an address that can be probed.
var (
	errNoUnicast = errors.New("no unicast address")
	errNoZone    = errors.New("only link-local addresses, which need the module to name its interface")
)

// A Resolver looks host names up, as net.Resolver does: network is "ip", "ip4"
// or "ip6", and the answers come in the order of RFC 6724 where it can tell.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A question is what a resolver is asked, and of whom: link-local addresses can
// only be probed by a module that names its interface.
type question struct {
	network, host string
	device        bool
}

// A name is a host name that targets have in common. It outlives a reload, with
// what is known of it and with its look-up that is under way.
type name struct {
	question
	targets []*target    // that have it, of the configuration in force
	asked   bool         // there was an answer, or none in time
	found   []netip.Addr // that can be probed
	addrs   []netip.Addr // of those, that are to be; empty: the name does not resolve
	failing bool         // the last look-up failed
	tooMany bool         // the last answer had more addresses than are probed, and all are wanted
	busy    bool         // a look-up is under way
	last    time.Time    // when that or the last one began

	forbidden int // of found, by the limits
}

// questionOf returns what to ask about a target's name.
func questionOf(t *config.Target) question {
	q := question{"ip", t.Host, t.Module.Interface != ""}
	switch t.Module.IPProtocol {
	case config.IP4:
		q.network = "ip4"
	case config.IP6:
		q.network = "ip6"
	}
	return q
}

// use puts a target's name among names, the one in force if there is one, and
// returns it.
func (r *Roster) use(names map[question]*name, t *config.Target) *name {
	q := questionOf(t)
	if names[q] == nil {
		names[q] = cmp.Or(r.names[q], &name{question: q})
	}
	return names[q]
}

// first returns the address to probe of a name with several: the one that was
// probed before, as long as it is among them.
func (n *name) first(before instances) netip.Addr {
	if in := before.of(""); in != nil && slices.Contains(n.addrs, in.engine.Remote.Addr()) {
		return in.engine.Remote.Addr()
	}
	return n.addrs[0]
}

// Run looks names up until ctx ends, each again and again.
func (r *Roster) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, lookups)
	for ctx.Err() == nil {
		queue, pause := r.due(time.Now())
		if len(queue) == 0 {
			select {
			case <-ctx.Done():
			case <-r.renamed:
			case <-time.After(pause):
			}
		}
		for len(queue) > 0 {
			select {
			case <-ctx.Done():
				queue = nil
			case <-r.renamed:
				queue = nil // of names that may be gone
			case slots <- struct{}{}:
				n := queue[0]
				queue = queue[1:]
				r.begin(n, time.Now())
				running.Go(func() {
					defer func() { <-slots }()
					r.lookup(ctx, n)
				})
			}
		}
	}
}

// due returns the names to look up now, those that have waited longest first,
// and how long until there are more.
func (r *Roster) due(now time.Time) (names []*name, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause = time.Hour
	for _, n := range r.names {
		wait := n.last.Add(r.every).Sub(now)
		if wait <= 0 && !n.busy {
			names = append(names, n)
			continue
		}
		if wait <= 0 {
			wait = r.every // its look-up takes longer than that
		}
		pause = min(pause, wait)
	}
	slices.SortFunc(names, func(a, b *name) int { return a.last.Compare(b.last) })
	return names, pause
}

// begin notes that a look-up is under way.
func (r *Roster) begin(n *name, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.busy, n.last = true, now
}

// lookup asks about a name and puts the answer in force.
func (r *Roster) lookup(ctx context.Context, n *name) {
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.resolver.LookupNetIP(bounded, n.network, n.host)
	if ctx.Err() != nil {
		return
	}
	r.answer(n, addrs, err)
}

// answer puts the answer about a name in force. A name that is known not to
// exist resolves to nothing; a look-up that merely failed leaves the addresses
// of the last one.
func (r *Roster) answer(n *name, addrs []netip.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.busy = false
	if r.names[n.question] != n {
		return // a reload has removed it
	}
	if addrs, err = n.whole(addrs, err); err == nil {
		addrs, err = usable(addrs, n.device)
	}
	switch {
	case err == nil:
		n.found = addrs
	case gone(err):
		n.found = nil
	}
	if why := r.sieve(n); err == nil {
		err = why
	}
	if err != nil {
		r.ResolveFailures.Add(1)
	}
	r.said(n, err)
	n.asked = true
	var ch change
	for _, t := range n.targets {
		r.plan(&ch, t)
	}
	r.finish(&ch)
}

// gone reports whether a look-up's error says that there is nothing to probe,
// and not merely that nothing could be learnt.
func gone(err error) bool {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.IsNotFound
	}
	// net gives an AddrError where a name has addresses, in /etc/hosts say, but
	// none of the network asked for.
	_, wrongNetwork := errors.AsType[*net.AddrError](err)
	return wrongNetwork || errors.Is(err, errNoUnicast) || errors.Is(err, errNoZone)
}

// atMost returns as many of a name's addresses as may be probed: those that are
// probed already, so that answers in another order change nothing, and then the
// first ones.
func (r *Roster) atMost(n *name, addrs []netip.Addr) []netip.Addr {
	if len(addrs) <= maxAddresses {
		n.tooMany = false
		return addrs
	}
	probed := make(map[netip.Addr]int, len(n.addrs))
	for _, a := range n.addrs {
		probed[a] = 1
	}
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return probed[b] - probed[a] })
	all := slices.ContainsFunc(n.targets, func(t *target) bool { return t.conf.Module.Resolve == config.ResolveAll })
	if all && !n.tooMany {
		r.log.Warn("host name has too many addresses: some are not probed", "host", n.host, "most", maxAddresses, "left_out", addrs[maxAddresses:])
	}
	n.tooMany = all
	return addrs[:maxAddresses]
}

// usable returns the addresses that can be probed, each once, or why there is
// none; device says whether the module names its interface.
func usable(addrs []netip.Addr, device bool) ([]netip.Addr, error) {
	var ok []netip.Addr
	seen := make(map[netip.Addr]bool, len(addrs))
	err := errNoUnicast
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case config.NotUnicast(a) != "" || seen[a]:
		case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" && !device:
			err = errNoZone
		default:
			seen[a] = true
			ok = append(ok, a)
		}
	}
	if len(ok) == 0 {
		return nil, err
	}
	return ok, nil
}
