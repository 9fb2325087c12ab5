package targets

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
)

// Families is a Resolver that keeps apart what net's does not. Asked for both
// address families, that takes the error that comes last for the error of the
// whole: a name with IPv4 addresses only is gone when the question about these
// has failed and the answer about IPv6 comes after. And if one family's question
// fails it withholds the other's answer. So what has failed is asked again, a
// family at a time.
type Families struct{ Resolver }

// A half is a look-up that told of one family, and failed about the other.
type half struct {
	addrs []netip.Addr
	lacks string // ip4 or ip6
	err   error
}

func (h *half) Error() string { return h.err.Error() }
func (h *half) Unwrap() error { return h.err }

// LookupNetIP implements Resolver. Its error is a *half where that is known.
func (f Families) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := f.Resolver.LookupNetIP(ctx, network, host)
	if err == nil || network != "ip" {
		return addrs, err
	}
	families := [...]string{"ip4", "ip6"}
	var answers [len(families)][]netip.Addr
	var errs [len(families)]error
	var asking sync.WaitGroup
	for i := range families {
		asking.Go(func() { answers[i], errs[i] = f.Resolver.LookupNetIP(ctx, families[i], host) })
	}
	asking.Wait()
	for i, err := range errs {
		other := 1 - i
		switch {
		case err == nil || gone(err):
		case errs[other] == nil:
			return nil, &half{answers[other], families[i], err}
		default:
			return nil, err
		}
	}
	if all := slices.Concat(answers[0], answers[1]); len(all) > 0 {
		return all, nil
	}
	return nil, errs[0]
}

// whole completes a look-up that failed about one family by the addresses that
// were known of it.
func (n *name) whole(addrs []netip.Addr, err error) ([]netip.Addr, error) {
	h, is := errors.AsType[*half](err)
	if !is {
		return addrs, err
	}
	addrs = h.addrs
	for _, a := range n.found {
		if a.Is4() == (h.lacks == "ip4") {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}
