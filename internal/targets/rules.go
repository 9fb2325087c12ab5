package targets

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/config"
)

// Permit puts the limits in force that say which addresses may be probed, also among
// those that names are known to have: what they forbid is probed no more when it
// returns.
func (r *Roster) Permit(l *config.Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = l
	var ch change
	for _, n := range r.names {
		if len(n.found) == 0 {
			continue
		}
		r.said(n, r.sieve(n))
		for _, t := range n.targets {
			r.plan(&ch, t)
		}
	}
	r.finish(&ch)
}

// finish carries out a change that concerns names, and says what cannot be.
func (r *Roster) finish(ch *change) {
	for _, err := range ch.errs {
		r.log.Error("cannot add a target", "err", err)
	}
	r.commit(ch)
}

// sieve gives a name those of its addresses that may be probed. Its error says why
// there is none.
func (r *Roster) sieve(n *name) error {
	was := n.forbidden
	may := make([]netip.Addr, 0, len(n.found))
	n.forbidden = 0
	var err error
	for _, a := range n.found {
		if why := r.limits.Refusal(a); why != "" {
			n.forbidden++
			if err == nil {
				err = errors.New(why)
			}
			continue
		}
		may = append(may, a)
	}
	r.Forbidden.Add(int64(n.forbidden - was))
	n.addrs = r.atMost(n, may)
	if len(may) > 0 {
		if n.forbidden > 0 && was == 0 {
			r.log.Warn("host name has addresses that are not probed", "host", n.host, "of", len(n.found), "addresses", n.forbidden, "why", err)
		}
		return nil
	}
	return err
}

// said says that a name has stopped or begun to give something to probe.
func (r *Roster) said(n *name, err error) {
	if failing := err != nil; failing != n.failing || !n.asked {
		n.failing = failing
		if failing {
			r.log.Warn("host name does not resolve", "host", n.host, "err", err)
		} else if n.asked {
			r.log.Info("host name resolves again", "host", n.host, "addresses", n.addrs)
		}
	}
}

// A census is which addresses and ports are probed, at some time.
type census struct {
	of    uint64 // the roster's changes then
	until time.Time
	addrs map[netip.AddrPort]struct{}
}

// censusPart bounds what counting takes of a processor, however often targets change
// and somebody asks: there is a new census after so many times what the last one took.
const censusPart = 20

// onLink is an address of one host: a link-local one has the link as its zone, which is
// the module's interface if it names none. The same on another link is another host's.
func onLink(a netip.Addr, device string) netip.Addr {
	switch a = a.Unmap(); {
	case a.Is4():
	case !a.IsLinkLocalUnicast():
		a = a.WithZone("")
	case a.Zone() == "":
		a = a.WithZone(device)
	}
	return a
}

// Probes reports whether targets of the list in force have an address and port, as
// written or as their names resolve. A list that changes all the time may be a moment old.
func (r *Roster) Probes(a netip.AddrPort) bool {
	a = netip.AddrPortFrom(onLink(a.Addr(), ""), a.Port())
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.census.addrs == nil || r.census.of != r.changes && !now.Before(r.census.until) {
		addrs := make(map[netip.AddrPort]struct{}, len(r.census.addrs))
		for _, t := range r.order {
			for _, in := range t.instances {
				if remote := in.engine.Remote; remote.IsValid() {
					addrs[netip.AddrPortFrom(onLink(remote.Addr(), in.engine.Device), remote.Port())] = struct{}{}
				}
			}
		}
		took := time.Since(now)
		r.census = census{r.changes, now.Add(censusPart * took), addrs}
	}
	_, probed := r.census.addrs[a]
	return probed
}

// Names reports whether targets of the list in force have a host name and port.
func (r *Roster) Names(host string, port uint16) bool {
	host = strings.TrimSuffix(host, ".")
	return r.asks(host, port) || r.asks(host+".", port)
}

func (r *Roster) asks(host string, port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, network := range []string{"ip", "ip4", "ip6"} {
		for _, device := range []bool{false, true} {
			n := r.names[question{network, host, device}]
			if n != nil && slices.ContainsFunc(n.targets, func(t *target) bool { return t.conf.Port == port }) {
				return true
			}
		}
	}
	return false
}

// filter keeps the addresses that may be probed, by the limits in force and for whoever
// asks. Its error says why there is none.
func (r *Roster) filter(addrs []netip.Addr, may func(netip.Addr) error) ([]netip.Addr, error) {
	r.mu.Lock()
	limits := r.limits
	r.mu.Unlock()
	var first error
	ok := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		err := may(a)
		if why := limits.Refusal(a); err == nil && why != "" {
			err = errors.New(why)
		}
		if err != nil && first == nil {
			first = err
		}
		return err != nil
	})
	if len(ok) == 0 {
		return nil, first
	}
	return ok, nil
}
