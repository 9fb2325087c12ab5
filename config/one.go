package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// One returns the target that an address makes with a module, outside of any job.
// It is probed once, so that it has no flows.
func (c *Config) One(module, address string) (Target, error) {
	m, ok := c.Modules[module]
	if !ok {
		known := slices.Sorted(maps.Keys(c.Modules))
		return Target{}, fmt.Errorf("module %s is not in the configuration; known: %s", quote(module), strings.Join(known, ", "))
	}
	e, err := ParseEndpoint(address)
	if err != nil {
		return Target{}, fmt.Errorf("target: %w", err)
	}
	if m.SourceAddress.IsValid() {
		m.IPProtocol = protocolOf(m.SourceAddress)
	}
	m.Flows, m.Resolve = 1, ResolveFirst
	t := Target{Endpoint: e, Module: &m, Pace: m.Pace}
	if wrong := t.contradiction(); wrong != "" {
		return Target{}, fmt.Errorf("target: %s", wrong)
	}
	return t, nil
}

// Within shortens the target's timeout so that one probe is over in a time. It
// fails where that takes longer whatever the timeout.
func (t *Target) Within(d time.Duration) error {
	m, share := t.Module, d
	switch m.Measure {
	case probe.MeasureDuration:
		return fmt.Errorf("module %s measures how long a TIME-WAIT lasts, for up to %s: give it to a job, and not to one scrape", m.Name, Brief(m.Limit))
	case probe.MeasureReuse:
		share = (d - m.After) / 2
	}
	if share <= max(m.Hold, time.Millisecond) {
		sum := "its hold of " + Brief(m.Hold)
		if m.Measure == probe.MeasureReuse {
			sum = "its after of " + Brief(m.After)
		}
		return fmt.Errorf("module %s needs more than the %s that there are for a probe: %s alone takes that long", m.Name, Brief(d), sum)
	}
	own := *m // the others' is not touched
	own.Timeout = min(m.Timeout, share)
	t.Module, t.Timeout = &own, own.Timeout
	return nil
}

// Longest returns how long one probe of the target can take.
func (t *Target) Longest() time.Duration {
	d, _ := t.Module.longest(t.Pace)
	return d
}
