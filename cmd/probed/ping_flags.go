package main

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/probed/probed/config"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// pingFlags are what `probed ping` is told. Of numbers and times 0 is as good as
// not given.
type pingFlags struct {
	hostPort          string
	kind              string
	count             int
	interval, timeout time.Duration
	ip4, ip6          bool
	device            string
	source            netip.Addr
	sourcePorts       config.PortRange
	flows             int
	send, sendFile    string
	hold, after       time.Duration
	afterSet          bool
	measure           string
	limit             time.Duration
	tos, ttl, mss     int

	ladder, segments, absolute, json, quiet bool
	write                                   string
}

// define adds the flags to the command.
func (f *pingFlags) define(cmd *kingpin.CmdClause) {
	kinds := kindNames()
	cmd.Flag("probe", "What a probe does: "+strings.Join(kinds, ", ")+".").PlaceHolder(kinds[0]).Default(kinds[0]).EnumVar(&f.kind, kinds...)
	number(cmd.Flag("count", "Stop after this many probes; without it at Ctrl-C.").Short('c').PlaceHolder("N"), 1, math.MaxInt32, &f.count)
	span(cmd.Flag("interval", "Time from one probe to the next, such as 200ms or 0.2, which are both a fifth of a second.").Short('i').PlaceHolder("1s"),
		10*time.Millisecond, 24*time.Hour, &f.interval)
	span(cmd.Flag("timeout", "Time from the SYN until a probe has failed: 900ms, and 5s of the kinds that go past the SYN-ACK.").Short('W').PlaceHolder("900ms"),
		time.Millisecond, 30*time.Minute, &f.timeout)
	cmd.Flag("ipv4", "Probe an IPv4 address of the host name.").Short('4').BoolVar(&f.ip4)
	cmd.Flag("ipv6", "Probe an IPv6 address of the host name.").Short('6').BoolVar(&f.ip6)
	cmd.Flag("interface", "Network interface to send through; without it routing decides.").Short('I').PlaceHolder("NAME").StringVar(&f.device)
	address(cmd.Flag("source-address", "Address to send from, one of this host's; without it routing decides.").Short('S').PlaceHolder("ADDRESS"), &f.source)
	portRange(cmd.Flag("source-ports", "Source ports to use in turn, which must be free; without it some above 61255.").PlaceHolder("FIRST-LAST"), &f.sourcePorts)
	number(cmd.Flag("flows", "Use this many source ports in turn, always the same ones, and tell their loss apart: each follows one path among several of equal cost.").
		PlaceHolder("1"), 1, 1024, &f.flows)
	cmd.Flag("send", `What to send once the connection is established, with \r, \n, \t, \0, \\, \" and \x00 to \xff for an octet each.`).PlaceHolder("TEXT").StringVar(&f.send)
	cmd.Flag("send-file", "A file whose content is sent instead.").PlaceHolder("FILE").StringVar(&f.sendFile)
	span(cmd.Flag("hold", "active_close: time from the last octet, or from the handshake, to our FIN.").PlaceHolder("0s"), 0, 5*time.Minute, &f.hold)
	cmd.Flag("measure", "time_wait: reuse, whether the peer takes a new SYN on the four-tuple, or duration, how long its TIME-WAIT lasts.").
		PlaceHolder(probe.MeasureReuse.String()).EnumVar(&f.measure, probe.MeasureReuse.String(), probe.MeasureDuration.String())
	span(cmd.Flag("after", "--measure=reuse: time from the last ACK to the new SYN.").PlaceHolder("1s").IsSetByUser(&f.afterSet), 0, time.Hour, &f.after)
	span(cmd.Flag("limit", "--measure=duration: how long the end of a TIME-WAIT is waited for.").PlaceHolder("4m"), 2*time.Second, 12*time.Hour, &f.limit)
	number(cmd.Flag("tos", "TOS octet, or traffic class, of what is sent: DSCP times 4, and ECN.").PlaceHolder("0"), 0, 255, &f.tos)
	number(cmd.Flag("ttl", "TTL or hop limit of what is sent; without it the host's default.").PlaceHolder("N"), 1, 255, &f.ttl)
	number(cmd.Flag("mss", "MSS option of the SYN; without it 1460 for IPv4 and 1440 for IPv6, or what the MTU of the route has room for, if that is less.").PlaceHolder("N"), 88, 65535, &f.mss)
	cmd.Flag("ladder", "Draw each conversation: both sides, their states, and every segment between them.").BoolVar(&f.ladder)
	cmd.Flag("segments", "Print each segment on a line, in tcpdump's manner.").BoolVar(&f.segments)
	cmd.Flag("absolute", "--segments: sequence numbers as on the wire, and not counted from each side's first.").BoolVar(&f.absolute)
	cmd.Flag("json", "Print a JSON object a line: each conversation, and at the end the summary.").BoolVar(&f.json)
	cmd.Flag("write", "Write every conversation to a pcapng file for Wireshark; - is the standard output.").Short('w').PlaceHolder("FILE").StringVar(&f.write)
	cmd.Flag("quiet", "Print the summary only.").Short('q').BoolVar(&f.quiet)
	cmd.Arg("host:port", "What to probe; an IPv6 address goes in brackets.").Required().StringVar(&f.hostPort)
}

func kindNames() []string {
	var names []string
	for _, k := range []probe.Kind{probe.HalfOpen, probe.ActiveClose, probe.PassiveClose, probe.TimeWaitProbe} {
		names = append(names, k.String())
	}
	return names
}

// plan makes of the flags what is to be probed and how, or says everything that is
// wrong with them.
func (p *pinger) plan() error {
	defaults := config.BuiltIn()
	m := defaults.Modules[p.kind]
	errs := p.contradictions(&m)
	if p.measure == probe.MeasureDuration.String() {
		m.Measures(probe.MeasureDuration)
	}
	for _, set := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&m.Interval, p.interval}, {&m.Timeout, p.timeout}, {&m.Hold, p.hold}, {&m.Limit, p.limit}} {
		if set.from > 0 {
			*set.to = set.from
		}
	}
	if p.afterSet {
		m.After = p.after
	}
	m.Flows = max(p.flows, 1)
	m.TOS, m.TTL, m.MSS = uint8(p.tos), uint8(p.ttl), uint16(p.mss)
	m.Interface, m.SourceAddress = p.device, p.source
	m.IPProtocol = p.family()
	var err error
	if m.Send, err = p.octets(); err != nil {
		errs = append(errs, err)
	}
	endpoint, err := config.ParseEndpoint(p.hostPort)
	if err != nil {
		errs = append(errs, err)
	}
	p.conf = config.Target{Endpoint: endpoint, Module: &m, Pace: m.Pace}
	errs = append(errs, p.unreachable())
	if err := m.Feasible(); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, p.tooFast(defaults.Global.Limits), p.tooFewPorts())
	}
	return errors.Join(errs...)
}

// contradictions lists the flags that do not go together.
func (p *pinger) contradictions(m *config.Module) (errs []error) {
	fail := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	past := p.send != "" || p.sendFile != ""
	fail(past && m.Probe == probe.HalfOpen, "half_open sends nothing: leave --send out, or choose another --probe")
	fail(p.send != "" && p.sendFile != "", "--send and --send-file both say what to send: leave one out")
	fail(p.hold > 0 && m.Probe != probe.ActiveClose, "--hold is for --probe=active_close, and this is %s", m.Probe)
	fail(p.measure != "" && m.Probe != probe.TimeWaitProbe, "--measure is for --probe=time_wait, and this is %s", m.Probe)
	duration := p.measure == probe.MeasureDuration.String()
	fail(p.afterSet && (m.Probe != probe.TimeWaitProbe || duration), "--after is for --probe=time_wait with --measure=reuse")
	fail(p.limit > 0 && !duration, "--limit is for --probe=time_wait with --measure=duration")
	fail(p.ip4 && p.ip6, "-4 and -6 exclude each other: leave one out")
	fail(p.source.IsValid() && (p.ip4 && p.source.Is6() || p.ip6 && p.source.Is4()), "the source address %s is not of the family that -4 or -6 asks for", p.source)
	fail(p.json && (p.ladder || p.segments), "--json has every segment in it: leave --ladder and --segments out")
	fail(p.json && p.write == "-", "--json and -w - both write to the standard output: give -w a file")
	fail(p.quiet && (p.ladder || p.segments), "-q prints the summary only: leave --ladder and --segments out")
	fail(p.absolute && !p.segments, "--absolute is for --segments")
	return errs
}

// family is the address family that is asked for.
func (p *pinger) family() config.IPProtocol {
	switch {
	case p.ip4 || p.source.Is4():
		return config.IP4
	case p.ip6 || p.source.Is6():
		return config.IP6
	}
	return config.AnyIP
}

func (p *pinger) octets() ([]byte, error) {
	if p.sendFile != "" {
		b, err := config.ReadSend(p.sendFile)
		if err != nil {
			return nil, fmt.Errorf("--send-file: %w", err)
		}
		return b, nil
	}
	b, err := config.ParseSend(p.send)
	if err != nil {
		return nil, fmt.Errorf("--send: %w", err)
	}
	return b, nil
}

// unreachable says why the address that was given cannot be probed in the way that
// was asked for.
func (p *pinger) unreachable() error {
	ip, zone := p.conf.IP, p.conf.IP.Zone()
	family := p.family()
	switch {
	case !ip.IsValid():
		return nil
	case family == config.IP4 && ip.Is6(), family == config.IP6 && ip.Is4():
		return fmt.Errorf("%s is not of the family that -4, -6 or the source address asks for", ip)
	case zone != "" && p.device != "" && zone != p.device:
		return fmt.Errorf("%s is reached through %s, and -I says %s: leave -I out", ip, zone, p.device)
	case ip.Is6() && ip.IsLinkLocalUnicast() && zone == "" && p.device == "":
		return fmt.Errorf("a link-local address needs its interface: write [%s%%eth0]:%d, say", ip, p.conf.Port)
	}
	return nil
}

// tooFast holds the pace to the limits, which are the daemon's defaults, and sets
// them for the engine: a pace that uses one up has a little more, to make up for a
// probe that was late.
func (p *pinger) tooFast(most config.Limits) error {
	m := p.conf.Module
	packets, limit := m.PacketsPerProbe(), most.PacketsPerSecondPerAddress
	p.limits = engine.Limits{Global: most.PacketsPerSecond, PerAddress: limit}
	least := time.Duration(packets) * time.Second / time.Duration(limit)
	switch {
	case m.Interval < least:
		return fmt.Errorf("-i %s is too fast: a probe is up to %d packets here, and probed sends an address no more than %d a second: -i %s or more",
			m.Interval, packets, limit, least.Truncate(time.Millisecond)+roundUp(least))
	case m.PacketsAtOnce() > limit:
		return fmt.Errorf("a probe is %d packets at once here, and probed sends an address no more than %d a second: send less", m.PacketsAtOnce(), limit)
	case m.Interval < least*101/100:
		p.limits.PerAddress += limit/100 + packets
	}
	return nil
}

// roundUp is what is missing from a time's milliseconds to the next whole one.
func roundUp(d time.Duration) time.Duration {
	if d%time.Millisecond == 0 {
		return 0
	}
	return time.Millisecond
}

// ports is how many source ports the probes need: enough for those that can be
// open at once, and no more than there are probes.
func (p *pinger) ports() int {
	m := p.conf.Module
	n := max(usualPorts, m.Conversations())
	if p.count > 0 {
		n = min(n, p.count)
	}
	return max(n, m.Flows)
}

// tooFewPorts says that the source ports do not suffice: half_open gives way where
// there are fewer than it would use, the other kinds hold theirs.
func (p *pinger) tooFewPorts() error {
	m := p.conf.Module
	have, need := lastPingPort-firstPingPort, p.ports()
	if p.sourcePorts != (config.PortRange{}) {
		have, need = p.sourcePorts.Len()-1, m.Flows
		if m.Probe != probe.HalfOpen {
			need = max(need, m.Conversations())
		}
	}
	if need > have {
		return fmt.Errorf("up to %d source ports are in use at once, and there are %d (one more is for the self-test): give more, lengthen the interval, or shorten the timeout", need, have)
	}
	return nil
}

// The kinds of values that kingpin does not have, or explains badly.

// value is a flag's value that is read by a function.
type value struct {
	read func(string) error
	text string
}

// Set implements kingpin.Value.
func (v *value) Set(s string) error {
	v.text = s
	return v.read(s)
}

// String implements kingpin.Value.
func (v *value) String() string { return v.text }

func number(f *kingpin.FlagClause, least, most int, to *int) {
	name := f.Model().Name
	f.SetValue(&value{read: func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return fmt.Errorf("--%s=%s: allowed is a whole number from %d to %d", name, s, least, most)
		}
		*to = n
		return nil
	}})
}

// span is a time: as Go writes it, or in plain seconds.
func span(f *kingpin.FlagClause, least, most time.Duration, to *time.Duration) {
	name := f.Model().Name
	f.SetValue(&value{read: func(s string) error {
		d, err := time.ParseDuration(s)
		if seconds, e := strconv.ParseFloat(s, 64); e == nil && math.Abs(seconds) < 1e9 {
			d, err = time.Duration(math.Round(seconds*1e9)), nil
		}
		switch {
		case err != nil:
			return fmt.Errorf("--%s=%s: not a time: write 1s, 200ms, 1m30s, or 0.2 for seconds", name, s)
		case d < least || d > most:
			return fmt.Errorf("--%s=%s: allowed is %s to %s", name, s, config.Brief(least), config.Brief(most))
		}
		*to = d
		return nil
	}})
}

func address(f *kingpin.FlagClause, to *netip.Addr) {
	name := f.Model().Name
	f.SetValue(&value{read: func(s string) error {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" || config.NotUnicast(ip) != "" {
			return fmt.Errorf("--%s=%s: not an address to send from; an interface goes to -I", name, s)
		}
		*to = ip.Unmap()
		return nil
	}})
}

func portRange(f *kingpin.FlagClause, to *config.PortRange) {
	name := f.Model().Name
	f.SetValue(&value{read: func(s string) error {
		r, err := config.ParsePortRange(s)
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		*to = r
		return nil
	}})
}

// joinDash makes of -w - one argument, --write=-: kingpin reads a lone dash as an
// argument that is empty.
func joinDash(args []string) []string {
	var joined []string
	for _, a := range args {
		if n := len(joined); a == "-" && n > 0 && (joined[n-1] == "-w" || joined[n-1] == "--write") {
			joined[n-1] = "--write=-"
			continue
		}
		joined = append(joined, a)
	}
	return joined
}

// splitLines returns the lines of a text that says something.
func splitLines(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}
