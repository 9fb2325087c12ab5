package config

import (
	"fmt"
	"net/netip"
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
	writes    [3]bool   // whether a rule may write the label
	said      [3]bool   // whether a target says by itself, or its group
	ways      map[saying]way
	before    []promlabels.Label // of one target
	builder   *promlabels.Builder
	wayWrong  bool       // what was wrong last is how to probe, and not what
	refused   netip.Addr // what was wrong last is that the limits forbid this
	last      Labels     // fingerprinted last
	lastPrint string
}

// saying is what the three labels say, and whether each is said, or is the job's own.
type saying struct {
	values [3]string
	said   [3]bool
}

// way is how a target is probed, or why it cannot be.
type way struct {
	module *Module // with the pace in force
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
		plain:   way{module: &m}, // a job's own way is checked when it is read
		preset:  [3]string{j.Module, model.Duration(j.Interval).String(), model.Duration(j.Timeout).String()},
		ways:    make(map[saying]way),
		builder: promlabels.NewBuilder(promlabels.EmptyLabels()),
	}
	r.ways[saying{values: r.preset}] = r.plain
	for i, name := range wayLabels {
		r.writes[i] = slices.ContainsFunc(j.Relabel, func(rule *relabel.Config) bool { return mayWrite(rule, name) })
	}
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
		r.said[i] = slices.ContainsFunc(own, func(l Label) bool { return l.Name == name })
		if !r.said[i] {
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
	beneath := func(name, value string) (above bool) {
		_, is := own[model.LabelName(name)]
		_, so := group[model.LabelName(name)]
		if !is && !so {
			r.set(name, value)
		}
		return is || so
	}
	for _, l := range r.j.Labels {
		beneath(l.Name, l.Value)
	}
	for i, name := range wayLabels {
		r.said[i] = beneath(name, r.preset[i])
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
	given := 0
	for _, l := range r.before { // New copies all of them for each target, and panics at one of more than 16 MiB
		given += len(l.Name) + len(l.Value)
	}
	if given > mostGiven {
		return t, true, "its labels before relabelling are longer than 256 KiB"
	}
	// New sorts them: a labelmap that makes one of two labels takes the same one always.
	r.builder.Reset(promlabels.New(r.before...))
	if keep, wrong = process(r.builder, r.j.Relabel); !keep || wrong != "" {
		return t, keep, wrong
	}
	t = Target{Endpoint: *e, Job: r.j.Name}
	if a := r.builder.Get(model.AddressLabel); a != e.Address {
		t.Endpoint = Endpoint{Address: strings.Clone(a)} // as labels does
	}
	w := r.way(r.saying())
	if r.wayWrong = w.wrong != ""; r.wayWrong {
		return t, true, w.wrong
	}
	t.Module, t.Pace = w.module, w.module.Pace
	if t.Labels, wrong = r.labels(); wrong != "" {
		return t, true, wrong
	}
	return t, true, r.check(&t)
}

// saying returns what the three labels say after the rules.
func (r *relabeller) saying() (s saying) {
	for i, name := range wayLabels {
		s.values[i], s.said[i] = r.builder.Get(name), r.said[i]
		if s.values[i] == "" {
			s.values[i], s.said[i] = r.preset[i], false
		}
	}
	for i := range wayLabels {
		// Only another module would have another interval than the job's.
		if s.values[i] != r.preset[i] {
			s.said[i] = true
		} else if !s.said[i] && s.values[0] != r.preset[0] && r.writes[i] {
			s.said[i] = r.written(i)
		}
	}
	return s
}

// mayWrite reports whether a rule may write a label.
func mayWrite(rule *relabel.Config, label string) bool {
	switch rule.Action {
	case relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual, relabel.LabelDrop, relabel.LabelKeep:
		return false
	case relabel.LabelMap:
		return true
	}
	return rule.TargetLabel == label || strings.Contains(rule.TargetLabel, "$")
}

// written reports whether the rules write one of the three labels as the job has it
// anyway: whether they do so too where the job does not say it.
func (r *relabeller) written(i int) bool {
	without := slices.DeleteFunc(slices.Clone(r.before), func(l promlabels.Label) bool { return l.Name == wayLabels[i] })
	b := promlabels.NewBuilder(promlabels.New(without...))
	keep, wrong := process(b, r.j.Relabel)
	return keep && wrong == "" && b.Get(wayLabels[i]) == r.preset[i]
}

// Bounds of what rules may make of a target's labels on the way: what they leave has much less.
const (
	mostGiven    = 256 << 10 // octets of all labels before the rules
	longestValue = 1 << 20   // octets of a label's value, or name
	mostMade     = 16 << 20  // octets that all rules join, and write
	mostLabels   = 1 << 12
)

// process is relabel.ProcessBuilder, one rule after the other: a few that each make a
// label of itself several times over, or twice as many labels, would take all the memory that there is.
func process(b *promlabels.Builder, rules []*relabel.Config) (keep bool, wrong string) {
	made := int64(0)
	for _, rule := range rules {
		if made += makes(b, rule); made > mostMade {
			return true, "the rules join and write more than 16 MiB"
		}
		if !relabel.ProcessBuilder(b, rule) {
			return false, ""
		}
		switch long, n := false, 0; {
		case rule.Action != relabel.LabelMap && !strings.Contains(rule.TargetLabel, "$"):
			if rule.TargetLabel != "" && len(b.Get(rule.TargetLabel)) > longestValue {
				return true, "the rules make label " + rule.TargetLabel + " longer than 1 MiB"
			}
		default: // whichever it is
			b.Range(func(l promlabels.Label) { n, long = n+1, long || max(len(l.Name), len(l.Value)) > longestValue })
			if long {
				return true, "a rule (" + string(rule.Action) + ") makes a label longer than 1 MiB"
			}
			if n > mostLabels {
				return true, "the rules make more than 4,096 labels"
			}
		}
	}
	return true, ""
}

// makes bounds from above how many octets a rule joins and writes.
func makes(b *promlabels.Builder, rule *relabel.Config) (n int64) {
	for _, name := range rule.SourceLabels {
		n += int64(len(b.Get(string(name))) + len(rule.Separator))
	}
	times := strings.Count(rule.Replacement, "$")
	switch rule.Action {
	case relabel.Replace:
		n *= int64(max(1, times+strings.Count(rule.TargetLabel, "$")))
	case relabel.LabelMap:
		b.Range(func(l promlabels.Label) { n += int64(len(l.Name))*int64(times) + int64(len(rule.Replacement)) })
	}
	return n
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
	ls.copyOut()
	return exported(ls), wrong
}

// copyOut has labels keep no more than themselves: the library has all that a target had before the
// rules in one text, and what any of them is keeps the whole.
func (ls Labels) copyOut() {
	n := 0
	for _, l := range ls {
		n += len(l.Name) + len(l.Value)
	}
	var b strings.Builder
	b.Grow(n)
	for _, l := range ls {
		b.WriteString(l.Name)
		b.WriteString(l.Value)
	}
	text := b.String()
	for i := range ls {
		l := &ls[i]
		name, value := len(l.Name), len(l.Name)+len(l.Value)
		l.Name, l.Value, text = text[:name], text[name:value], text[value:]
	}
}

// check completes a target's address and says what speaks against probing it, or
// nothing.
func (r *relabeller) check(t *Target) (wrong string) {
	if t.Port == 0 { // not read, or not as it should be
		e, wrong := parseEndpoint(t.Address)
		if wrong != "" {
			return wrong
		}
		t.Endpoint = e
	}
	if r.j.Mesh.Peers > 0 {
		if wrong := checkNode(t); wrong != "" {
			return wrong
		}
	}
	if limits := &r.c.Global.Limits; t.IP.IsValid() && limits.Forbids(t.IP) {
		r.refused = t.IP
		return limits.Refusal(t.IP)
	}
	return t.contradiction()
}

// way returns how a target is probed with the values of the three labels.
func (r *relabeller) way(says saying) way {
	w, known := r.ways[says]
	if !known {
		w = r.another(says)
		if len(r.ways) < 1000 { // whatever discovery comes up with
			r.ways[says] = w
		}
	}
	return w
}

// another returns how a target is probed that does not follow its job.
func (r *relabeller) another(says saying) (w way) {
	name := says.values[0]
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
	for i, o := range []struct {
		least, most time.Duration
		to          *time.Duration
	}{
		1: {shortestInterval, longestInterval, &p.Interval},
		2: {shortestTimeout, longestTimeout, &p.Timeout},
	} {
		if i == 0 || !says.said[i] {
			continue
		}
		d, wrong := parseDuration(says.values[i], o.least, o.most)
		if wrong != "" {
			return way{wrong: wayLabels[i] + ": " + wrong}
		}
		*o.to = d
	}
	if p.Jitter > p.Interval {
		return way{wrong: fmt.Sprintf("the jitter of %s exceeds the interval of %s", Brief(p.Jitter), Brief(p.Interval))}
	}
	if wrong, _ := m.schedule(p, &r.c.Global); wrong != "" {
		return way{wrong: wrong}
	}
	m.Pace = p
	if m.SourceAddress.IsValid() {
		m.IPProtocol = protocolOf(m.SourceAddress)
	}
	return way{module: &m}
}
