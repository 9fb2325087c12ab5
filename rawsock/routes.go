package rawsock

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Routes asks the kernel's routing which source address it would send from,
// and tells when an answer may have changed. Any goroutine may use it.
type Routes struct {
	generation atomic.Uint64
	events     *os.File // rtnetlink, in the Go poller
	done       chan struct{}

	mu     sync.Mutex // guards the sockets' use
	v4, v6 int        // UDP sockets for questions without a device; -1: no such family
	kernel *netlinkSocket
}

// discardPort is RFC 863's. Nothing is ever sent to it.
const discardPort = 9

// NewRoutes begins to listen for changes of routes, rules, next hops,
// addresses and links.
func NewRoutes() (*Routes, error) {
	events, err := openRouteEvents()
	if err != nil {
		return nil, err
	}
	r := &Routes{events: events, done: make(chan struct{}), v4: -1, v6: -1}
	if r.v4, err = openUDP(unix.AF_INET); err == nil {
		r.v6, err = openUDP(unix.AF_INET6)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			err = nil
		}
	}
	if err == nil {
		r.kernel, err = openNetlink()
	}
	go r.listen()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// openRouteEvents subscribes to rtnetlink(7).
func openRouteEvents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "rtnetlink")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), file.Close())
	}
	if err := joinGroups(fd, routeGroups()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// routeGroups are rtnetlink's groups of what decides where packets go.
func routeGroups() []int {
	return []int{
		unix.RTNLGRP_LINK, // IPv4 routes go with their link, unannounced
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP,
	}
}

func joinGroups(fd int, groups []int) error {
	for _, group := range groups {
		err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		if err != nil {
			return optionError("NETLINK_ADD_MEMBERSHIP", err)
		}
	}
	return nil
}

// listen counts events until Close.
func (r *Routes) listen() {
	defer close(r.done)
	buf := make([]byte, 64<<10)
	for {
		_, err := r.events.Read(buf)
		// ENOBUFS: more events came than the socket holds. They are events.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		r.generation.Add(1)
	}
}

// Generation rises when the kernel says that a route, rule, next hop, address
// or link changed: an address that Source gave before may be wrong since, so
// read Generation before Source. Reading it is one atomic load. It counts
// notices, of which one change can have many, some ms apart.
func (r *Routes) Generation() uint64 { return r.generation.Load() }

// Source returns the address that the kernel would send from to dst, by the
// named device or, if that is "", by the one that routing chooses, and the largest
// packet in octets that it takes the way there to have room for, 0 if that is unknown. A valid
// source is the one to come back: rules may send it another way than the host's
// other addresses, so the question is asked from it.
//
// It asks by connect(2) on a UDP socket, which sends nothing. A dst that is no
// single host's gives ErrNotUnicast, also where only the kernel knows (broadcast
// addresses of the host's networks); a source that isn't this host's gives
// ErrSource. A link-local dst needs its zone or the device.
func (r *Routes) Source(dst, source netip.Addr, device string) (src netip.Addr, mtu int, err error) {
	if err := checkDestination(dst); err != nil {
		return netip.Addr{}, 0, err
	}
	if !source.IsValid() {
		src, mtu, err := r.ask(dst, device)
		if err == nil && device != "" {
			err = r.hasRoute(dst, src, device)
		}
		if err != nil {
			return netip.Addr{}, 0, fmt.Errorf("route to %s: %w", dst, err)
		}
		return src, mtu, nil
	}
	if err := checkSource(source, dst); err != nil {
		return netip.Addr{}, 0, err
	}
	if src, mtu, err = askAnew(dst, source, device); err != nil {
		return netip.Addr{}, 0, fmt.Errorf("route from %s to %s: %w", source, dst, err)
	}
	return src, mtu, nil
}

func (r *Routes) ask(dst netip.Addr, device string) (src netip.Addr, mtu int, err error) {
	if device != "" {
		return askAnew(dst, netip.Addr{}, device)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fd := r.v4
	if dst.Is6() {
		fd = r.v6
	}
	if fd < 0 {
		return netip.Addr{}, 0, os.NewSyscallError("socket", unix.EAFNOSUPPORT)
	}
	return sourceOf(fd, dst, 0)
}

// hasRoute tells whether a route leads from src to dst by a device. Where none does,
// IPv4 takes whatever is asked of a device to be on its link, and an address of any
// other device for the source (net/ipv4/route.c, ip_route_output_key_hash_rcu): after
// the device has lost its address answers would go elsewhere.
func (r *Routes) hasRoute(dst, src netip.Addr, device string) error {
	if dst.Is6() {
		return nil
	}
	ifindex, err := DeviceIndex(device)
	if err != nil {
		return fmt.Errorf("device %q: %w", device, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.kernel.matchRoute(dst, src, ifindex); err != nil {
		return fmt.Errorf("device %q: %w", device, err)
	}
	return nil
}

// Tentative reports whether an IPv6 address is one of this host's that it may not send
// from yet, because the kernel still asks whether somebody else has it (RFC 4862 §5.4).
func (r *Routes) Tentative(a netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return a.Is6() && r.kernel.isTentative(a.WithZone(""))
}

// askAnew asks by a socket of its own, since neither a device nor a source can
// be taken off one again.
func askAnew(dst, source netip.Addr, device string) (src netip.Addr, mtu int, err error) {
	family := unix.AF_INET
	if dst.Is6() {
		family = unix.AF_INET6
	}
	fd, err := openUDP(family)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer unix.Close(fd)
	scope := 0
	if zone := dst.Zone(); zone != "" {
		if scope, err = zoneIndex(zone); err != nil {
			return netip.Addr{}, 0, err
		}
	}
	if source.Is4() {
		// bind(2) takes a broadcast address too, to receive on.
		if _, _, err := sourceOf(fd, source, 0); errors.Is(err, ErrNotUnicast) {
			return netip.Addr{}, 0, errForeign
		}
	}
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return netip.Addr{}, 0, fmt.Errorf("device %q: %w", device, os.NewSyscallError("setsockopt SO_BINDTODEVICE", err))
		}
		if dst.IsLinkLocalUnicast() || source.IsLinkLocalUnicast() {
			if scope, err = DeviceIndex(device); err != nil {
				return netip.Addr{}, 0, fmt.Errorf("device %q: %w", device, err)
			}
		}
	}
	if source.IsValid() {
		if err := bindSource(fd, source, scope); err != nil {
			return netip.Addr{}, 0, err
		}
		if source.Is6() && !isOwn(source, scope, "") && (device == "" || !isOwn(source, scope, device)) {
			return netip.Addr{}, 0, errForeign
		}
	}
	return sourceOf(fd, dst, scope)
}

// isOwn reports whether an IPv6 address is this host's: whoever sends to its own
// address sends from it (RFC 6724 §5, rule 1). With net.ipv6.ip_nonlocal_bind
// bind(2) takes any, and so does sending, whereas IPv4 has no route from an
// address that isn't there. The addresses of a VRF are known behind its device
// only.
func isOwn(a netip.Addr, scope int, device string) bool {
	fd, err := openUDP(unix.AF_INET6)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if device != "" && unix.BindToDevice(fd, device) != nil {
		return false
	}
	own, _, err := sourceOf(fd, a, scope)
	return err == nil && own.WithZone("") == a.WithZone("")
}

// errForeign is the fault of a source address that only others may send from.
var errForeign = fmt.Errorf("%w: it is not an address of this host (see ip address)", ErrSource)

// bindSource gives a socket its source address. scope is the interface index of
// a link-local source without a zone.
func bindSource(fd int, source netip.Addr, scope int) error {
	from, err := sockaddr(source, 0, scope)
	if err != nil {
		return err
	}
	err = unix.Bind(fd, from)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return errForeign
	}
	return os.NewSyscallError("bind", err)
}

// openUDP returns a UDP socket, or -1.
func openUDP(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}

// sourceOf connects the socket, reads its address and its route's MTU (ip(7), IP_MTU) and
// disconnects it. scope is the interface index of a link-local dst without a zone.
func sourceOf(fd int, dst netip.Addr, scope int) (src netip.Addr, mtu int, err error) {
	to, err := sockaddr(dst, discardPort, scope)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	if err := unix.Connect(fd, to); err != nil {
		if errors.Is(err, unix.EACCES) && isBroadcast(fd, to) {
			return netip.Addr{}, 0, ErrNotUnicast
		}
		return netip.Addr{}, 0, os.NewSyscallError("connect", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, 0, os.NewSyscallError("getsockname", err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if dst.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	if mtu, err = unix.GetsockoptInt(fd, level, option); err != nil {
		mtu = 0 // the route is gone by now
	}
	// A connected socket keeps its source address for the next connect.
	if err := disconnect(fd); err != nil {
		return netip.Addr{}, 0, os.NewSyscallError("connect AF_UNSPEC", err)
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(name.Addr), mtu, nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(name.Addr), mtu, nil
	}
	return netip.Addr{}, 0, unix.EAFNOSUPPORT
}

// sockaddr is the kernel's form of an address and port. scope is the interface
// index of a link-local address without a zone; the kernel ignores that of others.
func sockaddr(a netip.Addr, port, scope int) (unix.Sockaddr, error) {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}, nil
	}
	if zone := a.Zone(); zone != "" {
		var err error
		if scope, err = zoneIndex(zone); err != nil {
			return nil, err
		}
	}
	return &unix.SockaddrInet6{Port: port, Addr: a.As16(), ZoneId: uint32(scope)}, nil
}

// isBroadcast tells the kernel's EACCES for a broadcast address from the one
// for a prohibit route: SO_BROADCAST helps against the first alone.
func isBroadcast(fd int, to unix.Sockaddr) bool {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) != nil {
		return false
	}
	err := unix.Connect(fd, to)
	if err == nil {
		err = disconnect(fd)
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0) == nil && err == nil
}

// disconnect dissolves a UDP socket's association (connect(2), AF_UNSPEC).
func disconnect(fd int) error {
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	if errno != 0 {
		return errno
	}
	return nil
}

// zoneIndex is the interface index of an IPv6 zone, a name or a number
// (RFC 4007 §11).
func zoneIndex(zone string) (int, error) {
	if n, err := strconv.Atoi(zone); err == nil {
		return n, nil
	}
	n, err := DeviceIndex(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return n, nil
}

// DeviceIndex is a device's interface index. It asks for that alone, where package net
// has the kernel list all devices, and waits for no lock of the kernel's that those hold
// who change devices.
func DeviceIndex(name string) (int, error) {
	fd, err := openUDP(unix.AF_INET)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.BindToDevice(fd, name); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
	}
	index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	return index, os.NewSyscallError("getsockopt SO_BINDTOIFINDEX", err)
}

// Close ends listening; Generation stands still from then on.
func (r *Routes) Close() error {
	var errs []error
	if err := r.events.Close(); !errors.Is(err, os.ErrClosed) {
		errs = append(errs, err)
	}
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range []*int{&r.v4, &r.v6} {
		if *fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(*fd)))
			*fd = -1
		}
	}
	if r.kernel != nil {
		errs = append(errs, r.kernel.close())
	}
	return errors.Join(errs...)
}
