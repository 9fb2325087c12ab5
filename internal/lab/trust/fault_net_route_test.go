package trust

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// newRoutedRig is a rig whose peer is behind a route, at addresses of AnyIP.
func newRoutedRig(t *testing.T) (r *netRig, four, six netip.Addr) {
	t.Helper()
	r = newNetRig(t)
	r.there.AnyIP("198.18.64.0/24", "2001:db8:64::/64")
	return r, netip.MustParseAddr("198.18.64.1"), netip.MustParseAddr("2001:db8:64::1")
}

// Routes go and come back, lead into nothing, and change a thousand times a second.
func TestFaultNetRoute(t *testing.T) {
	t.Parallel()
	r, four, six := newRoutedRig(t)
	// One that each of the changes below has a chance to do harm to.
	r.start(netProbing + netJobs(four, six, r.aside.Addr4(), r.aside.Addr6()))
	for _, gone := range []struct {
		what, four, six string
		rare            bool
	}{
		{"route gone and back", "ip route del 198.18.64.0/24", "ip route del 2001:db8:64::/64", false},
		{"route into a black hole and back", "ip route replace blackhole 198.18.64.0/24", "ip route replace blackhole 2001:db8:64::/64", true},
		{"route prohibited and back", "ip route replace prohibit 198.18.64.0/24", "ip route replace prohibit 2001:db8:64::/64", true},
	} {
		r.suffer(netFault{
			rare: gone.rare,
			what: gone.what,
			make: func() {
				r.run(r.here, gone.four)
				r.run(r.here, gone.six)
			},
			end: func() {
				r.run(r.here, fmt.Sprintf("ip route replace 198.18.64.0/24 via %v dev %s", r.there.Addr4(), r.here.Iface()))
				r.run(r.here, "ip -6 route flush 2001:db8:64::/64")
				r.run(r.here, fmt.Sprintf("ip route replace 2001:db8:64::/64 via %v dev %s", r.there.Addr6(), r.here.Iface()))
			},
		})
	}
	stop, stopped := make(chan struct{}), make(chan int)
	begins := r.d.scrape()
	churned := 0
	r.suffer(netFault{
		what: "1,000 changes of routes a second",
		make: func() {
			stop = make(chan struct{})
			r.here.Go(func() { stopped <- churn(t, stop) })
		},
		end: func() {
			close(stop)
			churned += <-stopped
		},
	})
	f := r.done[len(r.done)-1]
	delays := func(bound float64) int {
		return above(f.after, "probed_schedule_delay_seconds", bound, "") - above(begins, "probed_schedule_delay_seconds", bound, "")
	}
	f.note = fmt.Sprintf("%d changes, %d of the probes late by more than 10 ms, %d by more than 100", churned, delays(0.01), delays(0.1))
	if n := f.after.sum("probed_probe_failures_total") - begins.sum("probed_probe_failures_total"); n > 0 {
		t.Errorf("%.0f failures while routes changed", n)
	}
	if least := int(f.lasts.Seconds()*float64(f.tried)) * 300; churned < least {
		t.Errorf("%d changes only", churned)
	}
	r.end()
}

// churn adds and removes routes to networks that nobody asks for, and a device now and
// then, 1,000 times a second until stop is closed, and returns how often. It is called
// inside a host.
func churn(t *testing.T, stop <-chan struct{}) (n int) {
	nl, err := netlink.NewHandle()
	if err != nil {
		t.Error(err)
		return 0
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err != nil {
		t.Error(err)
		return 0
	}
	for began := time.Now(); ; n++ {
		select {
		case <-stop:
			return n
		default:
		}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: netlink.NewIPNet(netip.AddrFrom4([4]byte{198, 19, byte(n / 2), 1}).AsSlice())}
		change := nl.RouteReplace // the last may be there from before
		if n%2 == 1 {
			change = nl.RouteDel
		}
		if err := change(route); err != nil {
			t.Error(err)
			return n
		}
		if n%100 == 99 {
			device := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "churn"}, PeerName: "nruhc"}
			if err := nl.LinkAdd(device); err != nil {
				t.Error(err)
				return n
			}
			if err := nl.LinkDel(device); err != nil {
				t.Error(err)
				return n
			}
		}
		time.Sleep(time.Until(began.Add(time.Duration(n+1) * time.Millisecond)))
	}
}
