package host_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestStackedDevices probes a Linux listener from addresses of a bridge and of a
// macvlan, where the tap sees every segment once a layer. Each counts once, none
// is a duplicate, and the round-trip time is the one at the lowest layer: from
// the last stamp of the SYN that a capture shows to the first of the SYN-ACK.
func TestStackedDevices(t *testing.T) {
	const (
		probes = 200
		bias   = 2 * time.Microsecond // each tap reads the clock for itself
	)
	for _, tt := range []struct {
		name   string
		build  func(*lab.End)
		layers int
	}{
		{"bridge", (*lab.End).Bridge, 2},
		{"macvlan", (*lab.End).Macvlan, 2},
		{"macvlan on a bridge", func(e *lab.End) { e.Bridge(); e.Macvlan() }, 3},
	} {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s, IPv%d", tt.name, family), func(t *testing.T) {
				a, b := lab.Pair(t)
				tt.build(a.End(0))
				b.Listen("tcp", "[::]:80")
				addr := b.Addr4()
				if family == 6 {
					addr = b.Addr6()
				}
				capture := a.Capture(t, "any", "tcp port 80")
				books, o := newLedger(), newSelf()
				r := newRig(t, a, o, engine.Limits{Global: 1e6, PerAddress: 1e6})
				stats := &r.shard.Stats
				r.shard.Update([]*engine.Target{
					target(1, netip.AddrPortFrom(addr, 80), 10*time.Millisecond, time.Second, books),
				}, nil)
				await(t, 20*time.Second, "all probes", func() bool { return books.settled() >= probes })
				r.end()

				n := books.settled()
				if books.verdicts[probe.OK] != n || books.duplicates+books.late+len(books.rejects) > 0 {
					t.Errorf("%d probes: verdicts %v, discards %v, rejects %v, %d duplicates, %d late",
						n, books.verdicts, books.discards, books.rejects, books.duplicates, books.late)
				}
				if sent, received := stats.SegmentsSent.Load(), stats.SegmentsReceived.Load(); sent != uint64(2*n) || received != uint64(n) {
					t.Errorf("%d probes: %d segments sent and %d received, want %d and %d", n, sent, received, 2*n, n)
				}
				for reason, n := range o.skips() {
					if reason != engine.SkipLate { // a machine that is busy otherwise
						t.Errorf("%d skipped: %v", n, reason)
					}
				}
				packets := capture.Packets()
				if want := 3 * n * tt.layers; len(packets) != want {
					t.Errorf("the capture has %d packets, want %d: three a probe and layer", len(packets), want)
				}
				acc := compare(t, measured(books.transcripts), captured(t, packets))
				t.Log(acc)
				if acc.n != n {
					t.Errorf("%d round-trip times, want %d", acc.n, n)
				}
				if acc.median.Abs() > bias {
					t.Errorf("allowed: median bias %v", bias)
				}
			})
		}
	}
}

// TestDroppedBelow has the device below a bridge or a macvlan drop what the upper one has shown: the
// peer has failed in nothing. One that has never been there has, all the time.
func TestDroppedBelow(t *testing.T) {
	for name, build := range map[string]func(*lab.End){
		"bridge":              (*lab.End).Bridge,
		"macvlan":             (*lab.End).Macvlan,
		"macvlan on a bridge": func(e *lab.End) { e.Bridge(); e.Macvlan() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := lab.Pair(t)
			lower := a.Iface()
			build(a.End(0))
			b.Listen("tcp", "[::]:80")
			b.NFT("table inet silent { chain in { type filter hook input priority 0; tcp dport 81 drop; }; }")
			books, silent := newLedger(), newLedger()
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			r.shard.Update([]*engine.Target{
				target(1, netip.AddrPortFrom(b.Addr4(), 80), 20*time.Millisecond, 300*time.Millisecond, books),
				target(2, netip.AddrPortFrom(b.Addr4(), 81), 20*time.Millisecond, 300*time.Millisecond, silent),
			}, nil)
			more := func(what string, l *ledger, n int) {
				t.Helper()
				n += l.settled()
				await(t, 20*time.Second, what, func() bool { return l.settled() >= n })
			}
			more("answers", books, 25)
			a.NFT(fmt.Sprintf("table netdev below { chain c { type filter hook egress device %q priority 0; tcp dport { 80, 81 } drop; }; }", lower))
			more("what is dropped", books, 50)
			a.NFT("delete table netdev below")
			more("answers", books, 50)
			r.end()
			if n := books.settled(); books.verdicts[probe.OK] != n-books.discards[probe.DiscardSendError]-books.discards[probe.DiscardShutdown] || books.discards[probe.DiscardSendError] < 25 {
				t.Errorf("verdicts %v, discards %v", books.verdicts, books.discards)
			}
			if n := silent.settled(); silent.verdicts[probe.Timeout] != n-silent.discards[probe.DiscardShutdown] {
				t.Errorf("silent: verdicts %v, discards %v", silent.verdicts, silent.discards)
			}
		})
	}
}

// TestUplinkWithoutCarrier has a bridge lose its way to the targets, as a host of guests does when its cable is pulled or
// the switch is dead: the bridge is up, since a guest is in it, and shows what no device below it does. That is
// no rule and no queue of this host's.
func TestUplinkWithoutCarrier(t *testing.T) {
	for name, flood := range map[string]string{
		"goes to nobody else": "off", // so as in a bridge that keeps VLANs apart
		"goes to the guest":   "on",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			a, guest, between, b := l.Host("a"), l.Host("guest"), l.Host("switch"), l.Host("b")
			uplink, port := l.Join(a, between), l.Join(a, guest)
			down := l.Join(between, b)
			ip := func(h *lab.Host, lines ...string) {
				t.Helper()
				for _, line := range lines {
					if out, err := h.Command(t.Context(), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
						t.Fatalf("ip %s: %v: %s", line, err, out)
					}
				}
			}
			ip(between, "link add name bridge type bridge", "link set bridge up",
				"link set "+uplink.B.Iface+" master bridge", "link set "+down.A.Iface+" master bridge")
			ip(a, "link add name bridge type bridge", "link set bridge up",
				"link set "+uplink.A.Iface+" master bridge", "link set "+port.A.Iface+" master bridge",
				"link set "+port.A.Iface+" type bridge_slave flood "+flood,
				"addr flush dev "+uplink.A.Iface, "addr flush dev "+port.A.Iface, "addr add 198.18.99.1/24 dev bridge")
			a.Sysctl("net.ipv4.neigh.bridge.base_reachable_time_ms", "600000") // else it asks for b in the midst of it
			ip(b, "addr add 198.18.99.2/24 dev "+down.B.Iface)
			b.Listen("tcp", "0.0.0.0:80")
			books := newLedger()
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			r.shard.Update([]*engine.Target{
				target(1, netip.MustParseAddrPort("198.18.99.2:80"), 20*time.Millisecond, 300*time.Millisecond, books),
			}, nil)
			more := func(what string, n int) {
				t.Helper()
				n += books.settled()
				await(t, 20*time.Second, what, func() bool { return books.settled() >= n })
			}
			for range 2 {
				more("answers", 50)
				ip(between, "link set "+uplink.B.Iface+" down")
				more("silence", 150)
				ip(between, "link set "+uplink.B.Iface+" up")
				more("answers", 50)
			}
			r.end()
			if n := books.discards[probe.DiscardSendError]; n > 5 || books.verdicts[probe.Timeout] < 200 {
				t.Errorf("verdicts %v, discards %v", books.verdicts, books.discards)
			}
		})
	}
}
