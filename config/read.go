package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// builtin is the module of a job that names none.
const builtin = "half_open"

// defaultBuckets span what a handshake can take, from a local peer's 10 µs to a
// satellite path with queues, in steps of 2 to 2.5.
var defaultBuckets = []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6,
	1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5}

// initial returns the configuration of a file that says nothing.
func initial() *Config {
	c := &Config{Global: Global{
		Pace:            Pace{Interval: time.Second, Timeout: 900 * time.Millisecond},
		SourcePorts:     PortRange{61000, 61255},
		Loops:           1,
		Limits:          Limits{PacketsPerSecond: 20000, PacketsPerSecondPerAddress: 200},
		ResolveInterval: 30 * time.Second,
	}}
	c.addBuiltins()
	return c
}

// addBuiltins adds the modules that are there without a file saying so: each
// kind under its name.
func (c *Config) addBuiltins() {
	c.Modules = make(map[string]Module, len(allKinds))
	for _, k := range allKinds {
		m := newModule(k.String(), c.Global)
		m.become(k, c.Global)
		c.Modules[m.Name] = m
	}
}

// newModule returns a module that inherits everything. Its SYN is Linux's.
func newModule(name string, g Global) Module {
	return Module{
		Name:       name,
		Pace:       g.Pace,
		Flows:      1,
		Window:     64240,
		TCPOptions: TCPOptions{SACK: true, Timestamps: true, WindowScale: 7},
		Buckets:    append([]float64(nil), defaultBuckets...),
	}
}

func readGlobal(d *decoder, n *node, c *Config) {
	f := global.read(d, n, &c.Global)
	d.checkPace(f, c.Global.Pace)
	d.checkLoops(f, &c.Global)
	if n := f["limits"]; n != nil {
		d.limits = n
	}
	c.addBuiltins()
}

// leastPerLoop is the least part of a limit that a loop can do with. The longest probe,
// which sends maxSend, is 22 packets at once.
const leastPerLoop = 100

// checkLoops checks that there are ports and packets for each loop. If not, there is one
// for the rest of the checks.
func (d *decoder) checkLoops(f fields, g *Global) {
	n := f["loops"]
	switch least := leastPerLoop * g.Loops; {
	case g.Loops == 1 || n == nil:
		return
	case g.SourcePorts.Len() < 2*g.Loops:
		d.fail(n, "%d loops need at least 2 source ports each, and source_ports (%d-%d) is %d; widen it, or allow fewer loops",
			g.Loops, g.SourcePorts.First, g.SourcePorts.Last, g.SourcePorts.Len())
	case g.Limits.PacketsPerSecond < least:
		d.fail(n, "%d loops share the limit of %s packets per second, and each needs at least %d; raise limits.packets_per_second to %s, or allow fewer loops",
			g.Loops, commas(g.Limits.PacketsPerSecond), leastPerLoop, commas(least))
	default:
		return
	}
	g.Loops = 1
}

// checkPace checks an object's jitter against its interval. Where it says
// neither, it inherits both, and they have been checked.
func (d *decoder) checkPace(f fields, p Pace) {
	if n := f.first("jitter", "interval"); n != nil && p.Jitter > p.Interval {
		d.fail(n, "the jitter of %s exceeds the interval of %s; allowed: at most the interval", Brief(p.Jitter), Brief(p.Interval))
	}
}

func readModules(d *decoder, n *node, c *Config) {
	entries, _ := d.mapping(n, "a mapping of module names to modules")
	for _, e := range entries {
		if wrong := checkName(e.name); wrong != "" {
			d.failAt(e.key, e.value.path(), wrong)
		}
		m, builtIn := c.Modules[e.name]
		if !builtIn {
			m = newModule(e.name, c.Global)
		}
		f := module.read(d, e.value, &m)
		d.checkModule(f, &m, &c.Global)
		c.Modules[e.name], d.modules[e.name] = m, f
	}
}

// checkModule checks what one key alone cannot tell.
func (d *decoder) checkModule(f fields, m *Module, g *Global) {
	d.checkPace(f, m.Pace)
	d.checkConversation(f, m)
	if f["tos"] != nil && f["dscp"] != nil {
		d.fail(f["tos"], "tos and dscp set the same octet; remove one")
	}
	if at, most := f["flows"], m.ports(g.loopPorts()).Len(); at != nil && m.Flows > most {
		d.fail(at, "%d flows need as many source ports, and half of global.source_ports (%d-%d)%s is %d; widen it, or allow fewer flows",
			m.Flows, g.SourcePorts.First, g.SourcePorts.Last, g.byLoops(), most)
	}
	if src := m.SourceAddress; src.IsValid() && !m.IPProtocol.admits(src) {
		d.fail(f.first("source_address", "ip_protocol"), "source_address %s contradicts ip_protocol %s; change one of them", src, m.IPProtocol)
	}
}

// byLoops says that what was named is divided, if it is.
func (g *Global) byLoops() string {
	if g.Loops == 1 {
		return ""
	}
	return fmt.Sprintf(" for each of %d loops", g.Loops)
}

// ports returns the source ports that the module's probes leave from.
func (m *Module) ports(all PortRange) PortRange {
	if m.Probe == probe.HalfOpen || m.Probe == 0 {
		return all.Reserved()
	}
	return all.Guarded()
}

func readJobs(d *decoder, n *node, c *Config) {
	items, _ := d.list(n, "a list of jobs, each with a name and targets")
	names := make(map[string]*node)
	for _, item := range items {
		j := Job{Module: builtin, Pace: c.Modules[builtin].Pace}
		first := len(d.targets)
		f := job.read(d, item, &j)
		d.checkJob(item, f, &j, names)
		d.checkTargets(&j, d.targets[first:])
		c.Jobs = append(c.Jobs, j)
	}
}

// checkJob checks what one key alone cannot tell. names holds where each name
// was first.
func (d *decoder) checkJob(n *node, f fields, j *Job, names map[string]*node) {
	d.checkPace(f, j.Pace)
	d.checkSchedule(n, f, j)
	if at := f["name"]; at != nil {
		if was := names[j.Name]; was != nil {
			d.fail(at, "%s is taken; %s at line %d has the same name", quote(j.Name), was.up.path(), was.Line)
		} else if j.Name != "" {
			names[j.Name] = at
		}
	}
	if f == nil || f.has("targets", "static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs") {
		return
	}
	d.fail(n, "this job has nothing to probe; give it targets, static_configs, or a discovery such as file_sd_configs")
}

// readJobModule reads a job's module, and the pace that it gives the job.
func readJobModule(d *decoder, n *node, j *Job) {
	s, ok := d.text(n, "the name of a module")
	if !ok {
		return
	}
	m, ok := d.config.Modules[s]
	if !ok {
		d.fail(n, "%s", d.config.noModule(s))
		return
	}
	j.Module, j.Pace = m.Name, m.Pace
}

// noModule explains that there is no module of that name.
func (c *Config) noModule(s string) string {
	names := c.moduleNames()
	if near := nearest(s, names); near != "" {
		return "there is no module " + quote(s) + "; did you mean " + near + "?"
	}
	return "there is no module " + quote(s) + "; allowed: " + strings.Join(names, ", ")
}

func readStaticConfigs(d *decoder, n *node, j *Job) {
	items, _ := d.list(n, "a list of mappings with targets and labels")
	for _, item := range items {
		var g StaticConfig
		staticConfig.read(d, item, &g)
		j.StaticConfigs = append(j.StaticConfigs, g)
	}
}
