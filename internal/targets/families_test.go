package targets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// A server answers by the network asked for.
type server map[string]answered

type answered struct {
	addrs []netip.Addr
	err   error
}

func (s server) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	a := s[network]
	return a.addrs, a.err
}

// What net's resolver makes of two families' answers is not all that there is to
// know: a failure about one is neither an answer nor a reason to forget the
// other's.
func TestFamilies(t *testing.T) {
	v4, v6 := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("2001:db8::2")
	old4, old6 := netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("2001:db8::9")
	none := answered{err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	fails := answered{err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
	has := func(a ...netip.Addr) answered { return answered{addrs: a} }
	for _, tt := range []struct {
		what           string
		asked          string
		both, ip4, ip6 answered
		want           []netip.Addr
		gone, failing  bool
	}{
		{"both answer", "ip", has(v6, v4), fails, fails, []netip.Addr{v6, v4}, false, false},
		{"neither has it", "ip", none, none, none, nil, true, true},
		{"called gone, since the answer that has nothing came last", "ip", none, fails, none, nil, false, true},
		{"the same the other way round", "ip", none, none, fails, nil, false, true},
		{"both fail", "ip", fails, fails, fails, nil, false, true},
		{"one fails for ever", "ip", fails, has(v4), fails, []netip.Addr{v4, old6}, false, false},
		{"the other does", "ip", fails, fails, has(v6), []netip.Addr{v6, old4}, false, false},
		{"it was over at the second time", "ip", fails, has(v4), has(v6), []netip.Addr{v4, v6}, false, false},
		{"and one has nothing", "ip", fails, has(v4), none, []netip.Addr{v4}, false, false},
		{"one family is all that is asked for", "ip4", fails, fails, has(v6), nil, false, true},
		{"it has nothing of that", "ip6", has(v4), has(v4), none, nil, true, true},
	} {
		n := &name{found: []netip.Addr{old4, old6}}
		s := server{"ip": tt.both, "ip4": tt.ip4, "ip6": tt.ip6}
		addrs, err := n.whole(Families{s}.LookupNetIP(t.Context(), tt.asked, "x.test"))
		if !slices.Equal(addrs, tt.want) || (err != nil) != tt.failing || gone(err) != tt.gone {
			t.Errorf("%s: %v, %v", tt.what, addrs, err)
		}
	}
	h := &half{err: fails.err}
	if !errors.Is(h, fails.err) || h.Error() != fails.err.Error() {
		t.Error("the error is not what failed")
	}
}
