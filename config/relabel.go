package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// The labels by which relabelling says how a target is probed.
const (
	moduleLabel   = "__module__"
	intervalLabel = "__interval__"
	timeoutLabel  = "__timeout__"
)

var wayLabels = []string{moduleLabel, intervalLabel, timeoutLabel}

// relabeller makes targets of one job out of labels.
type relabeller struct {
	c         *Config
	j         *Job
	plain     way       // of targets that say nothing else
	preset    [3]string // of the three labels
	ways      map[[3]string]way
	before    []promlabels.Label // of one target
	builder   *promlabels.Builder
	wayWrong  bool   // what was wrong last is how to probe, and not what
	last      Labels // fingerprinted last
	lastPrint string
}

// way is how a target is probed, or why it cannot be.
type way struct {
	module Module // with the pace in force
	wrong  string
}

func newRelabeller(c *Config, j *Job) relabeller {
	m := c.Modules[j.Module]
	m.Pace = j.Pace
	if m.SourceAddress.IsValid() {
		m.IPProtocol = protocolOf(m.SourceAddress)
	}
	r := relabeller{
		c: c, j: j,
		plain:   way{module: m}, // a job's own way is checked when it is read
		preset:  [3]string{j.Module, model.Duration(j.Interval).String(), model.Duration(j.Timeout).String()},
		ways:    make(map[[3]string]way),
		builder: promlabels.NewBuilder(promlabels.EmptyLabels()),
	}
	r.ways[r.preset] = r.plain
	return r
}

// static makes a target of one of the file.
func (r *relabeller) static(e *Endpoint, own Labels) (t Target, keep bool, wrong string) {
	if len(r.j.Relabel) == 0 && !slices.ContainsFunc(own, func(l Label) bool { return strings.HasPrefix(l.Name, "__") }) {
		t = Target{Endpoint: *e, Job: r.j.Name, Module: r.plain.module, Pace: r.j.Pace, Labels: own}
		return t, true, r.check(&t)
	}
	r.before = r.before[:0]
	r.set(model.AddressLabel, e.Address)
	for _, l := range own {
		r.set(l.Name, l.Value)
	}
	for i, name := range wayLabels {
		if !slices.ContainsFunc(own, func(l Label) bool { return l.Name == name }) {
			r.set(name, r.preset[i])
		}
	}
	return r.relabelled(e)
}

// discovered makes a target of a discovered one. Its own labels win over its
// group's, and those over the job's.
func (r *relabeller) discovered(own, group model.LabelSet) (t Target, keep bool, wrong string) {
	r.before = r.before[:0]
	for name, value := range own {
		r.set(string(name), string(value))
	}
	for name, value := range group {
		if _, is := own[name]; !is {
			r.set(string(name), string(value))
		}
	}
	beneath := func(name, value string) {
		_, is := own[model.LabelName(name)]
		_, so := group[model.LabelName(name)]
		if !is && !so {
			r.set(name, value)
		}
	}
	for _, l := range r.j.Labels {
		beneath(l.Name, l.Value)
	}
	for i, name := range wayLabels {
		beneath(name, r.preset[i])
	}
	return r.relabelled(&Endpoint{})
}

// set gives a target a label before relabelling. An empty value is no label, but
// hides those beneath.
func (r *relabeller) set(name, value string) {
	if value != "" {
		r.before = append(r.before, promlabels.Label{Name: name, Value: value})
	}
}

// relabelled makes a target of the labels that are set, by the job's rules. e is
// its address before them, if that has been read.
func (r *relabeller) relabelled(e *Endpoint) (t Target, keep bool, wrong string) {
	// New sorts them: a labelmap that makes one of two labels takes the same one always.
	r.builder.Reset(promlabels.New(r.before...))
	if !relabel.ProcessBuilder(r.builder, r.j.Relabel...) {
		return t, false, ""
	}
	t = Target{Endpoint: *e, Job: r.j.Name}
	if a := r.builder.Get(model.AddressLabel); a != e.Address {
		t.Endpoint = Endpoint{Address: a}
	}
	w := r.way([3]string{r.builder.Get(moduleLabel), r.builder.Get(intervalLabel), r.builder.Get(timeoutLabel)})
	if r.wayWrong = w.wrong != ""; r.wayWrong {
		return t, true, w.wrong
	}
	t.Module, t.Pace = w.module, w.module.Pace
	if t.Labels, wrong = r.labels(); wrong != "" {
		return t, true, wrong
	}
	return t, true, r.check(&t)
}

// labels returns what of the labels that are set is for the metrics.
func (r *relabeller) labels() (ls Labels, wrong string) {
	ls = make(Labels, 0, len(r.before))
	r.builder.Range(func(l promlabels.Label) {
		switch {
		case wrong != "" || strings.HasPrefix(l.Name, "__") || l.Value == "":
			return
		case !model.LegacyValidation.IsValidLabelName(l.Name):
			wrong = quote(l.Name) + " is not a label name; allowed: letters, digits and _, not starting with a digit"
		case len(l.Value) > maxLabelValue:
			wrong = fmt.Sprintf("the value of label %s is too long; allowed: %s octets", clip(l.Name), commas(maxLabelValue))
		case checkLabelValue(l.Value) != "":
			wrong = "label " + clip(l.Name) + ": " + checkLabelValue(l.Value)
		case len(ls) == maxLabels:
			wrong = fmt.Sprintf("it has more than %d labels", maxLabels)
		}
		ls = append(ls, Label{l.Name, l.Value})
	})
	return exported(ls), wrong
}

// check completes a target's address and says what speaks against probing it, or
// nothing.
func (r *relabeller) check(t *Target) (wrong string) {
	if t.Port == 0 { // not read, or not as it should be
		if t.Endpoint, wrong = parseEndpoint(t.Address); wrong != "" {
			return wrong
		}
	}
	if r.j.Mesh.Peers > 0 && !t.IP.IsValid() {
		return t.Address + " is a host name, and it is by their addresses that the nodes of a mesh know themselves; write its IP address, or find it by dns_sd_configs of type A or AAAA"
	}
	return t.contradiction()
}

// way returns how a target is probed with the values of the three labels.
func (r *relabeller) way(says [3]string) way {
	for i, s := range says {
		if s == "" {
			says[i] = r.preset[i]
		}
	}
	w, known := r.ways[says]
	if !known {
		w = r.another(says[0], says[1], says[2])
		if len(r.ways) < 1000 { // whatever discovery comes up with
			r.ways[says] = w
		}
	}
	return w
}

// another returns how a target is probed that does not follow its job.
func (r *relabeller) another(name, interval, timeout string) (w way) {
	m, ok := r.c.Modules[name]
	if !ok {
		return way{wrong: moduleLabel + ": " + r.c.noModule(name)}
	}
	p := r.j.Pace
	if name != r.j.Module { // what the job inherits, it inherits from that module
		p = m.Pace
		if r.j.states.interval {
			p.Interval = r.j.Interval
		}
		if r.j.states.timeout {
			p.Timeout = r.j.Timeout
		}
		if r.j.states.jitter {
			p.Jitter = r.j.Jitter
		}
	}
	for _, o := range []struct {
		label, says, preset string
		least, most         time.Duration
		to                  *time.Duration
	}{
		{intervalLabel, interval, r.preset[1], shortestInterval, longestInterval, &p.Interval},
		{timeoutLabel, timeout, r.preset[2], shortestTimeout, longestTimeout, &p.Timeout},
	} {
		if o.says == o.preset {
			continue
		}
		d, wrong := parseDuration(o.says, o.least, o.most)
		if wrong != "" {
			return way{wrong: o.label + ": " + wrong}
		}
		*o.to = d
	}
	if p.Jitter > p.Interval {
		return way{wrong: fmt.Sprintf("the jitter of %s exceeds the interval of %s", Brief(p.Jitter), Brief(p.Interval))}
	}
	if wrong, _ := m.schedule(p, r.c.Global.SourcePorts); wrong != "" {
		return way{wrong: wrong}
	}
	m.Pace = p
	if m.SourceAddress.IsValid() {
		m.IPProtocol = protocolOf(m.SourceAddress)
	}
	return way{module: m}
}
