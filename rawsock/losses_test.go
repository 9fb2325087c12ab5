package rawsock

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What a host loses is told, and nothing else: neither what it gets nor what becomes of
// routes and neighbours.
func TestLosses(t *testing.T) {
	t.Parallel()
	here, _ := newVeth(t)
	read := newLosses(t, here)
	for _, c := range []struct {
		line string
		want []string
	}{
		{"ip addr add 198.18.0.9/24 dev veth", nil},
		{"ip addr add 2001:db8::9/64 dev veth nodad", nil},
		{"ip route add 198.19.0.0/16 via 198.18.0.2", nil},
		{"ip route del 198.19.0.0/16 via 198.18.0.2", nil},
		{"ip link set veth mtu 1400", nil},
		{"ip addr del 198.18.0.9/24 dev veth", []string{"198.18.0.9"}},
		{"ip addr del 2001:db8::9/64 dev veth", []string{"2001:db8::9"}},
		{"ip link set veth down", []string{"veth"}},
		{"ip link set veth up", nil},
		{"ip link del veth", []string{"veth"}},
	} {
		here.run(t, "%s", c.line)
		got := read()
		for _, want := range c.want {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %v lost, want %v among them", c.line, got, c.want)
			}
		}
		if c.want == nil && len(got) > 0 {
			t.Errorf("%s: %v lost", c.line, got)
		}
	}
}

// So is a carrier, as the network's matter.
func TestLossOfCarrier(t *testing.T) {
	t.Parallel()
	here, there := newVeth(t)
	read := newLosses(t, here)
	there.run(t, "ip link set veth down")
	var got []string
	for end := time.Now().Add(10 * time.Second); len(got) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		got = read() // the kernel tells within a second
	}
	if !slices.Equal(slices.Compact(got), []string{"dark veth"}) {
		t.Errorf("the other end is down: %v lost", got)
	}
	there.run(t, "ip link set veth up")
	here.running(t, "veth")
	if got := slices.Compact(read()); len(got) > 0 {
		t.Errorf("the other end is up: %v lost", got)
	}
}

// A cable may be shared by as many interfaces as there are VLANs, each of which has a notice. If those
// are too many, any interface may be dark, and nothing else is lost.
func TestLossOfSharedCarrier(t *testing.T) {
	t.Parallel()
	here, there := newVeth(t)
	const macvlans = 150
	for i := range macvlans {
		here.run(t, "ip link add link veth name vlan%d up type macvlan mode bridge", i)
	}
	read := newLosses(t, here)
	read()
	there.run(t, "ip link set veth down")
	told, any := 0, false
	for end := time.Now().Add(10 * time.Second); told <= macvlans && !any && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, what := range read() {
			if told++; !strings.HasPrefix(what, "dark ") {
				t.Fatalf("the other end is down: %s lost", what)
			}
			any = any || what == "dark #0"
		}
	}
	if told == 0 {
		t.Error("nobody was told")
	}
	t.Logf("told %d times, and that any may be dark: %v", told, any)
}

// newLosses begins to listen in a namespace, and returns what names the losses since it was called last.
func newLosses(t *testing.T, ns *namespace) (read func() []string) {
	t.Helper()
	var l *Losses
	var veth int
	ns.must(t, func() (err error) {
		if l, err = OpenLosses(); err == nil {
			veth, err = DeviceIndex("veth")
		}
		return err
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() (all []string) {
		l.Read(func(ifindex int, a netip.Addr, dark bool) {
			what := a.String()
			if !a.IsValid() {
				what = strings.Replace(fmt.Sprint("#", ifindex), fmt.Sprint("#", veth), "veth", 1)
			}
			if dark {
				what = "dark " + what
			}
			all = append(all, what)
		})
		return all
	}
}

// The filters pass losses alone, and carriers that go.
func TestLossFilter(t *testing.T) {
	const lost, dark = 1, 2
	passes := func(program []bpf.Instruction, b []byte) bool {
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(b)
		if err != nil {
			t.Error(err)
		}
		return n != 0
	}
	for _, c := range []struct {
		typ   uint16
		flags uint32
		want  int
	}{
		{unix.RTM_DELADDR, 0, lost}, {unix.RTM_NEWADDR, 0, 0}, {unix.RTM_DELLINK, unix.IFF_UP, lost},
		{unix.RTM_NEWLINK, unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP, 0}, {unix.RTM_NEWLINK, unix.IFF_BROADCAST, lost},
		{unix.RTM_NEWLINK, unix.IFF_UP | unix.IFF_LOWER_UP, 0}, {unix.RTM_NEWLINK, unix.IFF_UP | unix.IFF_BROADCAST, dark},
		{unix.RTM_NEWROUTE, 0, 0}, {unix.RTM_DELROUTE, 0, 0}, {unix.RTM_DELNEIGH, 0, 0},
	} {
		b := make([]byte, 64)
		binary.NativeEndian.PutUint16(b[4:], c.typ)
		binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr+8:], c.flags)
		if passes(lossFilter(), b) != (c.want == lost) || passes(darkFilter(), b) != (c.want == dark) {
			t.Errorf("%d with flags %#x: not where it should pass", c.typ, c.flags)
		}
	}
}

// With an interface named, and no route by it, there is no source; an address that
// comes back is tentative until the kernel knows that nobody else has it.
func TestRoutesWithoutAddress(t *testing.T) {
	t.Parallel()
	here, _ := newVeth(t)
	here.run(t, `
		ip link add other type veth peer name end
		ip link set end up
		ip link set other up
		ip addr add 198.18.2.1/24 dev other`)
	here.running(t, "other")
	r := newRoutes(t, here)
	source := func() (a netip.Addr, err error) {
		_ = here.do(func() error {
			a, _, err = r.Source(netip.MustParseAddr("198.18.0.2"), netip.Addr{}, "veth")
			return nil
		})
		return a, err
	}
	if a, err := source(); err != nil || a != netip.MustParseAddr("198.18.0.1") {
		t.Fatalf("%v, %v", a, err)
	}
	here.run(t, "ip addr del 198.18.0.1/24 dev veth")
	if a, err := source(); err == nil {
		t.Errorf("%v by an interface without an address or a route", a)
	}
	here.must(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/veth/accept_dad", []byte("1"), 0) })
	here.run(t, "ip addr add 2001:db8::7/64 dev veth")
	seven := netip.MustParseAddr("2001:db8::7")
	if !r.Tentative(seven) {
		t.Error("an address that was just added is not tentative")
	}
	for end := time.Now().Add(10 * time.Second); r.Tentative(seven); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is tentative for ever")
		}
	}
	if r.Tentative(netip.MustParseAddr("2001:db8::99")) {
		t.Error("an address of nobody's is tentative")
	}
}
