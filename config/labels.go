package config

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
)

// Label is one name with its value.
type Label struct{ Name, Value string }

// Labels are sorted by name, each name once.
type Labels []Label

// merge returns the labels of both with those of over in force where both have
// one. An empty value is no label, as in Prometheus.
func (ls Labels) merge(over Labels) Labels {
	all := slices.Concat(over, ls)
	slices.SortStableFunc(all, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	all = slices.CompactFunc(all, func(a, b Label) bool { return a.Name == b.Name })
	return slices.DeleteFunc(all, func(l Label) bool { return l.Value == "" })
}

// reservedLabels are those that probed's own metrics carry, and those that
// Prometheus gives a meaning there. Package metrics has them too.
var reservedLabels = []string{"answer", "ecn", "form", "ip", "job_name", "le", "module", "quantile", "reason", "sack", "side",
	"syn_cookies", "target", "timestamps", "what", "window_scale"}

// checkLabelName says what is wrong with a label's name, or nothing.
func checkLabelName(name string) string {
	switch {
	case slices.Contains(wayLabels, name):
		return "belongs to a group of static_configs; a job has the key " + strings.Trim(name, "_")
	case strings.HasPrefix(name, "__"):
		return "label names that start with __ are for relabelling, and go after it; a group of static_configs can have them, and rules can write them"
	case slices.Contains(reservedLabels, name):
		return "reserved for probed's own metrics; choose another name"
	case !model.LegacyValidation.IsValidLabelName(name):
		return "not a label name; allowed: letters, digits and _, not starting with a digit"
	}
	return ""
}

// checkGroupLabelName is checkLabelName for the targets of a group: those may have
// labels for relabelling, and those that say how they are probed.
func checkGroupLabelName(name string) string {
	hidden, ok := strings.CutPrefix(name, "__")
	switch {
	case !ok || slices.Contains(wayLabels, name):
	case name == model.AddressLabel:
		return "not a label that a group can set: it is what targets are, and relabel_configs can change it"
	case strings.HasSuffix(name, "__") && nearest(name, wayLabels) != "":
		return "unknown label; did you mean " + nearest(name, wayLabels) + "?"
	case model.LegacyValidation.IsValidLabelName(name) && hidden != "":
	default:
		return "not a label name; allowed: letters, digits and _"
	}
	if ok {
		return ""
	}
	return checkLabelName(name)
}

// checkLabelValue says what is wrong with a label's value, or nothing.
func checkLabelValue(value string) string {
	if !utf8.ValidString(value) {
		return "a label's value must be UTF-8"
	}
	return ""
}

// exported gives labels whose names probed's own metrics carry the names that they are
// exported under, as Prometheus does when a target's label collides with one of its own:
// exported_target. It sorts them.
func exported(ls Labels) Labels {
	taken := func(name string) bool {
		return slices.ContainsFunc(ls, func(l Label) bool { return l.Name == name })
	}
	for i := range ls {
		if !slices.Contains(reservedLabels, ls[i].Name) {
			continue
		}
		name := "exported_" + ls[i].Name
		for taken(name) {
			name = "exported_" + name
		}
		ls[i].Name = name
	}
	slices.SortFunc(ls, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	return ls
}
