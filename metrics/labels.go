package metrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Labels identify a target's series. Two targets may not have the same.
type Labels struct {
	Job    string // job_name
	Target string // target: host:port as written
	Module string // module
	IP     string // ip; no such label if empty
	// Extra are the target's own labels. One whose name the exposition uses
	// itself (target, reason, le, …) is exported as exported_<name>, as
	// Prometheus does when a scraped label collides with a target's. An empty
	// value means no label, as in Prometheus.
	Extra map[string]string
}

// A label is one name and value.
type label struct{ name, value string }

// reserved are the label names that the metrics of this package use, and those
// that Prometheus gives a meaning in an exposition.
var reserved = [...]string{
	"job_name", "target", "module", "ip",
	"reason", "what", "window_scale", "sack", "timestamps", "ecn", "syn_cookies",
	"form", "side", "answer",
	"le", "quantile",
}

// pairs returns the labels sorted by name.
func (l *Labels) pairs() ([]label, error) {
	p := []label{{"job_name", l.Job}, {"target", l.Target}, {"module", l.Module}}
	if l.IP != "" {
		p = append(p, label{"ip", l.IP})
	}
	for name, value := range l.Extra {
		if !validLabelName(name) {
			return nil, fmt.Errorf("label name %q: it must match [a-zA-Z_][a-zA-Z0-9_]* and not start with __", name)
		}
		if value == "" {
			continue
		}
		p = append(p, label{l.exported(name), value})
	}
	for i := range p {
		p[i].value = utf8Text(p[i].value)
	}
	slices.SortFunc(p, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	return p, nil
}

// utf8Text is a label's value as Prometheus takes it: one that is not UTF-8 it refuses,
// and the whole scrape with it.
func utf8Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// exported is the name under which the target's own label name is exported.
func (l *Labels) exported(name string) string {
	if !slices.Contains(reserved[:], name) {
		return name
	}
	for taken := true; taken; _, taken = l.Extra[name] {
		name = "exported_" + name
	}
	return name
}

// validLabelName reports whether every Prometheus, not only those that know
// UTF-8 names, accepts the name. Those that start with __ are Prometheus's own.
func validLabelName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && !strings.HasPrefix(name, "__")
}

// A labelSet is labels as the text format has them, made once a target.
type labelSet struct {
	text string // name="value",name="value"
}

func newLabelSet(pairs []label) labelSet {
	var text []byte
	for i, p := range pairs {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendTextLabel(text, p)
	}
	return labelSet{string(text)}
}
