package rawsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSenderSetsTTLAndTOS(t *testing.T) {
	here, _ := newVeth(t)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	for _, pair := range pairs {
		var packets []Packet
		for i, c := range []struct{ ttl, tos uint8 }{{0, 0}, {3, 0}, {0, 0xb8}, {255, 0x02}} {
			p := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: rst, seq: uint32(i)}.packet()
			p.TTL, p.TOS = c.ttl, c.tos
			packets = append(packets, p)
		}
		sender.Send(packets, noFailure(t))
		frames := collect(t, tap, 3*time.Second, atLeast(len(packets)))
		if len(frames) != len(packets) {
			t.Fatalf("saw\n%s", summary(frames))
		}
		for i, f := range frames {
			p := packets[i]
			want := p.TTL
			if want == 0 {
				want = 64
			}
			if f.seg.seq != uint32(i) || f.ttl != want || f.tos != p.TOS || f.seg.from.Addr() != p.Src || f.seg.to.Addr() != p.Dst {
				t.Errorf("packet %d: sent %+v, saw TTL %d, TOS %#x, %+v", i, p, f.ttl, f.tos, f.seg)
			}
		}
	}
}

// failures are what Send reported, by index.
type failures map[int]error

func (f failures) note(i int, err error) { f[i] = err }

// errNotOurs stands for the kernel's refusal of a source: EINVAL, for IPv4
// ENETUNREACH from some kernel on.
var errNotOurs = errors.New("a source that is not this host's")

// A refused packet is reported under its index and the rest still go, in both
// families, across batches.
func TestSenderReportsEachRefusal(t *testing.T) {
	here, _ := newVeth(t)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	here.run(t, `
		nft add table inet t
		nft add chain inet t out { type filter hook output priority 0 ; }
		nft add rule inet t out tcp dport 7 drop`)

	type refusal struct {
		src, dst string
		port     uint16
		ifindex  int
		want     error
	}
	bad := []refusal{
		{"198.18.0.9", "198.18.0.2", 443, 0, errNotOurs},
		{"198.19.0.1", "198.18.0.2", 443, 0, errNotOurs},
		{"2001:db8::9", "2001:db8::2", 443, 0, errNotOurs},
		{"198.18.0.1", "198.19.0.1", 443, 0, unix.ENETUNREACH}, // no route
		{"2001:db8::1", "2001:db8:1::1", 443, 0, unix.ENETUNREACH},
		{"198.18.0.1", "198.18.0.2", 7, 0, unix.EPERM}, // the firewall
		{"2001:db8::1", "2001:db8::2", 7, 0, unix.EPERM},
		{"198.18.0.1", "198.18.0.255", 443, 0, unix.EACCES}, // the network's broadcast
		{"198.18.0.1", "198.18.0.2", 443, 999, unix.ENODEV},
		{"198.18.0.1", "255.255.255.255", 443, 0, ErrNotUnicast},
		{"198.18.0.1", "224.0.0.1", 443, 0, ErrNotUnicast},
		{"198.18.0.1", "0.0.0.0", 443, 0, ErrNotUnicast},
		{"2001:db8::1", "ff02::1", 443, 2, ErrNotUnicast},
		{"2001:db8::1", "::", 443, 0, ErrNotUnicast},
		{"2001:db8::1", "::ffff:198.18.0.2", 443, 0, ErrNotUnicast},
		{"0.0.0.0", "198.18.0.2", 443, 0, ErrSource},
		{"::", "2001:db8::2", 443, 0, ErrSource},
		{"224.0.0.1", "198.18.0.2", 443, 0, ErrSource},
		{"255.255.255.255", "198.18.0.2", 443, 0, ErrSource},
		{"ff02::1", "2001:db8::2", 443, 0, ErrSource},
		{"2001:db8::1", "198.18.0.2", 443, 0, ErrSource},
		{"198.18.0.1", "2001:db8::2", 443, 0, ErrSource},
		{"::ffff:198.18.0.1", "2001:db8::2", 443, 0, ErrSource},
	}
	var packets []Packet
	var want []error
	good := 0
	for i := range 3 * batchLen {
		if i%4 == 3 {
			b := bad[i/4%len(bad)]
			p := Packet{Src: netip.MustParseAddr(b.src), Dst: netip.MustParseAddr(b.dst), Ifindex: b.ifindex}
			p.Segment = seg{from: addrPort(pairs[0][0], 61000), to: addrPort(pairs[0][1], b.port), flags: rst}.tcp()
			packets, want = append(packets, p), append(want, b.want)
			continue
		}
		pair := pairs[i%2]
		s := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: rst, seq: uint32(i)}
		packets, want = append(packets, s.packet()), append(want, nil)
		good++
	}
	packets = append(packets, Packet{}) // no addresses at all
	want = append(want, ErrNotUnicast)

	got := failures{}
	sender.Send(packets, got.note)
	for i, w := range want {
		if errors.Is(w, errNotOurs) && (errors.Is(got[i], unix.EINVAL) || errors.Is(got[i], unix.ENETUNREACH)) {
			continue
		}
		if !errors.Is(got[i], w) || (w == nil) != (got[i] == nil) {
			t.Errorf("packet %d, %s > %s: error %v, want %v", i, packets[i].Src, packets[i].Dst, got[i], w)
		}
	}
	frames := collect(t, tap, 3*time.Second, atLeast(good))
	if len(frames) != good {
		t.Errorf("%d packets left, want %d", len(frames), good)
	}
	for _, f := range frames {
		if want[f.seg.seq] != nil {
			t.Errorf("left although refused: %v", f.seg)
		}
	}
}

// Of what a firewall refuses only now and then it is told what left on its second try.
func TestSenderSecondTry(t *testing.T) {
	here, _ := newVeth(t)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	here.run(t, `
		nft add table inet t
		nft add chain inet t out { type filter hook output priority 0 ; }
		nft add rule inet t out tcp dport 443 numgen inc mod 3 0 reject with icmpx host-unreachable`)
	var packets []Packet
	for i := range 2 * batchLen {
		pair := pairs[i/batchLen]
		packets = append(packets, seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: rst, seq: uint32(i)}.packet())
	}
	got := failures{}
	sender.Send(packets, got.note)
	again, gone := 0, len(packets)
	for i, err := range got {
		switch {
		case errors.Is(err, ErrSecondTry):
			again++
		case errors.Is(err, unix.EPERM):
			gone--
		default:
			t.Errorf("packet %d: %v", i, err)
		}
	}
	if again < len(packets)/4 || gone > len(packets)-1 {
		t.Errorf("%d of %d left on their second try, %d in all", again, len(packets), gone)
	}
	left := func(all []kept) (n int) {
		for _, f := range all {
			if f.Outgoing && f.seg.flags == rst {
				n++
			}
		}
		return n
	}
	if n := left(collect(t, tap, 3*time.Second, func(all []kept) bool { return left(all) >= gone })); n != gone {
		t.Errorf("%d packets left, want %d", n, gone)
	}
}

// A full socket buffer is ENOBUFS for what doesn't fit, and nothing blocks.
func TestSenderFullBuffer(t *testing.T) {
	here, _ := newVeth(t)
	sender := newSender(t, here)
	if err := unix.SetsockoptInt(sender.v4.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10); err != nil {
		t.Fatal(err)
	}
	// Neighbours that aren't there: their packets wait for ARP to give up.
	var packets []Packet
	for i := range 500 {
		packets = append(packets, seg{from: addrPort(pairs[0][0], 61000), to: addrPort(fmt.Sprintf("198.18.0.%d", 100+i%8), 443), flags: syn, seq: uint32(i)}.packet())
	}
	got := failures{}
	sender.Send(packets, got.note)
	first := len(packets)
	for i, err := range got {
		if !errors.Is(err, unix.ENOBUFS) {
			t.Fatalf("packet %d: %v", i, err)
		}
		first = min(first, i)
	}
	t.Logf("%d of %d fit", len(packets)-len(got), len(packets))
	if len(got) == 0 || len(got) != len(packets)-first {
		t.Errorf("%d refused, the first of them %d", len(got), first)
	}
}

// The packet's interface counts, not the route.
func TestSenderInterface(t *testing.T) {
	here, _ := newVeth(t)
	here.run(t, `
		ip link add other type veth peer name end
		ip link set end up
		ip addr add 2001:db8:2::1/64 dev other nodad
		ip addr add 198.18.2.1/24 dev other
		ip link set other up`)
	here.running(t, "other")
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	var other *net.Interface
	here.must(t, func() (err error) {
		other, err = net.InterfaceByName("other")
		return err
	})
	here.run(t, `
		ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:01 dev other
		ip route add 198.18.0.0/24 dev other metric 1000
		ip neigh add 2001:db8::2 lladdr 02:00:00:00:00:01 dev other
		ip route add 2001:db8::/64 dev other metric 2000`)
	for _, pair := range pairs {
		p := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: rst}.packet()
		for _, ifindex := range []int{0, other.Index} {
			p.Ifindex, p.TOS = ifindex, p.TOS+4
			sender.Send([]Packet{p}, noFailure(t))
			leaves := func(f kept) bool { return f.Outgoing && f.tos == p.TOS }
			f := collect(t, tap, 3*time.Second, func(f []kept) bool { return slices.ContainsFunc(f, leaves) })
			i := slices.IndexFunc(f, leaves)
			if i < 0 || (f[i].Ifindex == other.Index) != (ifindex != 0) {
				t.Errorf("sent by %d, saw\n%s", ifindex, summary(f))
			}
		}
	}
}

// IPv6 link-local destinations need the interface and nothing else.
func TestSenderLinkLocal(t *testing.T) {
	here, there := newVeth(t)
	here.run(t, "ip addr add fe80::1/64 dev veth nodad")
	there.run(t, "ip addr add fe80::2/64 dev veth nodad")
	tap := newTap(t, there, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	p := seg{from: addrPort("fe80::1", 61000), to: addrPort("fe80::2", 443), flags: rst}.packet()
	got := failures{}
	sender.Send([]Packet{p}, got.note)
	if !errors.Is(got[0], unix.EINVAL) {
		t.Errorf("without an interface: %v", got[0])
	}
	here.must(t, func() error {
		veth, err := net.InterfaceByName("veth")
		p.Ifindex = veth.Index
		return err
	})
	sender.Send([]Packet{p}, noFailure(t))
	if f := collect(t, tap, 3*time.Second, atLeast(1)); len(f) != 1 {
		t.Error("nothing arrived")
	}
}

// The sockets take no part in the host's traffic: connected to where nothing
// comes from, the kernel doesn't even clone a segment for their filter to drop
// (which /proc/net/raw counts as drops).
func TestSenderReceivesNothing(t *testing.T) {
	here, there := newVeth(t)
	listen(t, there, 443)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	for _, pair := range pairs {
		s := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: syn}
		sender.Send([]Packet{s.packet()}, noFailure(t))
		if f := collect(t, tap, 3*time.Second, atLeast(3)); len(f) != 3 {
			t.Fatalf("saw\n%s", summary(f))
		}
	}
	for _, fd := range []int{sender.v4.fd, sender.v4.cutting, sender.v6.fd, sender.v6.cutting} {
		if _, err := unix.Read(fd, make([]byte, 100)); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("read: %v", err)
		}
	}
	here.must(t, func() error {
		sockets := 0
		for _, file := range []string{"raw", "raw6"} {
			table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", unix.Gettid(), file))
			if err != nil {
				return err
			}
			for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
				sockets++
				if fields := strings.Fields(line); fields[len(fields)-1] != "0" {
					return fmt.Errorf("%s: segments were cloned: %s", file, line)
				}
			}
		}
		if sockets != 4 {
			return fmt.Errorf("%d raw sockets", sockets)
		}
		return nil
	})
}

func TestSenderAllocatesNothing(t *testing.T) {
	ns := newNamespace(t)
	sender := newSender(t, ns)
	packets := make([]Packet, 3*batchLen)
	for i := range packets {
		addr := []string{"127.0.0.1", "::1"}[i%2]
		packets[i] = seg{from: addrPort(addr, 61000), to: addrPort(addr, 9), flags: rst}.packet()
		packets[i].TTL, packets[i].TOS = 64, 4
	}
	failed := noFailure(t)
	if n := testing.AllocsPerRun(100, func() { sender.Send(packets, failed) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Without IPv6 the IPv6 packets are refused, and IPv4 goes on.
func TestSenderWithoutIPv6(t *testing.T) {
	ns := newNamespace(t)
	sender := newSender(t, ns)
	if err := sender.v6.close(); err != nil { // as openRaw leaves it on EAFNOSUPPORT
		t.Fatal(err)
	}
	got := failures{}
	sender.Send([]Packet{
		seg{from: addrPort("::1", 61000), to: addrPort("::1", 9), flags: rst}.packet(),
		seg{from: addrPort("127.0.0.1", 61000), to: addrPort("127.0.0.1", 9), flags: rst}.packet(),
	}, got.note)
	if len(got) != 1 || !errors.Is(got[0], unix.EAFNOSUPPORT) {
		t.Errorf("failures %v", got)
	}
}

// BenchmarkSend sends batches to a peer that drops them as somebody else's, by raw
// socket and by packet socket, and beside each the same messages by sendmmsg(2)
// alone: the difference is ours.
func BenchmarkSend(b *testing.B) {
	for family, name := range []string{"IPv4", "IPv6"} {
		for _, direct := range []bool{false, true} {
			how := "raw"
			if direct {
				how = "packet"
			}
			b.Run(name+"/"+how, func(b *testing.B) { benchmarkSend(b, pairs[family], direct) })
		}
	}
}

func benchmarkSend(b *testing.B, pair [2]string, direct bool) {
	here, _ := newVeth(b)
	p := newPassage(b, here)
	here.run(b, `
		nft flush ruleset
		ip neigh replace %s lladdr 02:00:00:00:00:09 dev veth nud permanent`, pair[1])
	packets := make([]Packet, 64)
	for i := range packets {
		packets[i] = p.to(b, pair[0], pair[1])
		if !direct {
			packets[i].Hop = 0
		}
	}
	refused := 0
	count := func(int, error) { refused++ }
	p.Send(packets, count) // so that all messages are made
	fd, messages := p.v4.fd, p.v4.messages[:len(packets)]
	switch {
	case direct:
		fd, messages = p.frames.fd, p.frames.messages[:len(packets)]
	case packets[0].Dst.Is6():
		fd, messages = p.v6.fd, p.v6.messages[:len(packets)]
	}
	ours, alone := make([]time.Duration, 0, 1<<16), make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		began := time.Now()
		p.Send(packets, count)
		between := time.Now()
		if n, errno := sendmmsg(fd, messages); n != len(packets) {
			b.Fatalf("%d sent: %v", n, errno)
		}
		ours, alone = append(ours, between.Sub(began)), append(alone, time.Since(between))
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2].Nanoseconds()) / float64(len(packets))
	}
	b.ReportMetric(median(ours), "ns/packet")
	b.ReportMetric(median(alone), "sendmmsg-ns/packet")
	b.ReportMetric(median(ours)-median(alone), "ours-ns/packet")
	b.ReportMetric(0, "ns/op")
	if refused > 0 {
		b.Errorf("%d refused", refused)
	}
}

// BenchmarkFill is what a packet costs before the system call.
func BenchmarkFill(b *testing.B) {
	for family, name := range []string{"IPv4", "IPv6"} {
		for _, direct := range []bool{false, true} {
			how := map[bool]string{false: "raw", true: "packet"}[direct]
			b.Run(name+"/"+how, func(b *testing.B) {
				here, there := newVeth(b)
				know(b, here, there)
				p := newPassage(b, here)
				packets := make([]Packet, batchLen/2)
				for i := range packets {
					packets[i] = p.to(b, pairs[family][0], pairs[family][1])
					if !direct {
						packets[i].Hop = 0
					}
				}
				p.packets = packets
				b.ResetTimer()
				for b.Loop() {
					for i := range packets {
						p.put(i)
					}
					p.v4.n, p.v6.n, p.frames.n = 0, 0, 0
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(packets)), "ns/packet")
			})
		}
	}
}
