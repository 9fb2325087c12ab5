package targets

import (
	"context"
	"errors"
	"net/netip"

	"github.com/probed/probed/config"
)

// Lookup returns the address to probe of a target with a host name: the first one
// of what the resolver says that is unicast and of the module's family.
func Lookup(ctx context.Context, resolver Resolver, t *config.Target) (netip.Addr, error) {
	addrs, err := lookUp(ctx, resolver, t)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// lookUp returns the addresses that can be probed of a target with a host name; without
// an error there is one.
func lookUp(ctx context.Context, resolver Resolver, t *config.Target) ([]netip.Addr, error) {
	q := questionOf(t)
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := resolver.LookupNetIP(bounded, q.network, q.host)
	if h, is := errors.AsType[*half](err); is && len(h.addrs) > 0 {
		addrs, err = h.addrs, nil // of the other family nothing is known
	}
	if err != nil {
		return nil, err
	}
	return usable(addrs, q.device)
}
