package lab

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// A Wire is a veth pair between two hosts.
type Wire struct{ A, B *End }

// Join connects two hosts by a veth pair and gives both ends addresses. Both
// devices are born inside their hosts: they never show in the test's own
// namespace, so any number of labs use the same names.
func (l *Lab) Join(a, b *Host) Wire {
	l.tb.Helper()
	w := Wire{}
	w.A, w.B = l.ends(a, b, "eth")
	a.netlink("veth "+w.A.Iface, func(nl *netlink.Handle) error {
		return nl.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: w.A.Iface},
			PeerName:      w.B.Iface,
			PeerNamespace: netlink.NsFd(b.ns.Fd()),
		})
	})
	w.A.up()
	w.B.up()
	w.A.running()
	w.B.running()
	return w
}

// ends makes the two ends of the lab's next joint.
func (l *Lab) ends(a, b *Host, kind string) (*End, *End) {
	l.tb.Helper()
	n := l.nextJoint()
	ea, eb := a.newEnd(n, 1, kind), b.newEnd(n, 2, kind)
	ea.peer, eb.peer = eb, ea
	return ea, eb
}

// nextJoint counts the lab's joints.
func (l *Lab) nextJoint() int {
	l.tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.joints > 63 {
		l.tb.Fatal("lab: more than 64 joints")
	}
	l.joints++
	return l.joints - 1
}

// newEnd names a device of the host and chooses its addresses; it makes nothing.
func (h *Host) newEnd(joint int, number byte, kind string) *End {
	e := &End{Host: h, joint: joint, Addr4: jointAddr4(joint, number), Addr6: jointAddr6(joint, number)}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Iface = fmt.Sprint(kind, len(h.ends))
	h.ends = append(h.ends, e)
	h.local = append(h.local, netip.PrefixFrom(e.Addr4, 32), netip.PrefixFrom(e.Addr6, 128))
	return e
}

func jointAddr4(joint int, host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(joint), host})
}

func jointAddr6(joint int, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 7: byte(joint), 15: host})
}

// router4 and router6 are the addresses of the router that a link stands for.
func (e *End) router4() netip.Addr { return jointAddr4(e.joint, 254) }
func (e *End) router6() netip.Addr { return jointAddr6(e.joint, 254) }

// up gives the end its addresses and brings its device up.
func (e *End) up() {
	e.Host.lab.tb.Helper()
	e.Host.netlink("addresses of "+e.Iface, func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(e.Iface)
		if err != nil {
			return err
		}
		if err := nl.LinkSetUp(link); err != nil {
			return err
		}
		if err := nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(e.Addr4, 24))}); err != nil {
			return err
		}
		return nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(e.Addr6, 64)), Flags: ifaNoDAD})
	})
}

// running waits until the device passes packets. The kernel sees a veth's
// carrier in a work item of its own (linkwatch), and drops what is sent before.
func (e *End) running() {
	e.Host.lab.tb.Helper()
	e.Host.netlink("wait for "+e.Iface, func(nl *netlink.Handle) error {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(200 * time.Microsecond) {
			link, err := nl.LinkByName(e.Iface)
			if err != nil {
				return err
			}
			if link.Attrs().OperState == netlink.OperUp {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("operational state %s after 5 s", link.Attrs().OperState)
			}
		}
	})
}

// ifaNoDAD is IFA_F_NODAD, linux/if_addr.h.
const ifaNoDAD = 0x02

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
