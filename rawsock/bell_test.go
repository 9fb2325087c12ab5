package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// lie sends this namespace's host a forged "fragmentation needed", of 552 octets, or Packet Too
// Big, of 1280, about a packet to its peer that nobody sent, and returns what the kernel makes of
// the path then.
func (ns *namespace) lie(t *testing.T, family int, protocol byte) (route string) {
	t.Helper()
	ns.must(t, func() error {
		b := icmp(3, ip4(protocol, 0, 0x4000, make([]byte, 8)))
		b[1] = 4
		binary.BigEndian.PutUint16(b[6:], 552)
		binary.BigEndian.PutUint16(b[2:], ^checksumOf(b))
		here, there, proto := netip.MustParseAddr(pairs[0][0]), pairs[0][1], unix.IPPROTO_ICMP
		var to unix.Sockaddr = &unix.SockaddrInet4{Addr: here.As4()}
		if family == unix.AF_INET6 {
			quote := make([]byte, 8)
			if protocol == unix.IPPROTO_ICMPV6 {
				quote[0] = 128 // an echo request
			}
			b = icmp(2, ip6(protocol, quote)) // the kernel writes the checksum
			b[1] = 0
			binary.BigEndian.PutUint32(b[4:], 1280)
			here, there, proto = netip.MustParseAddr(pairs[1][0]), pairs[1][1], unix.IPPROTO_ICMPV6
			to = &unix.SockaddrInet6{Addr: here.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, b, 0, to); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		out, err := exec.Command("ip", "route", "get", there).CombinedOutput()
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
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if route := here.lie(t, family, tcpProtocol); strings.Contains(route, "mtu") {
			t.Error(route)
		}
	}
}

// Nor of a better way: a redirect in the gateway's name that quotes a segment which nobody sent.
func TestBellBelievesNoRedirect(t *testing.T) {
	here, there := newVeth(t)
	here.run(t, "ip route add 198.19.0.0/16 via 198.18.0.2")
	here.run(t, "ip neigh add 198.18.0.3 lladdr 02:00:00:00:00:03 dev veth")
	here.must(t, func() error {
		bell, err := OpenBell(61128, 61255)
		if err == nil {
			t.Cleanup(func() { bell.Close() })
		}
		return errors.Join(err,
			os.WriteFile("/proc/sys/net/ipv4/conf/all/accept_redirects", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv4/conf/veth/accept_redirects", []byte("1"), 0))
	})
	there.must(t, func() error {
		quote := ip4(tcpProtocol, 0, 0, make([]byte, 8))
		copy(quote[16:], []byte{198, 19, 0, 5})
		b := icmp(5, quote)
		copy(b[4:], []byte{198, 18, 0, 3})
		binary.BigEndian.PutUint16(b[2:], ^checksumOf(b))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 1}})
	})
	time.Sleep(50 * time.Millisecond)
	here.must(t, func() error {
		out, err := exec.Command("ip", "route", "get", "198.19.0.5").CombinedOutput()
		if !strings.Contains(string(out), "via 198.18.0.2") {
			t.Errorf("%s", out)
		}
		return err
	})
}

// What the kernel was told of a path's MTU, for which a forged quote of an echo does, has no
// segment cut into fragments. What the interface has no room for is.
func TestSenderBelievesNoMTU(t *testing.T) {
	const dontFragment, moreFragments = 0x4000, 0x2000
	for _, c := range []struct {
		family, pair int
		protocol     byte
		believed     string
		payload      int
		field        func(ip []byte) uint16 // what tells a fragment
		mtu          int                    // has no room
		whole, cut   uint16
	}{
		{unix.AF_INET, 0, unix.IPPROTO_ICMP, "mtu 552", 1200, func(ip []byte) uint16 { return binary.BigEndian.Uint16(ip[6:]) }, 1000, dontFragment, moreFragments},
		{unix.AF_INET6, 1, unix.IPPROTO_ICMPV6, "mtu 1280", 1400, func(ip []byte) uint16 { return uint16(ip[6]) }, 1300, tcpProtocol, unix.IPPROTO_FRAGMENT},
	} {
		t.Run(pairs[c.pair][0], func(t *testing.T) {
			here, there := newVeth(t)
			tap := newTap(t, there, TapConfig{FirstPort: 61000, LastPort: 61000})
			sender := newSender(t, here)
			if route := here.lie(t, c.family, c.protocol); !strings.Contains(route, c.believed) {
				t.Fatalf("the kernel did not believe it: %s", route)
			}
			from, to := addrPort(pairs[c.pair][0], 61000), addrPort(pairs[c.pair][1], 443)
			long := seg{from: from, to: to, flags: ack, payload: make([]byte, c.payload)}.packet()
			short := seg{from: from, to: to, flags: ack}.packet()
			for mtu, want := range map[int][]uint16{1500: {c.whole, c.whole, c.whole}, c.mtu: {c.whole, c.cut, c.whole}} {
				here.run(t, "ip link set veth mtu %d", mtu)
				sender.Send([]Packet{short, long, short}, noFailure(t))
				var got []uint16
				for _, f := range incoming(collect(t, tap, 3*time.Second, func(f []kept) bool { return len(incoming(f)) >= 3 })) {
					got = append(got, c.field(f.Data))
				}
				if !slices.Equal(got, want) {
					t.Errorf("at an MTU of %d: %x", mtu, got)
				}
			}
		})
	}
}

// incoming is what came.
func incoming(frames []kept) []kept {
	return slices.DeleteFunc(slices.Clone(frames), func(f kept) bool { return f.Outgoing })
}
