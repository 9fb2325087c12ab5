package rawsock

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newRoutes(t testing.TB, ns *namespace) *Routes {
	t.Helper()
	var r *Routes
	ns.must(t, func() (err error) {
		r, err = NewRoutes()
		return err
	})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestRoutesSource(t *testing.T) {
	here, _ := newVeth(t)
	here.run(t, `
		ip addr add fe80::1/64 dev veth nodad
		ip link add other type veth peer name end
		ip link set end up
		ip link set other up
		ip addr add 198.18.2.1/24 dev other
		ip addr add 2001:db8:2::1/64 dev other nodad
		ip route add 198.19.1.0/24 via 198.18.0.2
		ip route add 198.19.2.0/24 via 198.18.2.2
		ip route add 198.19.3.0/24 via 198.18.0.2 src 198.18.2.1
		ip route add 198.19.0.0/16 via 198.18.2.2
		ip route add prohibit 198.19.4.0/24
		ip route add 2001:db8:3::/64 via 2001:db8:2::2
		ip route add 198.19.5.0/24 dev veth
		ip route add 198.19.5.0/24 dev other metric 10
		ip route add local 198.19.6.0/24 dev lo`)
	here.running(t, "other")
	r := newRoutes(t, here)
	for _, c := range []struct {
		dst, device, src string
		err              error
	}{
		{"198.18.0.2", "", "198.18.0.1", nil},
		{"198.19.1.7", "", "198.18.0.1", nil},
		{"198.19.2.7", "", "198.18.2.1", nil},
		{"198.19.3.7", "", "198.18.2.1", nil},
		{"198.19.5.7", "", "198.18.0.1", nil},
		{"198.19.5.7", "other", "198.18.2.1", nil},
		{"198.19.6.7", "", "198.19.6.7", nil}, // AnyIP: ours altogether
		{"127.0.0.1", "", "127.0.0.1", nil},
		{"127.0.0.2", "", "127.0.0.1", nil},
		{"2001:db8::2", "", "2001:db8::1", nil},
		{"2001:db8:3::7", "", "2001:db8:2::1", nil},
		{"::1", "", "::1", nil},
		{"fe80::2%veth", "", "fe80::1", nil},
		{"fe80::2", "veth", "fe80::1", nil},
		{"fe80::2", "", "", unix.EINVAL},
		{"198.18.0.2", "nosuch", "", unix.ENODEV},
		{"192.0.2.1", "", "", unix.ENETUNREACH},
		{"2001:db8:9::1", "", "", unix.ENETUNREACH},
		{"198.19.4.1", "", "", unix.EACCES},
		{"198.18.0.255", "", "", ErrNotUnicast},
		{"198.18.0.255", "veth", "", ErrNotUnicast},
		{"255.255.255.255", "", "", ErrNotUnicast},
		{"224.0.0.1", "", "", ErrNotUnicast},
		{"0.0.0.0", "", "", ErrNotUnicast},
		{"::", "", "", ErrNotUnicast},
		{"ff02::1", "veth", "", ErrNotUnicast},
		{"::ffff:198.18.0.2", "", "", ErrNotUnicast},
	} {
		here.must(t, func() error {
			src, _, err := r.Source(netip.MustParseAddr(c.dst), netip.Addr{}, c.device)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%s by %q: error %v, want %v", c.dst, c.device, err, c.err)
			}
			if err == nil && src.String() != c.src {
				t.Errorf("%s by %q: source %s, want %s", c.dst, c.device, src, c.src)
			}
			if errors.Is(err, unix.EACCES) && errors.Is(err, ErrNotUnicast) {
				t.Errorf("%s: a prohibit route is taken for a broadcast", c.dst)
			}
			return nil
		})
	}
	if _, _, err := r.Source(netip.Addr{}, netip.Addr{}, ""); !errors.Is(err, ErrNotUnicast) {
		t.Errorf("no address: %v", err)
	}
}

// What a way has room for is its device's to say, and its route's.
func TestRoutesMTU(t *testing.T) {
	here, _ := newVeth(t)
	here.run(t, `
		ip link set veth mtu 1400
		ip route add 198.19.1.0/24 via 198.18.0.2 mtu 1300
		ip route add 2001:db8:3::/64 via 2001:db8::2 mtu 1290`)
	r := newRoutes(t, here)
	for _, c := range []struct {
		dst, source, device string
		mtu                 int
	}{
		{"198.18.0.2", "", "", 1400},
		{"198.18.0.2", "", "veth", 1400},
		{"198.19.1.1", "", "", 1300},
		{"198.19.1.1", "198.18.0.1", "", 1300},
		{"2001:db8::2", "", "", 1400},
		{"2001:db8:3::1", "", "", 1290},
		{"127.0.0.1", "", "", 65535},
	} {
		here.must(t, func() error {
			var source netip.Addr
			if c.source != "" {
				source = netip.MustParseAddr(c.source)
			}
			if _, mtu, err := r.Source(netip.MustParseAddr(c.dst), source, c.device); err != nil || mtu != c.mtu {
				t.Errorf("%s from %q by %q: room for %d (%v), want %d", c.dst, c.source, c.device, mtu, err, c.mtu)
			}
			return nil
		})
	}
}

// A rule may send one of the host's addresses another way than the others: the
// question is asked from that address, and is refused from one that isn't the
// host's.
func TestRoutesSourceGiven(t *testing.T) {
	here, _ := newVeth(t)
	here.run(t, `
		ip link add other type veth peer name end
		ip link set end up
		ip link set other up
		ip addr add 198.18.2.1/24 dev other
		ip addr add 198.18.2.3/24 dev other
		ip addr add 2001:db8:2::1/64 dev other nodad
		ip addr add fe80::1/64 dev other nodad
		ip route add local 198.19.6.0/24 dev lo
		ip rule add from 198.18.2.1 lookup 100
		ip route add 198.19.1.0/24 via 198.18.2.2 table 100
		ip route add prohibit 198.19.2.0/24 table 100
		ip route add 198.19.2.0/24 via 198.18.0.2
		ip -6 rule add from 2001:db8:2::1 lookup 100
		ip -6 route add 2001:db8:a::/64 via 2001:db8:2::2 table 100
		ip -6 route add unreachable 2001:db8:b::/64 table 100
		ip -6 route add 2001:db8:b::/64 via 2001:db8::2`)
	here.running(t, "other")
	r := newRoutes(t, here)
	for _, c := range []struct {
		dst, source, device string
		err                 error
	}{
		{"198.19.1.7", "198.18.2.1", "", nil},
		{"198.19.1.7", "198.18.2.1", "other", nil},
		{"198.19.1.7", "198.18.2.1", "veth", nil}, // taken for on-link (net/ipv4/route.c)
		{"198.19.1.7", "198.18.2.3", "", unix.ENETUNREACH},
		{"198.19.2.7", "198.18.2.1", "", unix.EACCES},
		{"198.19.2.7", "198.18.2.3", "", nil}, // secondary, of another device
		{"198.19.2.7", "198.18.0.1", "", nil},
		{"198.18.0.2", "198.19.6.7", "", nil}, // AnyIP: ours altogether
		{"127.0.0.1", "127.0.0.2", "", nil},
		{"2001:db8:a::7", "2001:db8:2::1", "", nil},
		{"2001:db8:a::7", "2001:db8:2::1", "other", nil},
		{"2001:db8:a::7", "2001:db8::1", "", unix.ENETUNREACH},
		{"2001:db8:b::7", "2001:db8:2::1", "", unix.EHOSTUNREACH},
		{"2001:db8:b::7", "2001:db8::1", "", nil},
		{"fe80::2", "fe80::1", "other", nil},
		{"fe80::2%other", "fe80::1", "", nil},
		{"fe80::2%other", "fe80::1%other", "", nil},
		{"2001:db8:2::2", "fe80::1%other", "", nil},
		{"fe80::2%veth", "fe80::1", "", ErrSource},
		{"198.18.0.2", "198.18.0.77", "", ErrSource},
		{"198.18.0.2", "198.18.0.77", "veth", ErrSource},
		{"198.18.0.2", "198.18.0.2", "", ErrSource},
		{"198.18.0.2", "198.18.0.255", "", ErrSource},
		{"198.18.0.2", "255.255.255.255", "", ErrSource},
		{"198.18.0.2", "224.0.0.1", "", ErrSource},
		{"198.18.0.2", "0.0.0.0", "", ErrSource},
		{"198.18.0.2", "2001:db8::1", "", ErrSource},
		{"198.18.0.2", "::ffff:198.18.0.1", "", ErrSource},
		{"2001:db8::2", "2001:db8::77", "", ErrSource},
		{"2001:db8::2", "198.18.0.1", "", ErrSource},
		{"2001:db8::2", "::", "", ErrSource},
		{"198.18.0.255", "198.18.0.1", "", ErrNotUnicast},
		{"224.0.0.1", "198.18.0.1", "", ErrNotUnicast},
		{"198.18.0.2", "198.18.0.1", "nosuch", unix.ENODEV},
	} {
		here.must(t, func() error {
			dst, source := netip.MustParseAddr(c.dst), netip.MustParseAddr(c.source)
			src, _, err := r.Source(dst, source, c.device)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%s from %s by %q: error %v, want %v", c.dst, c.source, c.device, err, c.err)
			}
			if err == nil && src != source.WithZone("") {
				t.Errorf("%s from %s by %q: source %s", c.dst, c.source, c.device, src)
			}
			return nil
		})
	}
	here.must(t, func() error {
		_, _, err := r.Source(netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.77"), "")
		const want = "route from 198.18.0.77 to 198.18.0.2: unusable source address: it is not an address of this host (see ip address)"
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		return nil
	})
}

// Every kind of change raises the generation, and Source gives the new answer.
func TestRoutesGeneration(t *testing.T) {
	here, _ := newVeth(t)
	r := newRoutes(t, here)
	for _, change := range []string{
		"ip route add 198.19.0.0/16 via 198.18.0.2",
		"ip route replace 198.19.0.0/16 via 198.18.0.2 src 198.18.0.1",
		"ip route del 198.19.0.0/16",
		"ip -6 route add 2001:db8:1::/64 via 2001:db8::2",
		"ip rule add to 198.19.0.0/16 lookup 100",
		"ip -6 rule add to 2001:db8:9::/64 lookup 100",
		"ip addr add 198.18.0.77/24 dev veth",
		"ip addr add 2001:db8::77/64 dev veth nodad",
		"ip nexthop add id 7 via 198.18.0.2 dev veth",
		"ip link set veth down",
	} {
		// Notices of the change before may still be on their way.
		before := r.Generation()
		for {
			time.Sleep(30 * time.Millisecond)
			now := r.Generation()
			if now == before {
				break
			}
			before = now
		}
		here.run(t, "%s", change)
		for deadline := time.Now().Add(3 * time.Second); r.Generation() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: generation remains %d", change, before)
			}
		}
	}
	if _, _, err := r.Source(netip.MustParseAddr("198.18.0.2"), netip.Addr{}, ""); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("with the link down: %v", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Source(netip.MustParseAddr("198.18.0.2"), netip.Addr{}, ""); err == nil {
		t.Error("an answer after Close")
	}
}

func BenchmarkRoutesSource(b *testing.B) {
	here, _ := newVeth(b)
	r := newRoutes(b, here)
	for _, pair := range pairs {
		dst := netip.MustParseAddr(pair[1])
		b.Run(pair[1], func(b *testing.B) {
			for b.Loop() {
				if _, _, err := r.Source(dst, netip.Addr{}, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
