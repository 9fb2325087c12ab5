package host_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestSourceAddressByRule probes peers that a rule leads to from one of the
// host's addresses only: from that one they answer, through its device; without
// a source there is no route, and no packet is sent.
func TestSourceAddressByRule(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Join(a, b)
	l.Join(a, b)
	b.Listen("tcp", "[::]:80")
	b.End(1).Address("198.18.200.1/32")
	b.End(1).Address("2001:db8:200::1/128")
	second := a.End(1)
	for _, command := range []string{
		"ip rule add from 198.18.1.1 lookup 100",
		"ip route add 198.18.200.1 via 198.18.1.2 table 100",
		"ip -6 rule add from 2001:db8:0:1::1 lookup 100",
		"ip -6 route add 2001:db8:200::1 via 2001:db8:0:1::2 table 100",
	} {
		words := strings.Fields(command)
		if out, err := a.Command(context.Background(), words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	captures := []*lab.Capture{
		a.Capture(t, a.End(0).Iface, "tcp", lab.Immediate),
		a.Capture(t, second.Iface, "tcp", lab.Immediate),
	}
	bound, free := newLedger(), newLedger()
	var targets []*engine.Target
	for i, tt := range []struct {
		remote string
		source netip.Addr
	}{
		{"198.18.200.1:80", second.Addr4},
		{"[2001:db8:200::1]:80", second.Addr6},
	} {
		remote := netip.MustParseAddrPort(tt.remote)
		with := target(uint64(2*i), remote, 50*time.Millisecond, time.Second, bound)
		with.Source = tt.source
		targets = append(targets, with, target(uint64(2*i+1), remote, 50*time.Millisecond, time.Second, free))
	}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	r.shard.Update(targets, nil)
	await(t, 10*time.Second, "probes", func() bool { return bound.settled() >= 40 && free.settled() >= 40 })
	r.end()
	n := bound.settled()
	if bound.verdicts[probe.OK] != n {
		t.Errorf("from the source: verdicts %v, discards %v", bound.verdicts, bound.discards)
	}
	if free.discards[probe.DiscardSendError] != free.settled() {
		t.Errorf("without a source: verdicts %v, discards %v", free.verdicts, free.discards)
	}
	for i, want := range []int{0, 3 * n} {
		if got := len(captures[i].Packets()); got != want {
			t.Errorf("%d packets on %s, want %d", got, a.End(i).Iface, want)
		}
	}
}
