package rawsock

import (
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	tcpProtocol   = unix.IPPROTO_TCP
	udpProtocol   = unix.IPPROTO_UDP
	icmpProtocol  = unix.IPPROTO_ICMP
	icmp6Protocol = unix.IPPROTO_ICMPV6
)

// extension is an IPv6 extension header of 8 octets before a payload.
func extension(following byte, payload []byte) []byte {
	return append([]byte{following, 0, 0, 0, 0, 0, 0, 0}, payload...)
}

// fragment6 is an IPv6 fragment header before a payload. field is offset and
// the more-fragments bit as they lie in the header.
func fragment6(following byte, field uint16, payload []byte) []byte {
	return append([]byte{following, 0, byte(field >> 8), byte(field), 0, 0, 0, 1}, payload...)
}

func TestFilter(t *testing.T) {
	const snaplen = 256
	program, err := portFilter(61000, 61255, snaplen)
	if err != nil {
		t.Fatal(err)
	}
	if len(program) > 80 {
		t.Errorf("%d instructions: the kernel runs them for every packet of the host", len(program))
	}
	if _, err := kernelFilter(program); err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	ours, answer, foreign := tcpPorts(61007, 443), tcpPorts(443, 61007), tcpPorts(50000, 443)
	for _, c := range []struct {
		name   string
		packet []byte
		pass   bool
	}{
		{"IPv4, from our port", ip4(tcpProtocol, 0, 0, ours), true},
		{"IPv4, to our port", ip4(tcpProtocol, 0, 0, answer), true},
		{"IPv4, neither", ip4(tcpProtocol, 0, 0, foreign), false},
		{"IPv4, below the range", ip4(tcpProtocol, 0, 0, tcpPorts(60999, 443)), false},
		{"IPv4, first of the range", ip4(tcpProtocol, 0, 0, tcpPorts(61000, 443)), true},
		{"IPv4, last of the range", ip4(tcpProtocol, 0, 0, tcpPorts(443, 61255)), true},
		{"IPv4, above the range", ip4(tcpProtocol, 0, 0, tcpPorts(443, 61256)), false},
		{"IPv4, above to in range", ip4(tcpProtocol, 0, 0, tcpPorts(65535, 61100)), true},
		{"IPv4 with options", ip4(tcpProtocol, 10, 0, ours), true},
		{"IPv4 with options, neither", ip4(tcpProtocol, 3, 0, foreign), false},
		{"IPv4, don't fragment", ip4(tcpProtocol, 0, 0x4000, ours), true},
		{"IPv4, first fragment", ip4(tcpProtocol, 0, 0x2000, ours), true},
		{"IPv4, later fragment", ip4(tcpProtocol, 0, 0x2001, ours), false},
		{"IPv4 UDP", ip4(udpProtocol, 0, 0, ours), false},
		{"IPv4, four octets of TCP", ip4(tcpProtocol, 0, 0, ours[:4]), true},
		{"IPv4, no ports", ip4(tcpProtocol, 0, 0, ours[:1]), false},
		{"ICMP unreachable", ip4(icmpProtocol, 0, 0, icmp(3, ip4(tcpProtocol, 0, 0x4000, ours)[:28])), true},
		{"ICMP source quench", ip4(icmpProtocol, 0, 0, icmp(4, ip4(tcpProtocol, 0, 0, ours))), true},
		{"ICMP time exceeded, outer options", ip4(icmpProtocol, 2, 0, icmp(11, ip4(tcpProtocol, 0, 0, ours))), true},
		{"ICMP parameter problem", ip4(icmpProtocol, 0, 0, icmp(12, ip4(tcpProtocol, 0, 0, ours))), true},
		{"ICMP quoting options", ip4(icmpProtocol, 0, 0, icmp(3, ip4(tcpProtocol, 4, 0, foreign))), true},
		{"ICMP quoting the peer's segment", ip4(icmpProtocol, 0, 0, icmp(3, ip4(tcpProtocol, 0, 0, answer))), true},
		{"ICMP quoting others", ip4(icmpProtocol, 0, 0, icmp(3, ip4(tcpProtocol, 0, 0, foreign))), false},
		{"ICMP quoting UDP", ip4(icmpProtocol, 0, 0, icmp(3, ip4(udpProtocol, 0, 0, ours))), false},
		{"ICMP redirect", ip4(icmpProtocol, 0, 0, icmp(5, ip4(tcpProtocol, 0, 0, ours))), false},
		{"ICMP echo", ip4(icmpProtocol, 0, 0, icmp(8, ip4(tcpProtocol, 0, 0, ours))), false},
		{"ICMP, quote cut short", ip4(icmpProtocol, 0, 0, icmp(3, ip4(tcpProtocol, 0, 0, nil))), false},

		{"IPv6, from our port", ip6(tcpProtocol, ours), true},
		{"IPv6, to our port", ip6(tcpProtocol, answer), true},
		{"IPv6, neither", ip6(tcpProtocol, foreign), false},
		{"IPv6 UDP", ip6(udpProtocol, ours), false},
		{"IPv6, no ports", ip6(tcpProtocol, nil), false},
		{"IPv6 hop-by-hop", ip6(0, extension(tcpProtocol, ours)), true},
		{"IPv6 hop-by-hop, neither", ip6(0, extension(tcpProtocol, foreign)), false},
		{"IPv6 long destination options", ip6(60, append([]byte{tcpProtocol, 2}, append(make([]byte, 22), answer...)...)), true},
		{"IPv6 two extension headers", ip6(0, extension(60, extension(tcpProtocol, foreign))), true},
		{"IPv6 extension header, then a fragment", ip6(0, extension(44, fragment6(tcpProtocol, 0, ours))), true},
		{"IPv6 extension header, no more", ip6(0, []byte{tcpProtocol}), false},
		{"MLD report", ip6(0, extension(icmp6Protocol, icmp(143, make([]byte, 40)))), false},
		{"ICMPv6 error behind an extension header", ip6(60, extension(icmp6Protocol, icmp(1, ip6(tcpProtocol, ours)))), true},
		{"IPv6 routing", ip6(43, extension(tcpProtocol, ours)), true},
		{"IPv6 destination options", ip6(60, extension(tcpProtocol, ours)), true},
		{"IPv6 authentication", ip6(51, extension(tcpProtocol, ours)), true},
		{"IPv6 ESP", ip6(50, ours), false},
		{"IPv6 atomic fragment", ip6(44, fragment6(tcpProtocol, 0, ours)), true},
		{"IPv6 first fragment, neither", ip6(44, fragment6(tcpProtocol, 1, foreign)), false},
		{"IPv6 first fragment of UDP", ip6(44, fragment6(udpProtocol, 1, ours)), false},
		{"IPv6 first fragment of an ICMPv6 error", ip6(44, fragment6(icmp6Protocol, 1, icmp(1, ip6(tcpProtocol, ours)))), true},
		{"IPv6 first fragment of an echo", ip6(44, fragment6(icmp6Protocol, 1, icmp(128, ours))), false},
		{"IPv6 first fragment, more headers", ip6(44, fragment6(60, 1, ours)), true},
		{"IPv6 later fragment", ip6(44, fragment6(tcpProtocol, 8, ours)), false},
		{"ICMPv6 unreachable", ip6(icmp6Protocol, icmp(1, ip6(tcpProtocol, ours))), true},
		{"ICMPv6 too big", ip6(icmp6Protocol, icmp(2, ip6(tcpProtocol, ours))), true},
		{"ICMPv6 time exceeded", ip6(icmp6Protocol, icmp(3, ip6(tcpProtocol, ours))), true},
		{"ICMPv6 parameter problem", ip6(icmp6Protocol, icmp(4, ip6(tcpProtocol, ours))), true},
		{"ICMPv6 quoting extension headers", ip6(icmp6Protocol, icmp(1, ip6(60, extension(tcpProtocol, ours)))), true},
		{"ICMPv6 quoting a fragment", ip6(icmp6Protocol, icmp(1, ip6(44, fragment6(tcpProtocol, 0, ours)))), true},
		{"ICMPv6 quoting the peer's segment", ip6(icmp6Protocol, icmp(1, ip6(tcpProtocol, answer))), true},
		{"ICMPv6 quoting others", ip6(icmp6Protocol, icmp(1, ip6(tcpProtocol, foreign))), false},
		{"ICMPv6 quoting UDP", ip6(icmp6Protocol, icmp(1, ip6(udpProtocol, ours))), false},
		{"ICMPv6 echo", ip6(icmp6Protocol, icmp(128, ip6(tcpProtocol, ours))), false},
		{"ICMPv6 neighbour solicitation", ip6(icmp6Protocol, icmp(135, ip6(tcpProtocol, ours))), false},
		{"ICMPv6 type 0", ip6(icmp6Protocol, icmp(0, ip6(tcpProtocol, ours))), false},

		{"ARP", append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, make([]byte, 40)...), false},
		{"nothing", nil, false},
		{"one octet of IPv4", []byte{0x45}, false},
		{"one octet of IPv6", []byte{0x60}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := vm.Run(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: snaplen}[c.pass]; n != want {
				t.Errorf("passes %d octets, want %d", n, want)
			}
		})
	}
}

// A single port and the whole range are ranges too.
func TestFilterRanges(t *testing.T) {
	for _, c := range []struct {
		first, last uint16
		pass, drop  []uint16
	}{
		{61000, 61000, []uint16{61000}, []uint16{60999, 61001}},
		{1, 65535, []uint16{1, 40000, 65535}, []uint16{0}},
	} {
		program, err := portFilter(c.first, c.last, 100)
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range slices.Concat(c.pass, c.drop) {
			n, err := vm.Run(ip4(tcpProtocol, 0, 0, tcpPorts(port, 0)))
			if err != nil || (n > 0) != slices.Contains(c.pass, port) {
				t.Errorf("%d-%d: port %d: passes %d octets, error %v", c.first, c.last, port, n, err)
			}
		}
	}
	for _, r := range [][2]uint16{{0, 10}, {11, 10}} {
		if _, err := portFilter(r[0], r[1], 100); err == nil {
			t.Errorf("range %d-%d is accepted", r[0], r[1])
		}
	}
}
