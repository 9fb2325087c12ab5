package config

import (
	regsyntax "regexp/syntax"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"gopkg.in/yaml.v3"
)

// rule is the table of a relabelling rule: the keys, defaults and meaning are
// Prometheus's own.
var rule = object[relabel.Config]{keys: []key[relabel.Config]{
	at(Key{Path: "source_labels", Example: "[__address__, rack]", Doc: "Labels whose values, joined, the rule looks at."},
		labelNames, func(r *relabel.Config) *model.LabelNames { return &r.SourceLabels }, "source_label"),
	at(Key{Path: "separator", Example: `"-"`, Doc: "What is between them."},
		anyText, func(r *relabel.Config) *string { return &r.Separator }),
	at(Key{Path: "regex", Example: `"(.+):80"`, Default: "(.*)", Doc: "What the whole value, or a label's whole name, is matched with (RE2)."},
		expression, func(r *relabel.Config) *relabel.Regexp { return &r.Regex }),
	at(Key{Path: "modulus", Example: "3", Doc: "hashmod: the hash is taken modulo this."},
		modulus, func(r *relabel.Config) *uint64 { return &r.Modulus }),
	at(Key{Path: "target_label", Example: "site", Doc: "Label that is written, or compared with."},
		unlessZero(anyText), func(r *relabel.Config) *string { return &r.TargetLabel }),
	at(Key{Path: "replacement", Example: `"$1:443"`, Doc: "replace: the new value, labelmap: the new name, with $1 for what the first group of the regex matched."},
		anyText, func(r *relabel.Config) *string { return &r.Replacement }),
	at(Key{Path: "action", Example: "keep", Doc: "What the rule does: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config"},
		action, func(r *relabel.Config) *relabel.Action { return &r.Action }),
}}

// anyText is a text, an empty one too.
var anyText = codec[string]{
	allowed: "a text",
	read:    func(d *decoder, n *node) (string, bool) { return d.text(n, "a text") },
	write:   word,
}

var labelNames = codec[model.LabelNames]{
	allowed: "a list of label names",
	read: func(d *decoder, n *node) (names model.LabelNames, ok bool) {
		items, ok := d.list(n, "a list of label names")
		names = make(model.LabelNames, 0, len(items))
		for _, item := range items {
			s, is := d.text(item, "a label name")
			if is && !model.UTF8Validation.IsValidLabelName(s) {
				d.fail(item, "%s is not a label name", quote(s))
				is = false
			}
			ok = ok && is
			names = append(names, model.LabelName(s))
		}
		return names, ok
	},
	write: func(names model.LabelNames) *yaml.Node {
		if names == nil {
			return nil
		}
		return texts(names)
	},
}

var expression = codec[relabel.Regexp]{
	allowed: "a regular expression",
	read: func(d *decoder, n *node) (r relabel.Regexp, ok bool) {
		s, ok := d.text(n, "a regular expression")
		if !ok {
			return r, false
		}
		_, err := regsyntax.Parse(s, regsyntax.Perl) // whose words are about s alone
		if err == nil {
			r, err = relabel.NewRegexp(s)
		}
		if err != nil {
			d.fail(n, "%s is not a regular expression: %s", quote(s), foreign(err))
		}
		return r, err == nil
	},
	write: func(r relabel.Regexp) *yaml.Node {
		if r.IsZero() {
			return nil // keepequal and dropequal refuse one, the default's text too
		}
		return word(r.String())
	},
}

var modulus = scalar("1 to 18446744073709551615", func(s string) (uint64, string) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, quote(s) + " is not a whole number from 1 to 18446744073709551615"
	}
	return n, ""
}, func(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
})

const actions = "replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase, uppercase"

var action = scalar(actions, func(s string) (a relabel.Action, wrong string) {
	err := a.UnmarshalYAML(func(v any) error {
		*v.(*string) = s
		return nil
	})
	if err != nil {
		return "", quote(s) + " is not known; allowed: " + actions
	}
	return a, ""
}, func(a relabel.Action) string { return string(a) })

// readRules reads a job's relabelling.
func readRules(d *decoder, n *node, j *Job) {
	items, _ := d.list(n, "a list of relabelling rules")
	for _, item := range items {
		r := relabel.DefaultRelabelConfig
		rule.read(d, item, &r)
		if d.failedBelow(item) {
			continue
		}
		// Names are held to what every version of Prometheus knows, as in metrics.
		if err := r.Validate(model.LegacyValidation); err != nil {
			d.fail(item, "%s", foreign(err))
			continue
		}
		j.Relabel = append(j.Relabel, &r)
	}
}

func printRules(j *Job) *yaml.Node {
	if len(j.Relabel) == 0 {
		return nil
	}
	rules := make([]relabel.Config, len(j.Relabel))
	for i, r := range j.Relabel {
		rules[i] = *r
	}
	return printList(rules, rule)
}
