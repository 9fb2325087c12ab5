package host_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// The interface has less room than Ethernet's, from the beginning or for a while: what the peer sends in
// segments above that the interface drops, unless it was told of it.
func TestInterfaceWithLittleRoom(t *testing.T) {
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) { request(c, 100); say(c, 1390) }) // in one segment, which veth doesn't let by as several
	narrow := func(mtu string) {
		if out, err := a.Command(t.Context(), "ip", "link", "set", a.Iface(), "mtu", mtu).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	narrow("1300")
	books := newLedger()
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	for i, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		x := closing(uint64(i), netip.AddrPortFrom(addr, 80), probe.Params{Kind: probe.PassiveClose, Timeout: 900 * time.Millisecond, Send: 100, IPv6: i == 1}, books)
		x.FitMSS = true
		r.shard.Update([]*engine.Target{x}, nil)
	}
	more := func(n int) {
		t.Helper()
		n += books.settled()
		await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= n })
	}
	more(20)
	for range 3 {
		narrow("1500")
		more(10)
		narrow("1300")
		more(10)
	}
	r.end()
	if n := books.settled(); books.verdicts[probe.OK]+books.discards[probe.DiscardSendError]+books.discards[probe.DiscardShutdown] != n ||
		books.verdicts[probe.OK] < n*3/4 {
		t.Errorf("verdicts %v, discards %v", books.verdicts, books.discards)
	}
}
