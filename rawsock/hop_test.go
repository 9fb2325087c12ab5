package rawsock

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A passage tells by which socket segments leave: the firewall of the namespace
// refuses those of raw sockets to port 7, and never sees the others.
type passage struct {
	*Sender
	ns    *namespace
	minds bool // what the firewall refuses
}

func newPassage(t testing.TB, ns *namespace) *passage {
	t.Helper()
	p := &passage{newSender(t, ns), ns, false}
	ns.must(t, p.AllowHops)
	// The link's own IPv6 address would be announced in a second or so.
	ns.run(t, `
		ip link set veth addrgenmode none
		ip -6 addr flush dev veth scope link
		nft add table inet t
		nft add chain inet t out { type filter hook output priority 0 ; }
		nft add rule inet t out tcp dport 7 drop`)
	return p
}

// to returns a segment with its hop.
func (p *passage) to(t testing.TB, src, dst string) Packet {
	t.Helper()
	packet := seg{from: addrPort(src, 61000), to: addrPort(dst, 7), flags: syn}.packet()
	if packet.Dst.IsLinkLocalUnicast() {
		packet.Ifindex = p.index(t, "veth")
	}
	packet.Hop = p.hop(t, packet.Dst, packet.Src, packet.Ifindex)
	return packet
}

// hop asks in the namespace, where whoever sends is.
func (p *passage) hop(t testing.TB, dst, src netip.Addr, ifindex int) (hop uint64) {
	t.Helper()
	p.ns.must(t, func() error {
		hop = p.Hop(dst, src, ifindex, 0)
		return nil
	})
	return hop
}

func (p *passage) index(t testing.TB, device string) int {
	t.Helper()
	var link *net.Interface
	p.ns.must(t, func() (err error) {
		link, err = net.InterfaceByName(device)
		return err
	})
	return link.Index
}

// direct sends a segment and reports whether it left past the firewall. Whatever
// a raw socket has against it is the other error, if that is not the firewall's.
func (p *passage) direct(packets ...Packet) (direct bool, other error) {
	direct = true
	p.Send(packets, func(_ int, err error) {
		if direct = false; !errors.Is(err, unix.EPERM) {
			other = err
		}
	})
	if !p.minds {
		for _, n := range p.hops.neighbours {
			n.refused = false // the firewall is only there to tell us
		}
	}
	return direct, other
}

func (p *passage) want(t testing.TB, what string, direct bool, packet Packet) {
	t.Helper()
	if is, err := p.direct(packet); is != direct || err != nil {
		t.Errorf("%s: by packet socket %v, want %v (%v)", what, is, direct, err)
	}
}

// know has both ends know each other as neighbours.
func know(t testing.TB, here, there *namespace) {
	t.Helper()
	knowOf(t, here, there, pairs[:]...)
}

func knowOf(t testing.TB, here, there *namespace, pairs ...[2]string) {
	t.Helper()
	for _, side := range []struct {
		of   *namespace
		at   *namespace
		side int
	}{{here, there, 0}, {there, here, 1}} {
		var link *net.Interface
		side.of.must(t, func() (err error) {
			link, err = net.InterfaceByName("veth")
			return err
		})
		for _, pair := range pairs {
			side.at.run(t, "ip neigh replace %s lladdr %s dev veth nud reachable", pair[side.side], link.HardwareAddr)
		}
	}
}

// What leaves by the packet socket is what leaves by a raw one, to the octet, but
// for IPv4's identification and IPv6's flow label.
func TestHopSendsWhatRawSocketsSend(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	tap := newTap(t, there, TapConfig{FirstPort: 61000, LastPort: 61000})
	p := newPassage(t, here)
	for _, pair := range pairs {
		for _, c := range []struct{ ttl, tos uint8 }{{0, 0}, {3, 0}, {0, 0xb8}, {255, 0x02}, {64, 0x10}} {
			packet := p.to(t, pair[0], pair[1])
			packet.TTL, packet.TOS = c.ttl, c.tos
			p.want(t, pair[1], true, packet)
			direct := arrived(t, tap, 7)
			raw := packet
			raw.Hop = 0
			raw.Segment = seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 8), flags: syn}.tcp()
			p.Send([]Packet{raw}, noFailure(t))
			want := arrived(t, tap, 8)
			for _, b := range [][]byte{direct, want} {
				tcp := b[len(b)-tcpHeaderLen:]
				copy(tcp[2:], []byte{0, 7})
				copy(tcp[tcpChecksum:], []byte{0, 0})
				if b[0]>>4 == 4 {
					if sum := checksumOf(b[:ipv4HeaderLen]); sum != 0xffff {
						t.Errorf("header checksum: the sum is %#x", sum)
					}
					copy(b[4:], []byte{0, 0})
					copy(b[10:], []byte{0, 0})
				} else {
					b[1], b[2], b[3] = b[1]&0xf0, 0, 0
				}
			}
			if !bytes.Equal(direct, want) {
				t.Errorf("TTL %d, TOS %#x: sent % x, by raw socket % x", c.ttl, c.tos, direct, want)
			}
		}
	}
}

// arrived waits for a segment to a port and returns it.
func arrived(t testing.TB, tap *Tap, port uint16) []byte {
	t.Helper()
	is := func(f kept) bool { return !f.Outgoing && f.seg.to.Port() == port }
	f := collect(t, tap, 3*time.Second, func(f []kept) bool { return slices.ContainsFunc(f, is) })
	i := slices.IndexFunc(f, is)
	if i < 0 {
		t.Fatalf("nothing arrived for port %d", port)
	}
	return f[i].Data
}

// checksumOf is RFC 1071's sum, 0xffff over a header that holds.
func checksumOf(b []byte) uint16 {
	sum := 0
	for i := 0; i < len(b); i += 2 {
		sum += int(b[i])<<8 | int(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// A segment goes by the packet socket as long as the kernel knows the neighbour,
// and has it look after one that it has not heard of lately.
func TestHopFollowsTheNeighbour(t *testing.T) {
	here, there := newVeth(t)
	p := newPassage(t, here)
	for _, pair := range pairs {
		here.run(t, "ip neigh flush dev veth nud all")
		packet := p.to(t, pair[0], pair[1])
		if packet.Hop == 0 {
			t.Fatalf("no hop to %s", pair[1])
		}
		p.want(t, "a neighbour never heard of", false, packet)
		know(t, here, there)
		p.want(t, "a reachable neighbour", true, packet)
		here.run(t, "ip neigh replace %s lladdr 02:00:00:00:00:09 dev veth nud permanent", pair[1])
		p.want(t, "a neighbour of another address", true, packet)
		if n := p.hops.hops[uint32(packet.Hop)-1].neighbour; n.link != [6]byte{2, 0, 0, 0, 0, 9} {
			t.Errorf("the link address is %x", n.link)
		}
		for _, state := range []string{"stale", "delay", "probe"} {
			here.run(t, "ip neigh change %s lladdr 02:00:00:00:00:09 dev veth nud %s", pair[1], state)
			for i := range 2*refreshEvery + 1 {
				p.want(t, state, state != "stale" || i%refreshEvery != 0, packet)
			}
		}
		here.run(t, "ip neigh change %s dev veth nud failed", pair[1])
		p.want(t, "a failed neighbour", false, packet)
		know(t, here, there)
		p.want(t, "a neighbour that is back", true, packet)
		here.run(t, "ip neigh del %s dev veth", pair[1])
		p.want(t, "a neighbour that is gone", false, packet)
		know(t, here, there)
		p.want(t, "a neighbour that is back", true, packet)
		here.run(t, "ip neigh flush dev veth")
		p.want(t, "flushed neighbours", false, packet)
		know(t, here, there)
	}
}

// A stale neighbour is not believed in once the firewall has refused what was to have
// the kernel ask for it, until the kernel is sure of it.
func TestHopRefused(t *testing.T) {
	here, there := newVeth(t)
	p := newPassage(t, here)
	p.minds = true
	for _, pair := range pairs {
		packet := p.to(t, pair[0], pair[1])
		know(t, here, there)
		p.want(t, "a known neighbour", true, packet)
		here.run(t, "ip neigh change %s dev veth nud stale", pair[1])
		for range 2 * refreshEvery {
			p.want(t, "a stale neighbour that nobody asks for", false, packet)
		}
		here.run(t, "ip neigh change %s dev veth nud reachable", pair[1])
		p.want(t, "a neighbour that the kernel is sure of", true, packet)
	}
}

// The kernel resolves what it does not know: the segment that goes by raw socket
// has it ask, and later ones go by the packet socket.
func TestHopLeavesNeighboursToTheKernel(t *testing.T) {
	here, there := newVeth(t)
	there.run(t, "ip link set veth address 02:00:00:00:00:22")
	p := newPassage(t, here)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	for _, pair := range pairs {
		packet := p.to(t, pair[0], pair[1])
		usual := packet
		usual.Segment = seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 8), flags: syn}.tcp()
		p.Send([]Packet{usual}, noFailure(t))
		collect(t, tap, 3*time.Second, atLeast(2)) // the SYN and a RST
		p.want(t, "a neighbour just found", true, packet)
		collect(t, tap, 3*time.Second, atLeast(2))
		// The neighbour changes its address, and says so when it sends something.
		there.run(t, "ip link set veth address 02:00:00:00:00:33")
		there.run(t, "ip neigh flush dev veth")
		here.run(t, "ip neigh replace %s lladdr 02:00:00:00:00:33 dev veth nud stale", pair[1])
		p.want(t, "a stale neighbour", false, packet)
		p.want(t, "a stale neighbour that the kernel asks for", true, packet)
		if f := collect(t, tap, 3*time.Second, atLeast(2)); len(f) != 2 || !f[0].Outgoing || f[1].seg.flags&rst == 0 {
			t.Errorf("the neighbour has not answered:\n%s", summary(f))
		}
		there.run(t, "ip link set veth address 02:00:00:00:00:22")
		here.run(t, "ip neigh flush dev veth")
		there.run(t, "ip neigh flush dev veth")
	}
}

// What decides a segment's way makes its hop doubtful at once, and asking again
// gives the way that holds now.
func TestHopFollowsRouting(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	here.run(t, "ip addr add 198.18.0.11/24 dev veth")
	here.run(t, "ip addr add 2001:db8::11/64 dev veth nodad")
	p := newPassage(t, here)
	for i, change := range []string{
		"ip route add 198.18.7.0/24 via 198.18.0.2",
		"ip route add 2001:db8:7::/64 via 2001:db8::2",
		"ip rule add pref 99 tos 0x10 table main",
		"ip link set veth mtu 1400",
		"ip addr add 198.18.0.12/24 dev veth",
	} {
		pair := pairs[i%2]
		packet := p.to(t, pair[0], pair[1])
		p.want(t, "before "+change, true, packet)
		was := p.HopGeneration()
		here.run(t, "%s", change)
		p.want(t, "after "+change, false, packet)
		if p.HopGeneration() == was {
			t.Errorf("%s: the generation is what it was", change)
		}
		p.want(t, "asked again", true, p.to(t, pair[0], pair[1]))
	}
	// A router's neighbour entry is the one that counts.
	for _, c := range []struct{ src, dst, router string }{
		{"198.18.0.1", "198.18.7.7", "198.18.0.2"},
		{"2001:db8::1", "2001:db8:7::7", "2001:db8::2"},
	} {
		packet := p.to(t, c.src, c.dst)
		p.want(t, "by a router", true, packet)
		here.run(t, "ip neigh change %s dev veth nud failed", c.router)
		p.want(t, "by a router that is gone", false, packet)
	}
	know(t, here, there)
	// The source must be this host's when the segment leaves.
	for _, c := range []struct{ src, dst string }{{"198.18.0.11", "198.18.0.2"}, {"2001:db8::11", "2001:db8::2"}} {
		packet := p.to(t, c.src, c.dst)
		p.want(t, "an address of this host", true, packet)
		here.run(t, "ip addr del %s dev veth", map[bool]string{true: c.src + "/24", false: c.src + "/64"}[packet.Src.Is4()])
		if direct, err := p.direct(packet); direct || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("from %s, which was removed: by packet socket %v, %v", c.src, direct, err)
		}
		if hop := p.hop(t, packet.Dst, packet.Src, 0); hop != 0 {
			t.Errorf("from %s, which was removed: hop %x", c.src, hop)
		}
	}
	// Nor does a hop lend itself to another source, nor to another interface.
	foreign := p.to(t, "198.18.0.1", "198.18.0.2")
	foreign.Src = netip.MustParseAddr("198.18.0.99")
	if direct, err := p.direct(foreign); direct || err == nil {
		t.Errorf("from an address of nobody's: by packet socket %v, %v", direct, err)
	}
	other := p.to(t, "198.18.0.1", "198.18.0.2")
	other.Ifindex = 999
	if direct, err := p.direct(other); direct || !errors.Is(err, unix.ENODEV) {
		t.Errorf("by an interface that is not there: by packet socket %v, %v", direct, err)
	}
}

// More notices than the socket holds make everything doubtful.
func TestHopMissesNothing(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	p := newPassage(t, here)
	packet := p.to(t, pairs[0][0], pairs[0][1])
	p.want(t, "before", true, packet)
	if err := unix.SetsockoptInt(p.hops.notices, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		here.run(t, "ip neigh replace 198.18.0.77 lladdr 02:00:00:00:00:09 dev veth nud permanent")
		here.run(t, "ip neigh del 198.18.0.77 dev veth")
	}
	p.want(t, "after notices were lost", false, packet)
	p.want(t, "asked again", true, p.to(t, pairs[0][0], pairs[0][1]))
}

// There is no hop where packets have to go by the kernel's path.
func TestHopIsNotEverywhere(t *testing.T) {
	here, _ := newVeth(t)
	p := newPassage(t, here)
	here.run(t, `
		ip addr add fe80::1/64 dev veth nodad
		ip route add local 198.18.66.0/24 dev lo
		ip route add blackhole 198.18.67.0/24
		ip tuntap add tun0 mode tun
		ip addr add 198.18.8.1/24 dev tun0
		ip link set tun0 up
		ip link add other type veth peer name end
		ip link set other arp off
		ip addr add 198.18.9.1/24 dev other
		ip link set other up
		ip link set end up
		ip link add link veth name mac0 type macvlan mode bridge
		ip addr add 198.18.10.1/24 dev mac0
		ip link set mac0 up
		ip link add br0 type bridge
		ip addr add 198.18.11.1/24 dev br0
		ip link set br0 up
		ip route add 198.18.68.0/24 via inet6 2001:db8::2 dev veth
		ip route add 198.18.69.0/24 via 198.18.0.2 mtu lock 500 hoplimit 9`)
	for _, c := range []struct {
		src, dst, device string
		is               bool
	}{
		{"198.18.0.1", "198.18.0.2", "", true},
		{"198.18.0.1", "198.18.0.2", "veth", true},
		{"2001:db8::1", "2001:db8::2", "", true},
		{"fe80::1", "fe80::2", "veth", true},
		{"198.18.10.1", "198.18.10.2", "", true},
		{"198.18.11.1", "198.18.11.2", "", true},
		{"198.18.0.1", "198.18.68.1", "", true},
		{"198.18.0.1", "198.18.69.1", "", true},
		{"fe80::1", "fe80::2", "", false}, // of which link?
		{"127.0.0.1", "127.0.0.1", "", false},
		{"::1", "::1", "", false},
		{"198.18.0.1", "198.18.0.1", "", false},
		{"198.18.0.1", "127.0.0.1", "", false},
		{"2001:db8::1", "2001:db8::1", "", false},
		{"198.18.0.1", "198.18.66.1", "", false}, // made this host's by a route
		{"198.18.0.1", "198.18.67.1", "", false}, // a black hole
		{"198.18.0.1", "203.0.113.1", "", false}, // no route
		{"198.18.8.1", "198.18.8.2", "", false},  // a tunnel
		{"198.18.9.1", "198.18.9.2", "", false},  // no ARP
		{"198.18.0.99", "198.18.0.2", "", false}, // a source of nobody's
		{"198.18.0.1", "198.18.0.255", "", false},
		{"198.18.0.1", "224.0.0.1", "", false},
		{"2001:db8::1", "ff02::1", "veth", false},
	} {
		ifindex := 0
		if c.device != "" {
			ifindex = p.index(t, c.device)
		}
		hop := p.hop(t, netip.MustParseAddr(c.dst), netip.MustParseAddr(c.src), ifindex)
		if (hop != 0) != c.is {
			t.Errorf("%s > %s (%s): hop %x", c.src, c.dst, c.device, hop)
		}
	}
	h := p.hops.hops[uint32(p.hop(t, netip.MustParseAddr("198.18.69.1"), netip.MustParseAddr("198.18.0.1"), 0))-1]
	if h.most != 500 || h.ttl != 9 {
		t.Errorf("the route's MTU and hop limit: %+v", h)
	}
}

// What may be too long for the path is the kernel's to cut; and the order stays.
func TestHopOfLongSegments(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	p := newPassage(t, here)
	for _, c := range []struct {
		mtu, payload int
		pair         [2]string
		direct       bool
	}{
		{1500, 512, pairs[0], true},
		{1500, 513, pairs[0], false},
		{1500, 1220, pairs[1], true},
		{1500, 1221, pairs[1], false},
		{1400, 512, pairs[0], true},
		{1280, 1220, pairs[1], true},
		{300, 260, pairs[0], true},
		{300, 261, pairs[0], false},
	} {
		here.run(t, "ip link set veth mtu %d", c.mtu)
		knowOf(t, here, there, c.pair)
		packet := p.to(t, c.pair[0], c.pair[1])
		packet.Segment = seg{from: addrPort(c.pair[0], 61000), to: addrPort(c.pair[1], 7), flags: ack, payload: make([]byte, c.payload)}.tcp()
		p.want(t, "", c.direct, packet)
		if t.Failed() {
			t.Fatalf("at %+v", c)
		}
	}
	here.run(t, "ip link set veth mtu 1500")
	here.run(t, "nft flush ruleset")
	knowOf(t, here, there, pairs[0])
	tap := newTap(t, there, TapConfig{FirstPort: 61000, LastPort: 61000})
	var packets []Packet
	for i := range 5*batchLen + 3 {
		packet := p.to(t, pairs[0][0], pairs[0][1])
		payload := []byte(nil)
		if i%7 == 3 || i/batchLen == 2 {
			payload = make([]byte, 600)
		}
		packet.Segment = seg{from: addrPort(pairs[0][0], 61000), to: addrPort(pairs[0][1], 7), flags: rst, seq: uint32(i), payload: payload}.tcp()
		packets = append(packets, packet)
	}
	p.Send(packets, noFailure(t))
	f := collect(t, tap, 3*time.Second, atLeast(len(packets)))
	if len(f) != len(packets) {
		t.Fatalf("%d of %d arrived", len(f), len(packets))
	}
	for i := range f {
		if f[i].seg.seq != uint32(i) {
			t.Fatalf("the %d-th to arrive is the %d-th", i, f[i].seg.seq)
		}
	}
}

// What the packet socket refuses goes by raw socket, whose kernel path says why.
func TestHopWhoseDeviceIsDown(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	p := newPassage(t, here)
	packet := p.to(t, pairs[0][0], pairs[0][1])
	p.want(t, "up", true, packet)
	generation := p.hops.generation.Load()
	here.run(t, "ip link set veth down")
	if direct, err := p.direct(packet); direct || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("down: by packet socket %v, %v", direct, err)
	}
	if p.hops.generation.Load() == generation {
		t.Error("nothing was heard of it")
	}
	// As if that had come too late.
	p.hops.hops = append(p.hops.hops[:0], hop{source: packet.Src, neighbour: &neighbour{known: true}, ifindex: int32(p.index(t, "veth")), most: 500, ttl: 64})
	packet.Hop = p.hops.generation.Load()<<32 | 1
	if direct, err := p.direct(packet); direct || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("handed to a device that is down: by packet socket %v, %v", direct, err)
	}
}

func TestHopAllocatesNothing(t *testing.T) {
	here, there := newVeth(t)
	know(t, here, there)
	p := newPassage(t, here)
	packets := make([]Packet, 3*batchLen)
	for i := range packets {
		pair := pairs[i%2]
		packets[i] = p.to(t, pair[0], pair[1])
		packets[i].TOS = uint8(i % 5 * 8)
	}
	failed := noFailure(t)
	if n := testing.AllocsPerRun(20, func() { p.Send(packets, failed) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
