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
			src, err := r.Source(netip.MustParseAddr(c.dst), c.device)
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
	if _, err := r.Source(netip.Addr{}, ""); !errors.Is(err, ErrNotUnicast) {
		t.Errorf("no address: %v", err)
	}
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
	if _, err := r.Source(netip.MustParseAddr("198.18.0.2"), ""); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("with the link down: %v", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.Source(netip.MustParseAddr("198.18.0.2"), ""); err == nil {
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
				if _, err := r.Source(dst, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
