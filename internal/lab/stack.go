package lab

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Bridge puts the end's device into a bridge of its own, which takes over its
// name in the End and its addresses. The end is a Join's, and nothing was sent
// yet: neighbours don't know the new device's Ethernet address.
func (e *End) Bridge() {
	e.Host.lab.tb.Helper()
	e.stack("br-", func(nl *netlink.Handle, lower netlink.Link, attrs netlink.LinkAttrs) error {
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := nl.LinkAdd(bridge); err != nil {
			return err
		}
		return nl.LinkSetMaster(lower, bridge)
	})
}

// Macvlan puts a macvlan on the end's device; so as Bridge.
func (e *End) Macvlan() {
	e.Host.lab.tb.Helper()
	e.stack("mac-", func(nl *netlink.Handle, lower netlink.Link, attrs netlink.LinkAttrs) error {
		attrs.ParentIndex = lower.Attrs().Index
		return nl.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	})
}

// stack moves the end's addresses to a device that add makes on top of its own.
func (e *End) stack(prefix string, add func(*netlink.Handle, netlink.Link, netlink.LinkAttrs) error) {
	e.Host.lab.tb.Helper()
	name := prefix + e.Iface
	e.Host.netlink("stack "+name+" on "+e.Iface, func(nl *netlink.Handle) error {
		lower, err := nl.LinkByName(e.Iface)
		if err != nil {
			return err
		}
		for _, p := range []netip.Prefix{netip.PrefixFrom(e.Addr4, 24), netip.PrefixFrom(e.Addr6, 64)} {
			if err := nl.AddrDel(lower, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
				return err
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return add(nl, lower, attrs)
	})
	e.Iface = name
	e.up()
	e.running()
}
