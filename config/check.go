package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/probed/probed/probe"
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
	module string
	labels string
}

// checkTargets checks the static targets of one job, as they are after its
// relabelling; places are where they stand.
func (d *decoder) checkTargets(j *Job, places []*node) {
	x, said := newExpander(d.config, j), make(map[string]bool)
	j.eachStatic(func(e *Endpoint, labels Labels) {
		at := places[x.next]
		x.wayWrong, x.refused = false, netip.Addr{}
		switch f := x.static(e, labels); {
		case x.wayWrong && said[f.wrong]: // its group's labels say so for all
		case x.refused.IsValid():
			d.fail(at, "%s%s; remove the target, or change the rule", f.wrong, d.rule(x.refused))
		case f.wrong != "":
			said[f.wrong] = x.wayWrong
			d.fail(at, "%s", f.wrong)
		case f.twin != nil && j.Relabel == nil:
			was := places[*f.twin]
			d.fail(at, "%s is there twice; first at line %d (%s). Remove one, or give them different labels", e.Address, was.Line, was.path())
		}
	})
}

// contradiction says what speaks against probing an address by the target's
// module, or nothing.
func (t *Target) contradiction() string {
	ip, m := t.IP, t.Module
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

// checkPorts refuses what needs more source ports at once than there are guarded
// ones: a four-tuple is one conversation's, whatever target has it. How long
// what is over lingers does not count, since that gives way.
func (d *decoder) checkPorts(c *Config) {
	type remote struct {
		host string
		port uint16
	}
	ports := c.Global.SourcePorts
	most := c.Global.loopPorts().Guarded().Len()
	open := make(map[remote]int)
	static, origins := c.expand(nil, maxTargets)
	for i := range static.Targets {
		t := &static.Targets[i]
		if t.Module.Probe == probe.HalfOpen {
			continue
		}
		r := remote{t.bareHost(), t.Port}
		was := open[r]
		now := was + t.Module.open(t.Pace)
		open[r] = now
		if was > most || now <= most {
			continue
		}
		d.fail(d.targets[origins[i]], "%s conversations with %s may be open at once, %s of this target (timeout %s every %s) and %s of the targets before it, and the guarded half of global.source_ports (%d-%d)%s is %d; widen it, lengthen an interval, or shorten a timeout",
			commas(now), t.Address, commas(t.Module.open(t.Pace)), Brief(t.Timeout), Brief(t.Interval), commas(was), ports.First, ports.Last, c.Global.byLoops(), most)
	}
}

// checkLimits refuses what would have to send more than the limits allow. A
// host name counts as one address: what it resolves to is not known here, and
// is held to the limits at run time.
func (d *decoder) checkLimits(c *Config, top *node) {
	static, origins := c.expand(nil, maxTargets)
	for _, x := range c.Global.Limits.excesses(static.Targets) {
		if x.at < 0 {
			d.failLimit(top, x.limit, x.says)
		} else {
			d.fail(d.targets[origins[x.at]], "%s", x.says)
		}
	}
}

// Exceeded says how probing the targets would exceed the limits, in a line for each
// limit; nothing if it would not. What does not fit is not sent at run time: those
// probes are skipped.
func (l Limits) Exceeded(ts []Target) []string {
	var lines []string
	for _, x := range l.excesses(ts) {
		lines = append(lines, visible(x.says))
	}
	return lines
}

// An excess is how targets exceed a limit.
type excess struct {
	limit string // its key
	at    int    // the first target that is too much for its address; -1: it is about all targets
	says  string
}

func (l Limits) excesses(ts []Target) (all []excess) {
	if len(ts) == 0 {
		return nil
	}
	var total, busiest rate
	each := make(map[string]rate)
	largest := 0   // the first target with the most packets a probe
	var over []int // the first target above its address's limit, for each such address
	for i := range ts {
		t, host := &ts[i], ts[i].bareHost()
		was := each[host]
		now := was + rate(t.PacketsPerSecond())
		each[host] = now
		total += rate(t.PacketsPerSecond())
		busiest = max(busiest, now)
		if t.Module.PacketsAtOnce() > ts[largest].Module.PacketsAtOnce() {
			largest = i
		}
		if most := l.PacketsPerSecondPerAddress; !was.above(most) && now.above(most) {
			over = append(over, i)
		}
	}
	packets := ts[largest].Module.PacketsAtOnce()
	switch most := l.PacketsPerSecond; {
	case packets > most:
		all = append(all, excess{"packets_per_second", -1, tooSmall(most, total, &ts[largest])})
	case total.above(most):
		all = append(all, excess{"packets_per_second", -1, fmt.Sprintf("%s make %s packets per second, the limit is %s; raise it, or lengthen the interval",
			arithmetic(ts), total, commas(most))})
	}
	switch most := l.PacketsPerSecondPerAddress; {
	case packets > most:
		all = append(all, excess{"packets_per_second_per_address", -1, tooSmall(most, busiest, &ts[largest])})
	case len(over) > 0:
		host, more := ts[over[0]].bareHost(), ""
		if n := len(over) - 1; n > 0 {
			more = fmt.Sprintf(" (and so for %s)", counted(n, "more address", "more addresses"))
		}
		same := slices.DeleteFunc(slices.Clone(ts), func(t Target) bool { return t.bareHost() != host })
		all = append(all, excess{"packets_per_second_per_address", over[0], fmt.Sprintf("%s to %s make %s packets per second, global.limits.packets_per_second_per_address is %s; raise it, or lengthen the interval%s",
			arithmetic(same), host, each[host], commas(most), more)})
	}
	return all
}

// tooSmall says that a single probe of t exceeds a limit, however long its
// interval: its packets are counted at once, when its SYN goes, so that it would
// never go. asked is the rate that the limit must have room for besides.
func tooSmall(is int, asked rate, t *Target) string {
	packets := t.Module.PacketsAtOnce()
	return fmt.Sprintf("a probe of %s by module %s is %d packets at once, the limit is %s, so none would ever go; raise it to at least %s",
		t.Address, t.Module.Name, packets, commas(is), commas(max(packets, asked.ceil())))
}

// failLimit records what is wrong with a limit, where it stands or, if it is the
// default, at the top of the file.
func (d *decoder) failLimit(top *node, limit, message string) {
	at := top
	if d.limits != nil {
		at = d.limits.value(limit)
	}
	d.failAt(at.Node, "global.limits."+limit, message)
}

// rate is in packets per second.
type rate float64

// slack is what adding up many rates may be off by.
const slack = 1e-9

func (r rate) above(limit int) bool { return float64(r) > float64(limit)*(1+slack) }

// String rounds up, so that a rate above a limit shows as one.
func (r rate) String() string { return commas(r.ceil()) }

func (r rate) ceil() int { return int(math.Ceil(float64(r) * (1 - slack))) }

// arithmetic says what some targets are made of: 12,000 targets × 2 packets
// every 1s.
func arithmetic(ts []Target) string {
	first, n := &ts[0], counted(len(ts), "target", "targets")
	for i := range ts {
		if ts[i].Interval != first.Interval || ts[i].Module.PacketsPerProbe() != first.Module.PacketsPerProbe() {
			return n
		}
	}
	return fmt.Sprintf("%s × %d packets every %s", n, first.Module.PacketsPerProbe(), Brief(first.Interval))
}
