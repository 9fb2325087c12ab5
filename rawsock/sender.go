package rawsock

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// A Packet is one TCP segment to send. The kernel writes its IP header, or, where
// it has a Hop, the Sender does as the kernel would.
type Packet struct {
	Segment  []byte     // TCP header with its full checksum, options and payload
	Src, Dst netip.Addr // of one family, never 4-in-6; Src is an address of this host
	Ifindex  int        // the interface to leave by; 0: routing decides. A link-local Dst needs it.
	TTL      uint8      // IPv4 time to live or IPv6 hop limit; 0: the system's default
	TOS      uint8      // IPv4 type of service or IPv6 traffic class
	Hop      uint64     // what Sender.Hop said of Src and Dst; 0: by raw socket
}

// A Sender sends TCP segments through raw IP sockets, so that routing,
// neighbour table, firewall and connection tracking treat them like any
// client's; or, those that have a Hop, through a packet socket, past all of that,
// as long as the kernel knows the neighbour that they go to. It receives nothing.
// It is one goroutine's.
type Sender struct {
	v4, v6 batch

	hops    *hopTable // nil: raw sockets only
	frames  *frames
	packets []Packet // Send's
	failed  func(i int, err error)
	report  func(i int, err error) // Send's failed, behind doubt
	doubts  func(i int, err error) // doubt
	instead func(i int)
	heard   bool // the kernel's notices were read
	mixed   bool // raw batches have packets whose Hop could not be used
}

// sndbuf is asked of SO_SNDBUF in octets; the kernel cuts it to
// net.core.wmem_max: 208 KiB by default, or some 500 small segments, and 4 MiB
// on newer kernels.
const sndbuf = 4 << 20

// NewSender opens the sockets. A host without IPv6 gives a Sender that refuses
// IPv6 packets. Without CAP_NET_RAW the error wraps EPERM and says what to do.
func NewSender() (*Sender, error) {
	s := &Sender{v4: batch{fd: -1, cutting: -1}, v6: batch{fd: -1, cutting: -1}}
	if err := s.v4.open(unix.AF_INET); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.v6.open(unix.AF_INET6); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openRaw returns a raw TCP socket that receives nothing and distrusts, or -1.
//
// IP_RECVERR stays off: with it an ICMP error about one packet fails the next,
// unrelated one (net/ipv4/raw.c raw_err).
func openRaw(family, how int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, socketError(err)
	}
	if err := errors.Join(deafen(fd, family), distrust(fd, family, how)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf); err != nil {
		return -1, errors.Join(optionError("SO_SNDBUF", err), unix.Close(fd))
	}
	return fd, nil
}

// deafen keeps the host's TCP traffic out of a raw socket. The filter drops
// what the kernel has cloned for us already. Connecting to a loopback address
// spares the clone: the kernel's lookup then passes us by (raw_v4_match,
// raw_v6_match), while each packet we send names its own destination and
// source. That is only the cheaper way, so that it may fail, with loopback
// down for one.
func deafen(fd, family int) error {
	if err := attachFilter(fd, dropAll()); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return optionError("SO_RCVBUF", err)
	}
	var nobody unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 255, 255, 254}}
	if family == unix.AF_INET6 {
		nobody = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	}
	_ = unix.Connect(fd, nobody)
	return nil
}

// distrust keeps a raw socket from what is said of paths' MTUs. The kernel believes an ICMP
// error that quotes any echo (net/ipv4/icmp.c, icmp_err; net/ipv6/icmp.c, icmpv6_err), and
// over IPv4 any segment, if there is a raw socket for TCP (net/ipv4/raw.c, raw_err), with no number
// in it that a stranger would have to know, and cuts into fragments for ten minutes what is
// longer than that. A connection of ours believes one that quotes its SEG.SEQ.
// IP_PMTUDISC_PROBE looks at the interface's MTU alone, and IP_PMTUDISC_OMIT cuts what is too
// long for that; IPv6's have the same numbers.
func distrust(fd, family, how int) error {
	if family == unix.AF_INET6 {
		return optionError("IPV6_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how))
	}
	return optionError("IP_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how))
}

// Send sends the packets with as few system calls as it can, those of one
// family in order. A packet that the kernel refuses is reported with its index
// and the kernel's error, and the rest still go: EPERM a firewall rule, EINVAL
// a source that isn't this host's, ENETUNREACH that (IPv4, Linux 6.18) or no
// route, EACCES a broadcast address, ENODEV no such interface, ENOBUFS a full
// socket buffer (net/ipv4/ip_output.c, __ip_append_data: at twice SO_SNDBUF),
// EAFNOSUPPORT no IPv6. ErrNotUnicast and
// ErrSource are refusals of our own, before any system call. ErrSecondTry is of one that
// has left. Nothing is
// allocated for a packet that goes. IPv6 packets of one interface should stand
// together: each change costs some system calls.
//
// A packet that a queueing discipline drops counts as sent (net/ipv4/ip_output.c,
// ip_send_skb: its ENOBUFS is hidden without IP_RECVERR), and so does one that
// waits in vain for its neighbour's address: that it left is known only when
// the tap has seen it.
//
// Packets with a Hop go by the packet socket, unless they are longer than any path
// has room for, the kernel does not know their neighbour's link address (any more)
// or something has changed since that makes the hop doubtful; then they go by raw
// socket, which has the kernel find out. So do those that the packet socket refuses.
// What goes to one neighbour stays in order.
func (s *Sender) Send(packets []Packet, failed func(i int, err error)) {
	s.packets, s.failed, s.heard = packets, failed, false
	if s.hops != nil {
		s.failed, s.report = s.doubts, failed
	}
	for i := range packets {
		s.put(i)
	}
	if s.hops != nil {
		s.frames.flush(s.instead)
	}
	s.flushRaw()
	s.packets, s.failed, s.report = nil, nil, nil
}

// put adds a packet to a batch.
func (s *Sender) put(i int) {
	p := &s.packets[i]
	if err := p.check(); err != nil {
		s.failed(i, err)
		return
	}
	if p.Hop == 0 || s.hops == nil {
		s.raw(i)
		return
	}
	if !s.heard {
		s.heard = true
		s.hops.read()
	}
	if h := s.hops.find(p); h != nil {
		s.direct(i, h)
		return
	}
	s.frames.flush(s.instead)
	s.mixed = true
	s.raw(i)
}

// raw adds a packet to what goes by raw sockets.
func (s *Sender) raw(i int) {
	p := &s.packets[i]
	b := &s.v4
	if p.Dst.Is6() {
		b = &s.v6
	}
	if b.fd < 0 {
		s.failed(i, os.NewSyscallError("socket", unix.EAFNOSUPPORT))
		return
	}
	if p.Dst.Is6() && p.Ifindex != b.device {
		b.flush(s.failed)
		if err := b.bind(p.Ifindex); err != nil {
			s.failed(i, err)
			return
		}
	}
	b.add(i, p)
	if b.n == batchLen {
		b.flush(s.failed)
	}
}

func (s *Sender) flushRaw() {
	s.v4.flush(s.failed)
	s.v6.flush(s.failed)
	s.mixed = false
}

// direct adds a packet to what goes by the packet socket.
func (s *Sender) direct(i int, to *hop) {
	if s.mixed {
		s.flushRaw()
	}
	p := &s.packets[i]
	if q := priorityOf(p); q != s.frames.priority {
		s.frames.flush(s.instead)
		if s.frames.prioritise(q) != nil {
			s.refused(i)
			return
		}
	}
	s.frames.add(i, p, to)
	if s.frames.n == batchLen {
		s.frames.flush(s.instead)
	}
}

// refused sends by raw socket what the packet socket did not take, before what
// comes after it.
func (s *Sender) refused(i int) {
	s.raw(i)
	s.flushRaw()
}

// doubt takes the firewall's refusal of a packet that went by raw socket, to have the
// kernel ask for a stale neighbour: nobody asks then, and its link address may change
// unnoticed.
func (s *Sender) doubt(i int, err error) {
	if p := &s.packets[i]; p.Hop != 0 && errors.Is(err, unix.EPERM) {
		if h := s.hops.named(p); h != nil {
			h.neighbour.refused = true
		}
	}
	s.report(i, err)
}

// AllowHops opens what Hop needs.
func (s *Sender) AllowHops() error {
	hops, err := newHopTable()
	if err != nil {
		return err
	}
	frames, err := openFrames()
	if err != nil {
		return errors.Join(err, hops.close())
	}
	s.hops, s.frames, s.instead, s.doubts = hops, frames, s.refused, s.doubt
	return nil
}

// Hop returns Packet.Hop for packets from src to dst, with a TOS and through an
// interface if that is not 0. It is 0 where they have to go by raw socket: to this
// host itself, through devices that are no Ethernet (a tunnel, loopback) or need no
// ARP, by routes that encapsulate. A name is good until HopGeneration rises; packets
// that have an older one go by raw socket. It costs some system calls.
func (s *Sender) Hop(dst, src netip.Addr, ifindex int, tos uint8) uint64 {
	if s.hops == nil {
		return 0
	}
	return s.hops.resolve(dst, src, ifindex, tos)
}

// HopGeneration rises when hops are to be asked for anew. Any goroutine may ask.
func (s *Sender) HopGeneration() uint64 {
	if s.hops == nil {
		return 0
	}
	return s.hops.generation.Load()
}

// check refuses what must never be sent. Whether Src is this host's and Dst a
// broadcast address of its networks, the kernel knows and checks.
func (p *Packet) check() error {
	if err := checkDestination(p.Dst); err != nil {
		return err
	}
	return checkSource(p.Src, p.Dst)
}

// checkSource refuses addresses that nobody sends from to dst.
func checkSource(s, dst netip.Addr) error {
	if s.Is4() != dst.Is4() || s.Is4In6() || s.IsUnspecified() || s.IsMulticast() || s == limitedBroadcast() {
		return fmt.Errorf("%w %s for %s", ErrSource, s, dst)
	}
	return nil
}

// checkDestination refuses addresses that are unicast nowhere.
func checkDestination(dst netip.Addr) error {
	if !dst.IsValid() || dst.Is4In6() || dst.IsUnspecified() || dst.IsMulticast() || dst == limitedBroadcast() {
		return fmt.Errorf("%s is %w", dst, ErrNotUnicast)
	}
	return nil
}

// limitedBroadcast is RFC 919's 255.255.255.255.
func limitedBroadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// Close closes the sockets.
func (s *Sender) Close() error {
	err := errors.Join(s.v4.close(), s.v6.close())
	if s.hops != nil {
		err = errors.Join(err, s.hops.close(), s.frames.close())
	}
	return err
}
