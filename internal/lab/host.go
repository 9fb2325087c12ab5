package lab

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Host is one network namespace: lo up, IPv4 and IPv6, no route but those to
// its neighbours.
type Host struct {
	Name string // for messages only: the namespace has none

	lab    *Lab
	ns     *os.File
	keeper *keeper

	mu    sync.Mutex
	ends  []*End         // its sides of joints, in the order they were made
	local []netip.Prefix // its addresses and AnyIP prefixes
}

// An End is a host's side of a joint.
type End struct {
	Host  *Host
	Iface string     // the device's name within the host
	Addr4 netip.Addr // in a /24
	Addr6 netip.Addr // in a /64
	joint int
	peer  *End // nil for a scripted peer's
}

// NewHost returns a host in a lab of its own.
func NewHost(tb testing.TB, name string) *Host {
	tb.Helper()
	return New(tb).Host(name)
}

// Host makes a host. Its name is for messages; two hosts may share one.
func (l *Lab) Host(name string) *Host {
	l.tb.Helper()
	ns, keeper, err := newNamespace()
	if err != nil {
		l.tb.Fatalf("lab: host %s: %v", name, err)
	}
	h := &Host{Name: name, lab: l, ns: ns, keeper: keeper, local: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	}}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	// Without duplicate address detection an address can be used at once.
	for _, of := range []string{"all", "default"} {
		h.Sysctl("net.ipv6.conf."+of+".accept_dad", "0")
		h.Sysctl("net.ipv6.conf."+of+".accept_ra", "0")
		h.Sysctl("net.ipv6.conf."+of+".disable_ipv6", "0")
		h.Sysctl("net.ipv6.conf."+of+".router_solicitations", "0")
	}
	h.netlink("lo up", func(nl *netlink.Handle) error {
		lo, err := nl.LinkByName("lo")
		if err != nil {
			return err
		}
		return nl.LinkSetUp(lo)
	})
	return h
}

// Do runs f on an OS thread inside the host and waits for it. Sockets, files
// under /proc/sys/net and /proc/thread-self/net and devices that f opens are
// the host's, and stay so when f has returned. Goroutines that f starts are
// not in the host. If f fails the test or panics, so does Do.
func (h *Host) Do(f func()) {
	h.lab.tb.Helper()
	err := inNamespace(h.ns, f)
	var p panicked
	switch {
	case err == nil:
	case errors.As(err, &p):
		panic(p)
	case errors.Is(err, errGoexit):
		h.lab.tb.FailNow()
	default:
		h.lab.tb.Fatalf("lab: host %s: %v", h.Name, err)
	}
}

// Go runs f as Do does, without waiting. The test does not end before f does:
// what f waits for must be closed by a cleanup.
func (h *Host) Go(f func()) {
	h.lab.going.Go(func() {
		err := inNamespace(h.ns, f)
		var p panicked
		switch {
		case err == nil:
		case errors.As(err, &p):
			panic(p.value)
		default:
			h.lab.tb.Errorf("lab: host %s: %v", h.Name, err)
		}
	})
}

// Sysctl sets a variable, by its dotted name, for this host only: those under
// net. belong to the namespace.
func (h *Host) Sysctl(name, value string) {
	h.lab.tb.Helper()
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	var err error
	h.Do(func() { err = os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: sysctl %s=%s: %v", h.Name, name, value, err)
	}
}

// End returns the host's nth side of a joint, counted from 0.
func (h *Host) End(n int) *End {
	h.lab.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n >= len(h.ends) {
		h.lab.tb.Fatalf("lab: host %s has %d joints, not %d", h.Name, len(h.ends), n+1)
	}
	return h.ends[n]
}

// Addr4 is the IPv4 address of the host's first joint.
func (h *Host) Addr4() netip.Addr { return h.End(0).Addr4 }

// Addr6 is the IPv6 address of the host's first joint.
func (h *Host) Addr6() netip.Addr { return h.End(0).Addr6 }

// Iface is the device of the host's first joint.
func (h *Host) Iface() string { return h.End(0).Iface }

// Inode identifies the namespace, as /proc/PID/ns/net shows it.
func (h *Host) Inode() uint64 {
	h.lab.tb.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(h.ns.Fd()), &st); err != nil {
		h.lab.tb.Fatalf("lab: host %s: %v", h.Name, os.NewSyscallError("fstat", err))
	}
	return st.Ino
}

// isLocal tells whether the host takes packets to a as its own.
func (h *Host) isLocal(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.local {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// netlink runs f with an rtnetlink socket of the host; what names the
// operation in the failure.
func (h *Host) netlink(what string, f func(*netlink.Handle) error) {
	h.lab.tb.Helper()
	var err error
	h.Do(func() {
		var nl *netlink.Handle
		if nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return
		}
		defer nl.Close()
		err = f(nl)
	})
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: %s: %v", h.Name, what, err)
	}
}
