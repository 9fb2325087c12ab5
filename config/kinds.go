package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/probe"
	"gopkg.in/yaml.v3"
)

// The kinds of probes, each a built-in module of its own name.
var (
	allKinds     = []probe.Kind{probe.HalfOpen, probe.ActiveClose, probe.PassiveClose, probe.TimeWaitProbe}
	onlyHalfOpen = allKinds[:1]
	onlyActive   = allKinds[1:2]
	onlyTimeWait = allKinds[3:]
	peerCloses   = allKinds[2:] // the peer closes first
	pastSYNACK   = allKinds[1:]
)

const (
	shortestInterval  = 10 * time.Millisecond
	longestInterval   = 24 * time.Hour
	shortestTimeout   = time.Millisecond
	connectionTimeout = 5 * time.Second  // of the kinds that go past the SYN-ACK
	longestTimeout    = 30 * time.Minute // of those that wait for the peer to close
	usualTimeout      = 5 * time.Minute  // the longest of the others
	reuseAfter        = time.Second
	durationLimit     = 4 * time.Minute // 2 MSL, RFC 9293 §3.4.2
	durationInterval  = 5 * time.Minute
)

// kindNames lists kinds for people.
func kindNames(kinds []probe.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.String()
	}
	return strings.Join(names, ", ")
}

// kindOf returns the kind of a name, or 0.
func kindOf(name string) probe.Kind {
	for _, k := range allKinds {
		if k.String() == name {
			return k
		}
	}
	return 0
}

// kind is a way of probing.
var kind = scalar(kindNames(allKinds), func(s string) (probe.Kind, string) {
	if k := kindOf(s); k != 0 {
		return k, ""
	}
	return 0, quote(s) + " is not a kind of probe; allowed: " + kindNames(allKinds)
}, probe.Kind.String)

// measure is what of a TIME-WAIT to measure.
var measure = scalar("reuse, duration", func(s string) (probe.Measure, string) {
	for _, m := range []probe.Measure{probe.MeasureReuse, probe.MeasureDuration} {
		if m.String() == s {
			return m, ""
		}
	}
	return 0, quote(s) + " is not known; allowed: reuse, duration"
}, probe.Measure.String)

// become makes a module one of a kind, with that kind's defaults.
func (m *Module) become(k probe.Kind, g Global) {
	m.Probe = k
	if k != probe.HalfOpen {
		m.Timeout = connectionTimeout
	}
	if k == probe.TimeWaitProbe {
		m.measures(probe.MeasureReuse, g)
	}
}

// measures sets what a time_wait module measures, with its defaults.
func (m *Module) measures(what probe.Measure, g Global) {
	m.Measure, m.After, m.Limit = what, reuseAfter, 0
	if what == probe.MeasureDuration {
		m.After, m.Limit = 0, durationLimit
		m.Interval = max(g.Interval, durationInterval)
		m.TCPOptions.Timestamps = false
	}
}

// readKind reads what a module's probes do. A module that is named like a kind
// is of that kind already.
func readKind(d *decoder, n *node, m *Module) {
	k, ok := kind.read(d, n)
	switch {
	case !ok:
	case m.Probe == 0:
		m.become(k, d.config.Global)
	case m.Probe != k:
		d.fail(n, "%s is the built-in module of that kind and cannot be %s; choose another name for this module", m.Name, k)
	}
}

// readMeasure reads what a time_wait module measures. It comes before the keys
// whose defaults depend on it.
func readMeasure(d *decoder, n *node, m *Module) {
	if what, ok := measure.read(d, n); ok && m.Probe == probe.TimeWaitProbe {
		m.measures(what, d.config.Global)
	}
}

// of makes a key one that only modules of some kinds have.
func of(kinds []probe.Kind, k key[Module]) key[Module] {
	write := k.write
	k.Kinds = kinds
	k.write = func(m *Module) *yaml.Node {
		if !slices.Contains(kinds, m.Probe) {
			return nil
		}
		return write(m)
	}
	return k
}

// measuring makes a key one that only modules with a measure have.
func measuring(what probe.Measure, k key[Module]) key[Module] {
	k = of(onlyTimeWait, k)
	write := k.write
	k.write = func(m *Module) *yaml.Node {
		if m.Measure != what {
			return nil
		}
		return write(m)
	}
	return k
}

// checkKeys refuses the keys that a module's kind has no use for.
func (d *decoder) checkKeys(f fields, m *Module) {
	if m.Probe == 0 {
		return // has its own error
	}
	for _, k := range module.keys {
		if n := f[k.Path]; n != nil && k.Kinds != nil && !slices.Contains(k.Kinds, m.Probe) {
			d.fail(n, "belongs to %s, and this module's probe is %s%s; remove it", kindNames(k.Kinds), m.Probe, f.line("probe"))
		}
	}
	if at := f["measure"]; m.Probe != probe.TimeWaitProbe || f.has("measure") && (at == nil || at.Value != m.Measure.String()) {
		return // a measure that is misspelt has its own error
	}
	what, keys := probe.MeasureReuse, []string{"after", "sequence"}
	if m.Measure == what {
		what, keys = probe.MeasureDuration, []string{"limit"}
	}
	for _, name := range keys {
		if n := f[name]; n != nil {
			d.fail(n, "belongs to measure: %s, and this module's measure is %s%s; remove it", what, m.Measure, f.line("measure"))
		}
	}
}

// line says where one of the fields stands, if it is there.
func (f fields) line(name string) string {
	if n := f[name]; n != nil {
		return fmt.Sprintf(" (line %d)", n.Line)
	}
	return ""
}

// checkConversation checks what of a conversation one key alone cannot tell.
func (d *decoder) checkConversation(f fields, m *Module) {
	d.checkKeys(f, m)
	if n := f["send_file"]; n != nil && f["send"] != nil {
		d.fail(n, "send%s says what to send already; remove one", f.line("send"))
	}
	if n := f["fin_with_data"]; n != nil && m.FINWithData && m.Probe == probe.ActiveClose {
		switch {
		case m.Hold > 0:
			d.fail(n, "our FIN cannot be on the last segment of data and be held back: hold is %s%s; remove one", Brief(m.Hold), f.line("hold"))
		case len(m.Send) == 0 && f["send_file"] == nil && (f["send"] == nil || f["send"].Value == ""):
			d.fail(n, "there is no data for our FIN to be on%s; give the module send or send_file", f.line("send"))
		}
	}
	if n := f["tcp_options"]; n != nil && m.Measure == probe.MeasureDuration && m.TCPOptions.Timestamps {
		d.fail(n.value("timestamps"), "measure: duration%s opens without timestamps: with them, the SYN that looks whether the TIME-WAIT is still there has a newer one, and Linux ends the TIME-WAIT at that; remove one", f.line("measure"))
	}
}

// longest returns how long a probe of the module can take until nothing of it is
// open any more, and of what that is the sum.
func (m *Module) longest(p Pace) (time.Duration, string) {
	timeout := "timeout " + Brief(p.Timeout)
	switch m.Measure {
	case probe.MeasureReuse:
		return 2*p.Timeout + m.After, fmt.Sprintf("twice the %s and after %s", timeout, Brief(m.After))
	case probe.MeasureDuration:
		return p.Timeout + m.Limit, fmt.Sprintf("%s and limit %s", timeout, Brief(m.Limit))
	}
	return p.Timeout, timeout
}

// open returns how many conversations with one target can be open at once by the
// schedule.
func (m *Module) open(p Pace) int {
	most, _ := m.longest(p)
	return int((most + p.Jitter + p.Interval - 1) / p.Interval)
}

// schedule says what speaks against probing at a pace, or nothing, and which
// keys it lies at.
func (m *Module) schedule(p Pace, g *Global) (wrong string, keys []string) {
	if m.Probe == 0 {
		return "", nil
	}
	if p.Timeout > usualTimeout && !slices.Contains(peerCloses, m.Probe) {
		return fmt.Sprintf("a timeout of %s is too long for %s; allowed: up to %s, and for %s up to %s",
			Brief(p.Timeout), m.Probe, Brief(usualTimeout), kindNames(peerCloses), Brief(longestTimeout)), []string{"timeout"}
	}
	if m.Probe == probe.HalfOpen {
		return "", nil
	}
	most, sum := m.longest(p)
	if p.Jitter > 0 {
		sum += " and jitter " + Brief(p.Jitter)
	}
	open, guarded := m.open(p), g.loopPorts().Guarded().Len()
	keys = []string{"interval", "timeout", "after", "limit", "jitter", "flows"}
	switch {
	case m.Hold > 0 && m.Hold >= p.Timeout:
		return fmt.Sprintf("with hold %s our FIN would go after the timeout of %s; shorten hold, or lengthen the timeout", Brief(m.Hold), Brief(p.Timeout)),
			[]string{"hold", "timeout"}
	case m.Measure == probe.MeasureDuration && p.Interval < most+p.Jitter:
		return fmt.Sprintf("measure: duration touches a peer at most once a second, so that one probe must end before the next begins: %s make %s, the interval is %s; lengthen it, or shorten limit",
			sum, Brief(most+p.Jitter), Brief(p.Interval)), keys
	case m.Flows > 1 && open > m.Flows:
		return fmt.Sprintf("%s every %s: %d conversations with a target may be open at once, and it has %d flows; allow more, lengthen the interval, or shorten the timeout",
			sum, Brief(p.Interval), open, m.Flows), keys
	case open > guarded:
		return fmt.Sprintf("%s every %s: %s conversations with a target may be open at once, and the guarded half of global.source_ports (%d-%d)%s is %d; widen it, lengthen the interval, or shorten the timeout",
			sum, Brief(p.Interval), commas(open), g.SourcePorts.First, g.SourcePorts.Last, g.byLoops(), guarded), keys
	}
	return "", nil
}

// checkSchedule checks a job's pace against what its module does. A module that
// no job uses has no schedule yet. What is wrong is told at the first of the keys
// that it lies at, the job's or else the module's, with the places of the others.
func (d *decoder) checkSchedule(n *node, f fields, j *Job) {
	m := d.config.Modules[j.Module]
	wrong, keys := m.schedule(j.Pace, &d.config.Global)
	if wrong == "" {
		return
	}
	var there []*node
	for _, of := range []fields{f, d.modules[j.Module]} {
		for _, k := range keys {
			if at := of[k]; at != nil {
				there = append(there, at)
			}
		}
	}
	if len(there) == 0 {
		there = append(there, n)
	}
	var others []string
	for _, at := range there[1:] {
		others = append(others, fmt.Sprintf("%s: line %d", at.path(), at.Line))
	}
	if len(others) > 0 {
		wrong += " (" + strings.Join(others, ", ") + ")"
	}
	d.fail(there[0], "%s", wrong)
}
