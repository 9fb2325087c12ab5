package config

// Target is one thing to probe, with everything in force.
type Target struct {
	Endpoint
	Job    string
	Module Module // with the job's pace, and the source address's ip_protocol
	Pace
	Labels Labels // the target's own; shared between targets, read only
}

// PacketsPerSecond returns the most that probing this target makes the host
// send to one of its addresses.
func (t *Target) PacketsPerSecond() float64 {
	return float64(t.Module.PacketsPerProbe()) / t.Interval.Seconds()
}

// Targets returns every target in the file's order.
func (c *Config) Targets() []Target {
	var all []Target
	for i := range c.Jobs {
		all = c.Jobs[i].appendTargets(all, c.Modules)
	}
	return all
}

// appendTargets expands one job.
func (j *Job) appendTargets(all []Target, modules map[string]Module) []Target {
	m := modules[j.Module]
	m.Pace = j.Pace
	if m.SourceAddress.IsValid() {
		m.IPProtocol = protocolOf(m.SourceAddress)
	}
	groups := append([]StaticConfig{{Targets: j.Targets}}, j.StaticConfigs...)
	for _, g := range groups {
		labels := j.Labels.merge(g.Labels)
		for _, e := range g.Targets {
			all = append(all, Target{Endpoint: e, Job: j.Name, Module: m, Pace: j.Pace, Labels: labels})
		}
	}
	return all
}
