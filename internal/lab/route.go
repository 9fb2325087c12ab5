package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AnyIP makes every address of the prefixes the host's own, so that one
// listener on an unspecified address answers on each of them, and tells the
// host's neighbours the way. (ip route add local PREFIX dev lo)
func (h *Host) AnyIP(prefixes ...string) {
	h.lab.tb.Helper()
	for _, prefix := range prefixes {
		p := parsePrefix(h, prefix)
		h.netlink("AnyIP "+prefix, func(nl *netlink.Handle) error {
			lo, err := nl.LinkByName("lo")
			if err != nil {
				return err
			}
			return nl.RouteReplace(&netlink.Route{
				LinkIndex: lo.Attrs().Index, Dst: ipNet(p),
				Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
			})
		})
		h.mu.Lock()
		h.local = append(h.local, p)
		h.mu.Unlock()
		h.announce(p)
	}
}

// Address gives the end one more address, with its prefix length. Unlike AnyIP
// it changes no route of the neighbours: they find it on the link or not at all.
func (e *End) Address(prefix string) {
	e.Host.lab.tb.Helper()
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		e.Host.lab.tb.Fatalf("lab: host %s: %v", e.Host.Name, err)
	}
	e.Host.netlink(fmt.Sprintf("address %s of %s", p, e.Iface), func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(e.Iface)
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = ifaNoDAD
		}
		return nl.AddrAdd(link, addr)
	})
	e.Host.mu.Lock()
	e.Host.local = append(e.Host.local, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	e.Host.mu.Unlock()
}

// announce routes p to the host in each of its neighbours.
func (h *Host) announce(p netip.Prefix) {
	h.lab.tb.Helper()
	h.mu.Lock()
	ends := h.ends
	h.mu.Unlock()
	for _, e := range ends {
		if e.peer == nil {
			continue
		}
		via := e.Addr4
		if p.Addr().Is6() {
			via = e.Addr6
		}
		e.peer.Host.Route(p.String(), via)
	}
}

// Route adds a route to a prefix through a neighbour's address.
func (h *Host) Route(prefix string, via netip.Addr) {
	h.lab.tb.Helper()
	p := parsePrefix(h, prefix)
	h.netlink(fmt.Sprintf("route %s via %s", prefix, via), func(nl *netlink.Handle) error {
		return nl.RouteReplace(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()})
	})
}

// Forward makes the host a router.
func (h *Host) Forward() {
	h.lab.tb.Helper()
	h.Sysctl("net.ipv4.ip_forward", "1")
	h.Sysctl("net.ipv6.conf.all.forwarding", "1")
}

func parsePrefix(h *Host, s string) netip.Prefix {
	h.lab.tb.Helper()
	p, err := netip.ParsePrefix(s)
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: %v", h.Name, err)
	}
	if p != p.Masked() {
		h.lab.tb.Fatalf("lab: host %s: %s has host bits: %s is meant", h.Name, p, p.Masked())
	}
	return p
}
