package rawsock

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bell rings for what comes to its ports, in both families, until it is
// silenced, and for nothing else.
func TestBell(t *testing.T) {
	ns := newNamespace(t)
	var bell *Bell
	ns.must(t, func() (err error) { bell, err = OpenBell(61128, 61255); return err })
	t.Cleanup(func() {
		if err := bell.Close(); err != nil {
			t.Error(err)
		}
	})
	poller, err := NewPoller(bell.FDs()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = poller.Close() })
	knock := func(address string) {
		t.Helper()
		ns.must(t, func() error {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				_ = c.Close()
				return fmt.Errorf("somebody listens on %s", address)
			}
			return nil
		})
	}
	rings := func() bool {
		t.Helper()
		rang, err := poller.Wait(0, true)
		if err != nil {
			t.Fatal(err)
		}
		return rang
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		for port, want := range map[int]bool{61127: false, 61128: true, 61200: true, 61255: true, 61256: false} {
			address := net.JoinHostPort(host, fmt.Sprint(port))
			knock(address)
			knock(address)
			if rings() != want {
				t.Errorf("%s: rings is %v", address, !want)
			}
			bell.Silence()
			if rings() {
				t.Errorf("%s: rings when silenced", address)
			}
		}
	}
	if n := testing.AllocsPerRun(100, bell.Silence); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// lie sends this namespace's host a forged "fragmentation needed", of 552 octets, about a
// packet to 198.18.0.2 that nobody sent, and returns what the kernel makes of the path then.
func (ns *namespace) lie(t *testing.T, protocol byte) (route string) {
	t.Helper()
	ns.must(t, func() error {
		b := icmp(3, ip4(protocol, 0, 0x4000, make([]byte, 8)))
		b[1] = 4
		binary.BigEndian.PutUint16(b[6:], 552)
		binary.BigEndian.PutUint16(b[2:], ^checksumOf(b))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 1}}); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		out, err := exec.Command("ip", "route", "get", "198.18.0.2").CombinedOutput()
		route = string(out)
		return err
	})
	return route
}

// A bell does not have this host believe what somebody says of a path's MTU, quoting no
// number that anybody sent.
func TestBellBelievesNoMTU(t *testing.T) {
	here, _ := newVeth(t)
	here.must(t, func() error {
		bell, err := OpenBell(61128, 61255)
		if err == nil {
			t.Cleanup(func() { bell.Close() })
		}
		return err
	})
	if route := here.lie(t, tcpProtocol); strings.Contains(route, "mtu") {
		t.Error(route)
	}
}

// What the kernel was told of a path's MTU, for which a forged quote of an echo does, has no
// segment cut into fragments. What the interface has no room for is.
func TestSenderBelievesNoMTU(t *testing.T) {
	here, there := newVeth(t)
	tap := newTap(t, there, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	if route := here.lie(t, unix.IPPROTO_ICMP); !strings.Contains(route, "mtu 552") {
		t.Fatalf("the kernel did not believe it: %s", route)
	}
	long := seg{from: addrPort(pairs[0][0], 61000), to: addrPort(pairs[0][1], 443), flags: ack, payload: make([]byte, 1200)}.packet()
	short := seg{from: addrPort(pairs[0][0], 61000), to: addrPort(pairs[0][1], 443), flags: ack}.packet()
	const dontFragment, moreFragments = 0x4000, 0x2000
	for _, c := range []struct {
		mtu  int
		want []uint16
	}{
		{1500, []uint16{dontFragment, dontFragment, dontFragment}},
		{1000, []uint16{dontFragment, moreFragments, dontFragment}},
	} {
		here.run(t, "ip link set veth mtu %d", c.mtu)
		sender.Send([]Packet{short, long, short}, noFailure(t))
		var got []uint16
		for _, f := range incoming(collect(t, tap, 3*time.Second, func(f []kept) bool { return len(incoming(f)) >= 3 })) {
			got = append(got, binary.BigEndian.Uint16(f.Data[6:]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("at an MTU of %d: %x", c.mtu, got)
		}
	}
}

// incoming is what came.
func incoming(frames []kept) []kept {
	return slices.DeleteFunc(slices.Clone(frames), func(f kept) bool { return f.Outgoing })
}
