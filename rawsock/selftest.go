package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long SelfTest waits, in all. The kernel answers within some ten µs on
// loopback, so that the rest is for a busy machine.
const (
	silence  = 200 * time.Millisecond // for what must not come, once all that must has come
	patience = time.Second            // for what must
)

// SelfTest proves on loopback, for IPv4 and IPv6, that the kernel answers a
// SYN-ACK to the reserved port with a RST and one to the guarded port not at
// all. Both are ports that the caller holds. It sends a SYN from each to a
// listener of its own, so that a firewall sees what it will see of probed, and
// the listener's SYN-ACK comes back with a TTL of 255, which no minimum TTL
// stops. A host without IPv6 on loopback is tested for IPv4. It takes about
// 0.2 s, nothing leaves the host, and nobody else's ports are touched.
func SelfTest(reserved, guarded uint16) error {
	if err := selfTest(reserved, guarded); err != nil {
		return fmt.Errorf("self-test on loopback: %w", err)
	}
	return nil
}

func selfTest(reserved, guarded uint16) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	listener, port, err := listenOn(lo.Name)
	if err != nil {
		return err
	}
	defer unix.Close(listener) // and with it the handshakes that it awaits
	tap, err := OpenTap(TapConfig{FirstPort: port, LastPort: port, RingBytes: minBlockLen})
	if err != nil {
		return err
	}
	defer tap.Close()
	sender, err := NewSender()
	if err != nil {
		return err
	}
	defer sender.Close()
	poller, err := NewPoller(tap.FD())
	if err != nil {
		return err
	}
	defer poller.Close()

	t := trial{port: port, reserved: reserved, guarded: guarded, lo: lo.Index}
	t.families = append(t.families, family{name: "IPv4", addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	if hasAddress(lo, netip.IPv6Loopback()) {
		t.families = append(t.families, family{name: "IPv6", addr: netip.IPv6Loopback()})
	}
	if err := t.send(sender); err != nil {
		return err
	}
	if err := t.watch(tap, poller); err != nil {
		return err
	}
	return t.verdict()
}

// loopback returns the loopback interface, which must be up.
func loopback() (*net.Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for i := range links {
		if links[i].Flags&net.FlagLoopback == 0 {
			continue
		}
		if links[i].Flags&net.FlagUp == 0 {
			return nil, fmt.Errorf("loopback is down: bring it up (ip link set %s up)", links[i].Name)
		}
		return &links[i], nil
	}
	return nil, errors.New("there is no loopback interface")
}

func hasAddress(link *net.Interface, addr netip.Addr) bool {
	addrs, err := link.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == addr {
			return true
		}
	}
	return false
}

// listenOn opens a listener on a free port that is reachable by the named
// device alone and answers with a TTL of 255.
func listenOn(device string) (fd int, port uint16, err error) {
	fd, family, err := dualStackSocket()
	if err != nil {
		return -1, 0, err
	}
	if port, err = setUpListener(fd, family, device); err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	return fd, port, nil
}

func setUpListener(fd, family int, device string) (uint16, error) {
	if err := unix.BindToDevice(fd, device); err != nil {
		return 0, optionError("SO_BINDTODEVICE", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 255); err != nil {
		return 0, optionError("IP_TTL", err)
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255); err != nil {
			return 0, optionError("IPV6_UNICAST_HOPS", err)
		}
	}
	if err := bindAny(fd, family, 0); err != nil {
		return 0, err
	}
	if err := unix.Listen(fd, 8); err != nil {
		return 0, os.NewSyscallError("listen", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	if name6, ok := name.(*unix.SockaddrInet6); ok {
		return uint16(name6.Port), nil
	}
	return uint16(name.(*unix.SockaddrInet4).Port), nil
}

// A trial is one run of the self-test and what it saw.
type trial struct {
	port, reserved, guarded uint16
	lo                      int // loopback's interface index
	families                []family
}

type family struct {
	name              string
	addr              netip.Addr
	reserved, guarded answers
}

// answers is what was seen at one of the two ports.
type answers struct {
	synACK bool // the listener's answer, to it
	rst    bool // the kernel's, from it
	other  bool // anything else from it but our SYN
}

// send sends a SYN from each port in each family.
func (t *trial) send(sender *Sender) error {
	var packets []Packet
	for _, f := range t.families {
		for _, from := range []uint16{t.guarded, t.reserved} {
			packets = append(packets, Packet{
				Segment: synSegment(f.addr, from, t.port),
				Src:     f.addr, Dst: f.addr, Ifindex: t.lo,
			})
		}
	}
	var failure error
	sender.Send(packets, func(i int, err error) {
		failure = fmt.Errorf("%s: a SYN could not be sent: %w: does a firewall stop raw sockets on loopback?", packets[i].Src, err)
	})
	return failure
}

// watch notes what the tap sees, for a while after all that must come has.
func (t *trial) watch(tap *Tap, poller *Poller) error {
	see := func(f *Frame) {
		if f.Outgoing { // loopback shows each packet a second time, arriving
			t.note(f.Data)
		}
	}
	clock := NewClock()
	deadline := clock.Monotonic() + int64(patience)
	settled := false
	for {
		tap.Drain(1<<10, see)
		if !settled && t.complete() {
			settled = true
			deadline = clock.Monotonic() + int64(silence)
		}
		left := deadline - clock.Monotonic()
		if left <= 0 {
			return nil
		}
		if _, err := poller.Wait(time.Duration(left), true); err != nil {
			return err
		}
	}
}

func (t *trial) complete() bool {
	for i := range t.families {
		f := &t.families[i]
		if !f.guarded.synACK || !f.reserved.synACK || !f.reserved.rst {
			return false
		}
	}
	return true
}

// The parts of a TCP header (RFC 9293 §3.1) that the self-test reads and
// writes, as offsets and bits.
const (
	tcpHeaderLen          = 20
	tcpSeq                = 4
	tcpDataOffset         = 12
	tcpFlags              = 13
	tcpWindow             = 14
	tcpChecksum           = 16
	flagSYN, flagRST      = 1 << 1, 1 << 2
	flagsSYNACK      byte = 1<<4 | flagSYN
)

// note sorts in one packet that the filter passed.
func (t *trial) note(packet []byte) {
	index, header := 0, int(packet[0]&0xf)*4
	if packet[0]>>4 == 6 {
		index, header = 1, ipv6HeaderLen
	}
	if index >= len(t.families) || len(packet) < header+tcpHeaderLen {
		return
	}
	tcp := packet[header:]
	from, to := binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:])
	f := &t.families[index]
	for _, end := range []struct {
		port uint16
		seen *answers
	}{{t.reserved, &f.reserved}, {t.guarded, &f.guarded}} {
		switch {
		case from == t.port && to == end.port:
			end.seen.synACK = end.seen.synACK || tcp[tcpFlags] == flagsSYNACK
		case from != end.port || to != t.port || tcp[tcpFlags] == flagSYN:
		case tcp[tcpFlags]&flagRST != 0:
			end.seen.rst = true
		default:
			end.seen.other = true
		}
	}
}

// verdict is nil if every port did as it must.
func (t *trial) verdict() error {
	for i := range t.families {
		f := &t.families[i]
		switch {
		case !f.reserved.synACK || !f.guarded.synACK:
			return fmt.Errorf("%s: no SYN-ACK came back: does a firewall drop TCP on loopback?", f.name)
		case f.guarded.rst || f.guarded.other:
			return fmt.Errorf("%s: the kernel answered a SYN-ACK to port %d, which its guard should have kept silent", f.name, t.guarded)
		case !f.reserved.rst:
			return fmt.Errorf("%s: the kernel sent no RST in answer to a SYN-ACK to port %d: "+
				"does a firewall drop it, or is another socket listening there?", f.name, t.reserved)
		}
	}
	return nil
}

// synSegment makes a SYN between two ports of one address.
func synSegment(addr netip.Addr, from, to uint16) []byte {
	s := make([]byte, tcpHeaderLen)
	binary.BigEndian.PutUint16(s[0:], from)
	binary.BigEndian.PutUint16(s[2:], to)
	binary.BigEndian.PutUint32(s[tcpSeq:], 1)
	s[tcpDataOffset] = tcpHeaderLen / 4 << 4
	s[tcpFlags] = flagSYN
	binary.BigEndian.PutUint16(s[tcpWindow:], 65535)
	binary.BigEndian.PutUint16(s[tcpChecksum:], tcpSum(addr, addr, s))
	return s
}

// tcpSum is RFC 9293 §3.1's checksum over pseudo-header and segment, whose own
// checksum field is 0.
func tcpSum(src, dst netip.Addr, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, octets := range [][]byte{src.AsSlice(), dst.AsSlice(), segment} {
		for len(octets) > 1 {
			sum += uint32(binary.BigEndian.Uint16(octets))
			octets = octets[2:]
		}
		if len(octets) == 1 {
			sum += uint32(octets[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
