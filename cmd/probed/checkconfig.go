package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/memory"
	"github.com/probed/probed/probe"
)

// checkConfig reports every error of every file, and of a file without one what
// it would probe and how fast. The files of file_sd_configs are read; what web
// servers and name servers would say is not asked.
func checkConfig(files []string, o config.Options, stdout, stderr io.Writer) int {
	own, err := host.Addresses()
	if err != nil {
		fmt.Fprintf(stderr, "this host's addresses: %v\n", err)
		return 1
	}
	o.Own, o.Readable = func(a netip.Addr) bool { return slices.Contains(own, a) }, readableFiles
	budget := memory.Find()
	budget.Keep()
	o.Reserve = budget.Reserve
	code := 0
	for _, file := range files {
		c, err := o.Load(file)
		if err != nil {
			fmt.Fprintln(stderr, sayOwner(err, file))
			code = 1
			continue
		}
		found := c.ReadFiles()
		all := c.Expand(found.Found)
		verdict := "good"
		for _, wrong := range discovered(c, &found, &all) {
			fmt.Fprintf(stderr, "%s: %s\n", file, wrong)
			verdict = "good, but not what its file_sd_configs have"
			code = 1
		}
		fmt.Fprintf(stdout, "%s: %s\n", file, verdict)
		for _, p := range found.Absent {
			fmt.Fprintf(stdout, "  %s\n", p)
		}
		describe(stdout, c, &all)
	}
	return code
}

// discovered says what is wrong with what the files of file_sd_configs have.
func discovered(c *config.Config, found *config.Files, all *config.Expansion) (wrong []string) {
	for _, p := range slices.Concat(found.Broken, all.Problems) {
		wrong = append(wrong, p.String())
	}
	for _, over := range c.Global.Limits.Exceeded(all.Targets) {
		wrong = append(wrong, "with what file_sd_configs have, "+over)
	}
	return wrong
}

// describe says what a configuration would probe and how fast.
func describe(w io.Writer, c *config.Config, expanded *config.Expansion) {
	type job struct {
		targets, names  int
		probes, packets float64
	}
	jobs, kinds := make(map[string]*job), make(map[probe.Kind]*job)
	byAddress := make(map[netip.Addr]float64)
	var busiest netip.Addr
	var all job
	for _, t := range expanded.Targets {
		j := jobs[t.Job]
		if j == nil {
			j = new(job)
			jobs[t.Job] = j
		}
		k := kinds[t.Module.Probe]
		if k == nil {
			k = new(job)
			kinds[t.Module.Probe] = k
		}
		packets := t.PacketsPerSecond()
		for _, sum := range []*job{j, k, &all} {
			sum.targets++
			sum.probes += 1 / t.Interval.Seconds()
			sum.packets += packets
			if !t.IP.IsValid() {
				sum.names++
			}
		}
		if t.IP.IsValid() {
			if byAddress[t.IP] += packets; byAddress[t.IP] > byAddress[busiest] {
				busiest = t.IP
			}
		}
	}
	for i, conf := range c.Jobs {
		j := jobs[conf.Name]
		if j == nil && len(conf.Discovery) > 0 {
			j = new(job)
		}
		if j != nil {
			m := c.Modules[conf.Module]
			fmt.Fprintf(w, "  job %s: %s (%d by name), module %s, every %v, timeout %v: %.4g probes/s\n",
				conf.Name, targetCount(j.targets), j.names, moduleName(&m), conf.Interval, conf.Timeout, j.probes)
		}
		describeOrigin(w, &conf, &expanded.Jobs[i])
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		k := kinds[kind]
		fmt.Fprintf(w, "  %s: %s, %.4g probes/s, %.4g packets/s\n", kind, targetCount(k.targets), k.probes, k.packets)
	}
	l := c.Global.Limits
	fmt.Fprintf(w, "  together: %s, %.4g probes/s, %.4g of at most %d packets/s", targetCount(all.targets), all.probes, all.packets, l.PacketsPerSecond)
	if busiest.IsValid() {
		fmt.Fprintf(w, "; busiest address %s: %.4g of at most %d", busiest, byAddress[busiest], l.PacketsPerSecondPerAddress)
	}
	fmt.Fprintln(w)
	describeLists(w, &l)
	for i, part := range c.Global.SourcePorts.Split(c.Global.Loops) {
		fmt.Fprint(w, "  source ports")
		if c.Global.Loops > 1 {
			fmt.Fprintf(w, " of loop %d", i+1)
		}
		fmt.Fprintf(w, ": %d-%d for half_open, %d-%d for the other kinds\n",
			part.Reserved().First, part.Reserved().Last, part.Guarded().First, part.Guarded().Last)
	}
}

// listed is how many blocks of addresses are written out.
const listed = 10

// describeLists says which addresses nothing is sent to.
func describeLists(w io.Writer, l *config.Limits) {
	for _, of := range []struct {
		what   string
		blocks []netip.Prefix
	}{{"never probed (global.limits.deny)", l.Deny.List()}, {"nothing else is probed (global.limits.allow)", l.Allow.List()}} {
		if len(of.blocks) == 0 {
			continue
		}
		fmt.Fprintf(w, "  %s:", of.what)
		for _, b := range of.blocks[:min(listed, len(of.blocks))] {
			fmt.Fprintf(w, " %s", b)
		}
		if more := len(of.blocks) - listed; more > 0 {
			fmt.Fprintf(w, " and %d more", more)
		}
		fmt.Fprintln(w)
	}
}

// describeOrigin says where a job's targets come from beside the file, and where
// they go.
func describeOrigin(w io.Writer, j *config.Job, t *config.Tally) {
	say := func(format string, args ...any) {
		fmt.Fprintf(w, "  job %s: "+format+"\n", append([]any{j.Name}, args...)...)
	}
	mechanisms := make(map[string]int)
	for _, c := range j.Discovery {
		mechanisms[c.Name()]++
	}
	if mechanisms["file"] > 0 {
		say("file_sd_configs: %s in the files there are now", targetCount(t.Discovered))
	}
	for _, name := range []string{"http", "dns"} {
		if n := mechanisms[name]; n > 0 {
			say("%s_sd_configs: %d, not asked", name, n)
		}
	}
	if t.Dropped+t.Duplicates > 0 {
		say("relabel_configs: %s dropped, %d the same as others", targetCount(t.Dropped), t.Duplicates)
	}
	if j.Mesh.Peers > 0 {
		us := "this host has the address of none and probes none"
		if t.Member {
			us = "this host is one of them"
		}
		say("mesh: %d nodes known here, each probed by %d others at most; %s", t.Nodes, j.Mesh.Peers, us)
	}
	if t.Elsewhere > 0 {
		say("%s probed by others", targetCount(t.Elsewhere))
	}
}

// moduleName names a module, with what its probes do where the name does not say.
func moduleName(m *config.Module) string {
	name := m.Name
	if kind := m.Probe.String(); name != kind {
		name += " (" + kind + ")"
	}
	if m.Measure != 0 {
		name += ", measure " + m.Measure.String()
	}
	return name
}

func targetCount(n int) string {
	if n == 1 {
		return "1 target"
	}
	return fmt.Sprintf("%d targets", n)
}
