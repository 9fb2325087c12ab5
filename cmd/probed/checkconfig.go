package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/probed/probed/config"
	"github.com/probed/probed/probe"
)

// checkConfig reports every error of every file, and of a file without one what
// it would probe and how fast.
func checkConfig(files []string, stdout, stderr io.Writer) int {
	code := 0
	for _, file := range files {
		c, err := config.Load(file)
		if err != nil {
			fmt.Fprintln(stderr, err)
			code = 1
			continue
		}
		fmt.Fprintf(stdout, "%s: good\n", file)
		describe(stdout, c)
	}
	return code
}

// describe says what a configuration would probe and how fast.
func describe(w io.Writer, c *config.Config) {
	type job struct {
		targets, names  int
		probes, packets float64
	}
	jobs, kinds := make(map[string]*job), make(map[probe.Kind]*job)
	byAddress := make(map[netip.Addr]float64)
	var busiest netip.Addr
	var all job
	for _, t := range c.Targets() {
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
	for _, conf := range c.Jobs {
		if j := jobs[conf.Name]; j != nil {
			m := c.Modules[conf.Module]
			fmt.Fprintf(w, "  job %s: %s (%d by name), module %s, every %v, timeout %v: %.4g probes/s\n",
				conf.Name, targetCount(j.targets), j.names, moduleName(&m), conf.Interval, conf.Timeout, j.probes)
		}
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
	fmt.Fprintf(w, "\n  source ports: %d-%d for half_open, %d-%d for the other kinds\n",
		c.Global.SourcePorts.Reserved().First, c.Global.SourcePorts.Reserved().Last,
		c.Global.SourcePorts.Guarded().First, c.Global.SourcePorts.Guarded().Last)
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
