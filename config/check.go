package config

import (
	"fmt"
	"net/netip"
	"time"
)

// protocolOf returns the protocol that has the address.
func protocolOf(ip netip.Addr) IPProtocol {
	if ip.Is4() {
		return IP4
	}
	return IP6
}

// admits reports whether the protocol has the address.
func (p IPProtocol) admits(ip netip.Addr) bool { return p == AnyIP || p == protocolOf(ip) }

// identity is what tells two targets of a job apart.
type identity struct {
	host   string
	port   uint16
	labels string
}

// checkTargets checks the targets of one job; places are where they stand.
func (d *decoder) checkTargets(ts []Target, places []*node) {
	seen := make(map[identity]*node, len(ts))
	for i := range ts {
		t, at := &ts[i], places[i]
		if wrong := t.contradiction(d.config); wrong != "" {
			d.fail(at, "%s", wrong)
		}
		id := identity{t.Host, t.Port, fmt.Sprint(t.Labels)}
		if was := seen[id]; was != nil {
			d.fail(at, "%s is there twice; first at line %d (%s). Remove one, or give them different labels", t.Address, was.Line, was.path())
			continue
		}
		seen[id] = at
	}
}

// contradiction says what speaks against probing an address by the target's
// module, or nothing.
func (t *Target) contradiction(c *Config) string {
	ip, m := t.IP, &t.Module
	switch {
	case !ip.IsValid():
		return ""
	case m.SourceAddress.IsValid() && m.SourceAddress.Is4() != ip.Is4():
		return fmt.Sprintf("%s cannot be probed from modules.%s.source_address %s, which is of the other IP protocol", t.Address, m.Name, m.SourceAddress)
	case !m.IPProtocol.admits(ip):
		return fmt.Sprintf("%s contradicts ip_protocol %s of module %s; allowed there: host names and %s addresses", t.Address, m.IPProtocol, m.Name, m.IPProtocol)
	case ip.Zone() != "" && m.Interface != "" && ip.Zone() != m.Interface:
		return fmt.Sprintf("%s is reached through %s, but modules.%s.interface is %s; change one of them", t.Address, ip.Zone(), m.Name, m.Interface)
	case ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "" && m.Interface == "":
		return fmt.Sprintf("a link-local address needs its interface; write [%s%%eth0]:%d, say", ip, t.Port)
	}
	return ""
}

// load is what targets make probed send: for each way of probing, how many.
type load map[way]int

type way struct {
	packets  int // per probe
	interval time.Duration
}

func (l load) add(t *Target) { l[way{t.Module.PacketsPerProbe(), t.Interval}]++ }

// perSecond returns packets per second, rounded up to a whole one after what
// floating point may be off.
func (l load) perSecond() int {
	var sum float64
	for w, n := range l {
		sum += float64(n*w.packets) / w.interval.Seconds()
	}
	whole := int(sum * (1 - 1e-12))
	if float64(whole) < sum*(1-1e-12) {
		whole++
	}
	return whole
}

func (l load) targets() int {
	sum := 0
	for _, n := range l {
		sum += n
	}
	return sum
}

// String gives the arithmetic: 12,000 targets × 2 packets every 1s.
func (l load) String() string {
	if len(l) > 1 {
		return count(l.targets(), "target")
	}
	for w, n := range l {
		return fmt.Sprintf("%s × %d packets every %s", count(n, "target"), w.packets, brief(w.interval))
	}
	return ""
}

// checkLimits refuses what would have to send more than the limits allow.
func (d *decoder) checkLimits(c *Config, top *node) {
	all, per, over := load{}, make(map[string]load), (*node)(nil)
	host, hosts := "", 0
	for i, t := range c.Targets() {
		all.add(&t)
		l := per[t.Host]
		if l == nil {
			l = load{}
			per[t.Host] = l
		}
		was := l.perSecond()
		l.add(&t)
		most := c.Global.Limits.PacketsPerSecondPerAddress
		if was <= most && l.perSecond() > most {
			hosts++
			if over == nil {
				over, host = d.targets[i], t.Host
			}
		}
	}
	if most := c.Global.Limits.PacketsPerSecond; all.perSecond() > most {
		at := top
		if d.limits != nil {
			at = d.limits
		}
		d.failAt(at.Node, "global.limits.packets_per_second", fmt.Sprintf("%s make %s packets per second, the limit is %s; raise it, or lengthen the interval",
			all, commas(all.perSecond()), commas(most)))
	}
	if hosts > 0 {
		more := ""
		if hosts > 1 {
			more = fmt.Sprintf(" (and so for %s)", count(hosts-1, "more address"))
		}
		l := per[host]
		d.fail(over, "%s to %s make %s packets per second, global.limits.packets_per_second_per_address is %s; raise it, or lengthen the interval%s",
			l, host, commas(l.perSecond()), commas(c.Global.Limits.PacketsPerSecondPerAddress), more)
	}
}
