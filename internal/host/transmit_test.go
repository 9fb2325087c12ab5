package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// command runs a line on a host.
func command(t testing.TB, h *lab.Host, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := h.Command(context.Background(), words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// firewall counts the SYNs that a host's firewall sees leaving: those of raw
// sockets.
func firewall(t testing.TB, h *lab.Host) (count func() int) {
	t.Helper()
	h.NFT("add table inet count\n" +
		"add chain inet count out { type filter hook output priority 0; }\n" +
		"add rule inet count out tcp flags syn counter\n")
	packets := regexp.MustCompile(`packets (\d+)`)
	return func() int {
		t.Helper()
		m := packets.FindStringSubmatch(command(t, h, "nft list chain inet count out"))
		if m == nil {
			t.Fatal("no counter")
		}
		n, _ := strconv.Atoi(m[1])
		return n
	}
}

// straight returns a target whose segments go straight to their next hop.
func straight(id uint64, remote netip.AddrPort, books *ledger) *engine.Target {
	x := target(id, remote, 20*time.Millisecond, time.Second, books)
	x.Direct = true
	return x
}

// troubles keeps what is said of them.
type troubles struct {
	*self
	mu   sync.Mutex
	said []string
}

func (o *troubles) Trouble(_ *engine.Target, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = append(o.said, err.Error())
}

// TestPacketTransmit probes Linux listeners on the link, behind a router and at a
// link-local address, over a veth, a bridge and a macvlan, past our own firewall:
// every probe is answered, reset once by our kernel, and measured as a capture has
// it; only the first SYN to a neighbour goes by raw socket.
func TestPacketTransmit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(*lab.End)
	}{{"veth", func(*lab.End) {}}, {"bridge", (*lab.End).Bridge}, {"macvlan", (*lab.End).Macvlan}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const probes = 300
			l := lab.New(t)
			a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
			l.Join(a, b)
			l.Join(b, c)
			b.Forward()
			tt.build(a.End(0))
			for _, h := range []*lab.Host{b, c} {
				h.Listen("tcp", "[::]:80")
			}
			for _, via := range []struct {
				h      *lab.Host
				prefix string
				addr   netip.Addr
			}{
				{a, "198.18.1.0/24", b.End(0).Addr4}, {a, "2001:db8:0:1::/64", b.End(0).Addr6},
				{c, "198.18.0.0/24", b.End(1).Addr4}, {c, "2001:db8::/64", b.End(1).Addr6},
			} {
				via.h.Route(via.prefix, via.addr)
			}
			b.End(0).Address("fe80::b/64")
			a.End(0).Address("fe80::a/64")
			passed := firewall(t, a)
			capture := a.Capture(t, "any", "tcp port 80")
			books, linkLocal, o := newLedger(), newLedger(), &troubles{self: newSelf()}
			targets := []*engine.Target{
				straight(9, netip.AddrPortFrom(netip.MustParseAddr("fe80::b").WithZone(a.Iface()), 80), linkLocal),
			}
			for i, remote := range []netip.Addr{b.Addr4(), b.Addr6(), c.Addr4(), c.Addr6()} {
				targets = append(targets, straight(uint64(i), netip.AddrPortFrom(remote, 80), books))
			}
			r := newRig(t, a, o, engine.Limits{Global: 1e6, PerAddress: 1e6})
			r.shard.Update(targets, nil)
			await(t, 20*time.Second, "probes", func() bool { return books.settled() >= probes })
			r.end()
			n := books.settled() + linkLocal.settled()
			for _, l := range []*ledger{books, linkLocal} {
				if l.verdicts[probe.OK] != l.settled() || l.duplicates+l.late+len(l.rejects) > 0 {
					t.Errorf("%d probes: verdicts %v, discards %v, rejects %v, %d duplicates, %d late",
						l.settled(), l.verdicts, l.discards, l.rejects, l.duplicates, l.late)
				}
			}
			if len(o.said) > 0 {
				t.Errorf("troubles %q", o.said)
			}
			// Where a machine stands still for longer than our kernel's RST may take, a second one goes.
			if sent := int(r.shard.Stats.SegmentsSent.Load()); sent < 2*n || sent > 2*n+n/100 {
				t.Errorf("%d segments sent by %d probes", sent, n)
			}
			// A round of targets before each neighbour is known, and a few that keep it so.
			if raw := passed(); raw == 0 || raw > n/8 {
				t.Errorf("%d of %d SYNs by raw socket", raw, n)
			}
			t.Log(compare(t, measured(books.transcripts), captured(t, capture.Packets())))
		})
	}
}

// TestPacketTransmitToItself probes this host, which a packet socket cannot.
func TestPacketTransmitToItself(t *testing.T) {
	t.Parallel()
	a, _ := lab.Pair(t)
	a.Listen("tcp", "[::]:80")
	books := newLedger()
	var targets []*engine.Target
	for i, remote := range []netip.Addr{a.Addr4(), a.Addr6(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		targets = append(targets, straight(uint64(i), netip.AddrPortFrom(remote, 80), books))
	}
	passed := firewall(t, a)
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	before := passed() // the self-test's
	r.shard.Update(targets, nil)
	await(t, 10*time.Second, "probes", func() bool { return books.settled() >= 100 })
	r.end()
	if books.verdicts[probe.OK] != books.settled() {
		t.Errorf("verdicts %v, discards %v", books.verdicts, books.discards)
	}
	if syns := passed() - before; syns < 2*books.settled() { // each is answered by another
		t.Errorf("%d SYNs and SYN-ACKs passed the firewall, of %d probes", syns, books.settled())
	}
}

// TestPacketTransmitBehindFirewall probes past a firewall that lets in answers to
// what it has seen leaving only. It has not seen these: our kernel resets nothing,
// which is noticed, said once, and ended by going through the firewall.
func TestPacketTransmitBehindFirewall(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	a.NFT("add table inet lab\n" +
		"add chain inet lab input { type filter hook input priority 0; policy drop; }\n" +
		"add rule inet lab input iif lo accept\n" +
		"add rule inet lab input meta l4proto { icmp, icmpv6 } accept\n" +
		"add rule inet lab input ct state established,related accept\n")
	passed := firewall(t, a)
	books, o := newLedger(), &troubles{self: newSelf()}
	r := newRig(t, a, o, engine.Limits{Global: 1e6, PerAddress: 1e6})
	// Neighbours that are known, so that the first SYN goes past the firewall.
	for _, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		if _, err := a.Dial("tcp", netip.AddrPortFrom(addr, 80).String(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	before := passed()
	r.shard.Update([]*engine.Target{
		straight(1, netip.AddrPortFrom(b.Addr4(), 80), books),
		straight(2, netip.AddrPortFrom(b.Addr6(), 80), books),
	}, nil)
	await(t, 10*time.Second, "probes", func() bool { return books.settled() >= 200 })
	r.end()
	if books.verdicts[probe.OK] != books.settled() {
		t.Errorf("verdicts %v, discards %v", books.verdicts, books.discards)
	}
	if len(o.said) != 2 || !strings.Contains(o.said[0], "transmit: raw") || o.said[1] != o.said[0] {
		t.Errorf("said %q", o.said)
	}
	// Those that left within the 50 ms that our kernel is given are past it.
	if raw := passed() - before; raw < books.settled()-20 {
		t.Errorf("%d of %d SYNs through the firewall in the end", raw, books.settled())
	}
}

// TestPacketTransmitFollowsTheHost probes while neighbours are forgotten, change
// their link address and fail, and while the route moves to another device. What
// leaves is what would have left by raw socket.
func TestPacketTransmitFollowsTheHost(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Join(a, b)
	l.Join(a, b)
	b.AnyIP("198.18.64.0/24", "2001:db8:64::/64")
	b.Listen("tcp", "[::]:80")
	move := func(joint int) {
		a.Route("198.18.64.0/24", b.End(joint).Addr4)
		a.Route("2001:db8:64::/64", b.End(joint).Addr6)
	}
	move(0)
	captures := []*lab.Capture{
		a.Capture(t, a.End(0).Iface, "tcp", lab.Immediate),
		a.Capture(t, a.End(1).Iface, "tcp", lab.Immediate),
	}
	books := newLedger()
	var targets []*engine.Target
	for i := range 10 {
		for family, text := range []string{"198.18.64.%d", "2001:db8:64::%x"} {
			addr := netip.MustParseAddr(fmt.Sprintf(text, i+1))
			x := straight(uint64(2*i+family), netip.AddrPortFrom(addr, 80), books)
			x.Params.Timeout = timeout
			targets = append(targets, x)
		}
	}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	r.shard.Update(targets, nil)
	more := func(n int) {
		t.Helper()
		n += books.count()[probe.OK]
		await(t, 10*time.Second, "answers", func() bool { return books.count()[probe.OK] >= n })
	}
	lost := func() int { return books.settled() - books.count()[probe.OK] }
	more(100)
	for range 5 {
		command(t, a, "ip neigh flush dev "+a.End(0).Iface)
		more(100)
	}
	time.Sleep(timeout)
	if n := lost(); n > 0 {
		t.Errorf("%d probes lost while neighbours were forgotten", n)
	}
	// b's address changes, and b says so to whoever it asks for theirs.
	command(t, b, "ip link set "+b.End(0).Iface+" address 02:00:00:00:00:77")
	command(t, b, "ip neigh flush dev "+b.End(0).Iface)
	if conn, err := b.Dial("tcp", netip.AddrPortFrom(a.Addr4(), 9).String(), time.Second); err == nil {
		conn.Close()
	}
	if conn, err := b.Dial("tcp", netip.AddrPortFrom(a.Addr6(), 9).String(), time.Second); err == nil {
		conn.Close()
	}
	more(400)
	// A failed neighbour is found again, by the kernel.
	for _, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		command(t, a, fmt.Sprintf("ip neigh change %s dev %s nud failed", addr, a.End(0).Iface))
	}
	more(400)
	time.Sleep(timeout) // the last of those that the old address cost
	before := lost()
	move(1)
	at := time.Now().UnixNano()
	more(400)
	time.Sleep(timeout)
	if n := lost(); n > before {
		t.Errorf("%d probes lost by the change of the route: verdicts %v, discards %v", n-before, books.count(), books.discards)
	}
	r.end()
	t.Logf("%d probes, %d not answered", books.settled(), before)
	for joint, c := range captures {
		late := 0
		for _, p := range c.Packets() {
			var packet wire.Packet
			if err := wire.Parse(p.Data, &packet); err != nil {
				t.Fatal(err)
			}
			if late == 0 && p.Outgoing && packet.Segment.Flags == probe.SYN && p.Wall > at+int64(50*time.Millisecond) {
				late++
			}
		}
		if late != joint {
			t.Errorf("SYNs left by %s after the route was by %s", a.End(joint).Iface, a.End(1).Iface)
		}
	}
}
