package rawsock

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is never too long for a path: IPv4's least path MTU that Linux believes in
// (net.ipv4.route.min_pmtu) and IPv6's least MTU (RFC 8200 §5). What is longer is
// the kernel's to cut, which knows the path.
const (
	shortPacket4 = 552
	shortPacket6 = 1280
)

// A hop is where packets from a source go, past the host's routing.
type hop struct {
	source    netip.Addr
	neighbour *neighbour
	ifindex   int32
	most      int // octets of a packet, IP header included
	ttl       uint8
}

// A hopKey tells hops apart: those behind one router share theirs.
type hopKey struct {
	neighbour neighbourKey
	source    netip.Addr
	most      int
	ttl       uint8
}

// A hopTable asks the kernel's routing for next hops, and its neighbour table for
// their link addresses, and follows what it says of either. It is the sender's
// goroutine's, which reads the kernel's notices before each batch: they are in its
// socket when the change is, so that what goes past routing is as up to date as
// what goes through it, but for the batch under way.
type hopTable struct {
	kernel     *netlinkSocket
	notices    int  // rtnetlink's; nothing comes before follow
	following  bool // notices come
	in         []byte
	generation atomic.Uint64 // rises when all hops are to be asked for anew
	hops       []hop
	byKey      map[hopKey]uint32
	neighbours map[neighbourKey]*neighbour
	links      map[int32]link
	sources    map[netip.Addr]bool // whether IPv6 addresses are this host's
	ttl4       uint8               // the host's defaults
}

func newHopTable() (*hopTable, error) {
	kernel, err := openNetlink()
	if err != nil {
		return nil, err
	}
	t := &hopTable{kernel: kernel, in: make([]byte, 64<<10)}
	if t.notices, err = openNotices(); err != nil {
		return nil, errors.Join(err, kernel.close())
	}
	t.forget()
	return t, nil
}

// openNotices opens a socket that follow subscribes.
func openNotices() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return -1, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return fd, nil
}

// follow subscribes to the kernel's notices. A host that sends nothing this way
// has none to read.
func (t *hopTable) follow() error {
	if t.following {
		return nil
	}
	if err := joinGroups(t.notices, append(routeGroups(), unix.RTNLGRP_NEIGH)); err != nil {
		return err
	}
	t.following = true
	return nil
}

// forget has all hops asked for anew.
func (t *hopTable) forget() {
	t.generation.Add(1)
	t.hops = t.hops[:0]
	t.byKey = make(map[hopKey]uint32)
	t.neighbours = make(map[neighbourKey]*neighbour)
	t.links = make(map[int32]link)
	t.sources = make(map[netip.Addr]bool)
	t.ttl4 = 0
}

// read takes the kernel's notices. A neighbour's concerns the neighbour; any
// other, or one that was lost, makes all hops doubtful.
func (t *hopTable) read() {
	doubtful := false
	for {
		n, err := readAtOnce(t.notices, t.in)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOBUFS) { // more came than the socket holds
			doubtful = true
			continue
		}
		if err != nil {
			doubtful = doubtful || !errors.Is(err, unix.EAGAIN)
			break
		}
		doubtful = t.hear(t.in[:n]) || doubtful
	}
	if doubtful {
		t.forget()
	}
}

// readAtOnce is read(2) of a descriptor that never blocks, which the Go scheduler need
// not hear of; see briefWait.
func readAtOnce(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// hear takes a datagram of notices, and reports whether they make hops doubtful.
func (t *hopTable) hear(b []byte) (doubtful bool) {
	for len(b) > 0 {
		m, rest, ok := cutNotice(b)
		if !ok {
			return true
		}
		b = rest
		if m.typ != unix.RTM_NEWNEIGH && m.typ != unix.RTM_DELNEIGH {
			doubtful = true
			continue
		}
		k, state, link, ok := readNeighbour(m.body)
		if !ok {
			continue
		}
		n := t.neighbours[k]
		if n == nil {
			continue
		}
		if m.typ == unix.RTM_DELNEIGH {
			state = 0
		}
		n.is(state, link)
	}
	return doubtful
}

// find returns the hop of a packet, or nil if it must go by the kernel's path.
func (t *hopTable) find(p *Packet) *hop {
	h := t.named(p)
	if h == nil {
		return nil
	}
	header := ipv4HeaderLen
	if p.Dst.Is6() {
		header = ipv6HeaderLen
	}
	if h.source != p.Src || p.Ifindex != 0 && int32(p.Ifindex) != h.ifindex || header+len(p.Segment) > h.most || !h.neighbour.take() {
		return nil
	}
	return h
}

// named returns the hop that a packet names, nil if that is doubtful by now.
func (t *hopTable) named(p *Packet) *hop {
	i := uint32(p.Hop) - 1
	if uint32(p.Hop>>32) != uint32(t.generation.Load()) || int(i) >= len(t.hops) {
		return nil
	}
	return &t.hops[i]
}

// resolve returns the name of the hop from src to dst, 0 if there is none that
// packets could be handed to past routing.
func (t *hopTable) resolve(dst, src netip.Addr, ifindex int, tos uint8) uint64 {
	dst, src = dst.WithZone(""), src.WithZone("")
	if checkDestination(dst) != nil || checkSource(src, dst) != nil || dst.IsLoopback() || src.IsLoopback() ||
		dst.Is6() && dst.IsLinkLocalUnicast() && ifindex == 0 || t.follow() != nil {
		return 0
	}
	t.read()
	r, ok := t.kernel.askRoute(dst, src, ifindex, tos)
	if !ok {
		return 0
	}
	l, known := t.links[r.ifindex]
	if !known {
		l = t.kernel.askLink(r.ifindex)
		t.links[r.ifindex] = l
	}
	if !l.ethernet || !t.sends(src, r.ifindex) {
		return 0
	}
	k := hopKey{neighbour: neighbourKey{r.ifindex, r.gateway}, source: src, ttl: r.hopLimit}
	k.most = min(shortPacket4, l.mtu, r.mtu)
	if dst.Is6() {
		k.most = min(shortPacket6, l.mtu, r.mtu)
		if k.ttl == 0 {
			k.ttl = l.hopLimit
		}
	} else {
		t.askDefaults()
		if k.ttl == 0 {
			k.ttl = t.ttl4
		}
	}
	if k.ttl == 0 {
		return 0
	}
	i, known := t.byKey[k]
	if !known {
		n := t.neighbours[k.neighbour]
		if n == nil {
			n = t.kernel.askNeighbour(k.neighbour)
			t.neighbours[k.neighbour] = n
		}
		i = uint32(len(t.hops))
		t.hops = append(t.hops, hop{source: src, neighbour: n, ifindex: r.ifindex, most: k.most, ttl: k.ttl})
		t.byKey[k] = i
	}
	return uint64(uint32(t.generation.Load()))<<32 | uint64(i+1)
}

// sends reports whether a source is this host's. Of an IPv4 one the kernel has said
// it when it gave the route (net/ipv4/route.c, ip_route_output_key_hash_rcu).
func (t *hopTable) sends(src netip.Addr, ifindex int32) bool {
	if src.Is4() {
		return true
	}
	own, known := t.sources[src]
	if !known {
		own = isOwn6(src, int(ifindex))
		if !src.IsLinkLocalUnicast() { // whose answer is the link's
			t.sources[src] = own
		}
	}
	return own
}

// isOwn6 reports whether the host may send from an IPv6 address: it is there, and
// not tentative.
func isOwn6(src netip.Addr, ifindex int) bool {
	fd, err := openUDP(unix.AF_INET6)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return bindSource(fd, src, ifindex) == nil && isOwn(src, ifindex, "")
}

// askDefaults asks what IPv4 sockets of this host begin with.
func (t *hopTable) askDefaults() {
	if t.ttl4 != 0 {
		return
	}
	fd, err := openUDP(unix.AF_INET)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if ttl, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL); err == nil {
		t.ttl4 = uint8(ttl)
	}
}

func (t *hopTable) close() error {
	return errors.Join(closeFD(&t.notices), t.kernel.close())
}

// A way is what routing says of a destination.
type way struct {
	ifindex  int32
	gateway  netip.Addr // the destination itself if it is on the link
	mtu      int
	hopLimit uint8 // 0: the default
}

const rtmsgLen = 12 // struct rtmsg

// askRoute asks where the kernel sends TCP segments from src to dst. ok is false
// where that is no unicast to a neighbour: to this host itself, through a tunnel,
// by another device than is asked for, nowhere.
func (s *netlinkSocket) askRoute(dst, src netip.Addr, ifindex int, tos uint8) (w way, ok bool) {
	bits := uint8(dst.BitLen())
	s.begin(unix.RTM_GETROUTE, familyOf(dst), bits, bits, tos, 0, 0, 0, 0, 0, 0, 0, 0)
	s.address(unix.RTA_DST, dst)
	s.address(unix.RTA_SRC, src)
	s.attribute(unix.RTA_IP_PROTO, []byte{unix.IPPROTO_TCP})
	if ifindex != 0 {
		s.number(unix.RTA_OIF, uint32(ifindex))
	}
	typ, body, err := s.ask()
	if err != nil || typ != unix.RTM_NEWROUTE {
		return w, false
	}
	if w, ok = readRoute(body, dst); !ok || ifindex != 0 && int32(ifindex) != w.ifindex {
		return way{}, false
	}
	return w, true
}

// readRoute reads a message of RTM_NEWROUTE that says how dst is reached.
func readRoute(body []byte, dst netip.Addr) (w way, ok bool) {
	if len(body) < rtmsgLen || body[7] != unix.RTN_UNICAST {
		return w, false
	}
	w.gateway, w.mtu = dst, math.MaxInt
	for rest := body[rtmsgLen:]; ; {
		typ, value, next, more := cutAttribute(rest)
		if !more {
			break
		}
		switch typ {
		case unix.RTA_OIF:
			w.ifindex = int32(numberOf(value))
		case unix.RTA_GATEWAY:
			w.gateway = addressOf(value)
		case unix.RTA_VIA: // struct rtvia: a gateway of another family
			if len(value) < 2 {
				return w, false
			}
			w.gateway = addressOf(value[2:])
		case unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE, unix.RTA_MULTIPATH:
			return w, false
		case unix.RTA_METRICS:
			w.metrics(value)
		}
		rest = next
	}
	return w, w.ifindex > 0 && w.gateway.IsValid()
}

// matchRoute asks whether a route leads from src to dst by a device.
func (s *netlinkSocket) matchRoute(dst, src netip.Addr, ifindex int) error {
	bits := uint8(dst.BitLen())
	var flags [4]byte
	binary.NativeEndian.PutUint32(flags[:], unix.RTM_F_FIB_MATCH)
	s.begin(unix.RTM_GETROUTE, familyOf(dst), bits, bits, 0, 0, 0, 0, 0, flags[0], flags[1], flags[2], flags[3])
	s.address(unix.RTA_DST, dst)
	s.address(unix.RTA_SRC, src)
	s.number(unix.RTA_OIF, uint32(ifindex))
	_, _, err := s.ask()
	return err
}

// metrics reads a route's.
func (w *way) metrics(b []byte) {
	for {
		typ, value, next, more := cutAttribute(b)
		if !more {
			return
		}
		switch v := numberOf(value); {
		case typ == unix.RTAX_MTU && v > 0:
			w.mtu = int(v)
		case typ == unix.RTAX_HOPLIMIT && v < 256:
			w.hopLimit = uint8(v)
		}
		b = next
	}
}

// A link is what of a device decides whether packets can be handed to it.
type link struct {
	ethernet bool // with link addresses that ARP and ND find out
	mtu      int
	hopLimit uint8 // IPv6's default there
}

const (
	ifinfomsgLen = 16 // struct ifinfomsg
	hopLimitAt   = 1  // linux/ipv6.h, DEVCONF_HOPLIMIT
	inet6Conf    = 2  // linux/if_link.h, IFLA_INET6_CONF
)

// askLink asks what a device is. One that cannot be asked for is none to use.
func (s *netlinkSocket) askLink(ifindex int32) (l link) {
	var fixed [ifinfomsgLen]byte
	binary.NativeEndian.PutUint32(fixed[4:], uint32(ifindex))
	s.begin(unix.RTM_GETLINK, fixed[:]...)
	typ, body, err := s.ask()
	if err != nil || typ != unix.RTM_NEWLINK {
		return l
	}
	return readLink(body)
}

// readLink reads a message of RTM_NEWLINK.
func readLink(body []byte) (l link) {
	if len(body) < ifinfomsgLen {
		return l
	}
	flags := binary.NativeEndian.Uint32(body[8:])
	ethernet := binary.NativeEndian.Uint16(body[2:]) == unix.ARPHRD_ETHER && flags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) == 0
	for rest := body[ifinfomsgLen:]; ; {
		typ, value, next, more := cutAttribute(rest)
		if !more {
			return l
		}
		switch typ {
		case unix.IFLA_ADDRESS:
			l.ethernet = ethernet && len(value) == linkAddressLen
		case unix.IFLA_MTU:
			l.mtu = int(numberOf(value))
		case unix.IFLA_AF_SPEC:
			l.hopLimit = hopLimitOf(value)
		}
		rest = next
	}
}

// hopLimitOf reads IFLA_AF_SPEC: by family, and for IPv6 by kind.
func hopLimitOf(spec []byte) uint8 {
	for {
		family, value, next, more := cutAttribute(spec)
		if !more {
			return 0
		}
		for family == unix.AF_INET6 {
			kind, conf, further, more := cutAttribute(value)
			if !more {
				break
			}
			if kind == inet6Conf && len(conf) >= 4*(hopLimitAt+1) {
				return uint8(binary.NativeEndian.Uint32(conf[4*hopLimitAt:]))
			}
			value = further
		}
		spec = next
	}
}
