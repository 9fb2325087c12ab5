package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Bounds of what a file can make the decoder do.
const (
	maxErrors  = 1000    // errors kept; the rest are counted
	maxAliased = 500_000 // nodes visited on top of those that the file holds
	maxMerge   = 16      // merge keys inside merge keys
)

// decoder walks a YAML tree and keeps every error that it meets. It walks by
// itself because yaml.v3's own decoding gives neither all errors nor paths.
type decoder struct {
	file   string
	data   []byte
	errs   Errors
	unkept int   // errors beyond maxErrors
	budget int   // nodes that may still be visited: aliases can make few nodes many
	bomb   error // the only error, once the budget is spent

	config  *Config           // what has been read so far
	limits  *node             // global.limits, if the file has it
	rules   map[string]int    // the lines of what its deny and allow list
	modules map[string]fields // what the file has of each module
	targets []*node           // where each target stands, in the order of Config.Targets
}

// node is a YAML node and the way to it. Its Node is never an alias.
type node struct {
	*yaml.Node
	up    *node
	key   string // the key that leads here; empty in a list
	index int    // the index that leads here
}

// path gives the way from the root: jobs[2].targets[0].
func (n *node) path() string {
	switch {
	case n.up == nil:
		return ""
	case n.key == "":
		return n.up.path() + "[" + strconv.Itoa(n.index) + "]"
	case !isPlainKey(n.key) && n.key != "<<":
		// Behind a colon without a space stands what was meant to be its value, and so it does behind
		// what was meant to be a colon: a password, maybe.
		up, key := n.up.path(), n.key
		i := strings.IndexByte(key, ':')
		if strings.Contains(up, "http_sd_configs[") {
			i = strings.IndexFunc(key, func(r rune) bool { return !isHostRune(r) })
		}
		if _, size := utf8.DecodeRuneInString(key[max(i, 0):]); i >= 0 && i+size < len(key) {
			key = key[:i+size] + "…"
		}
		return up + "[" + quote(key) + "]"
	case n.up.up == nil:
		return n.key
	}
	return n.up.path() + "." + n.key
}

func isPlainKey(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !isHostRune(r) })
}

// value returns what a key of a mapping's own has, or the mapping.
func (n *node) value(key string) *node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return &node{n.Content[i+1], n, key, 0}
		}
	}
	return n
}

// fail records what is wrong with n.
func (d *decoder) fail(n *node, format string, args ...any) {
	d.failAt(n.Node, n.path(), fmt.Sprintf(format, args...))
}

func (d *decoder) failAt(at *yaml.Node, path, message string) {
	if len(d.errs) >= maxErrors {
		d.unkept++
		return
	}
	d.errs = append(d.errs, Error{d.file, at.Line, at.Column, path, message})
}

// err returns the errors met, by place.
func (d *decoder) err() error {
	if d.bomb != nil || len(d.errs) == 0 {
		return d.bomb
	}
	es := d.errs.sorted()
	if d.unkept > 0 {
		last := es[len(es)-1]
		last.Path, last.Message = "", fmt.Sprintf("and %d more errors, which are not shown", d.unkept)
		es = append(es, last)
	}
	return es
}

// child returns the node below n that y is, through an alias too.
func (d *decoder) child(n *node, key string, index int, y *yaml.Node) *node {
	if y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	return &node{y, n, key, index}
}

// visit counts a node against the budget.
func (d *decoder) visit(n *node) bool {
	d.budget--
	if d.budget == -1 {
		d.bomb = Errors{{d.file, n.Line, n.Column, n.path(), "the aliases (*name) of this file unfold to more than " + commas(maxAliased) + " values; write them out"}}
	}
	return d.budget >= 0
}

// found says what kind of node n is, for an error.
func (n *node) found() string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping stands here"
	case n.Kind == yaml.SequenceNode:
		return "a list stands here"
	case n.isNull():
		return "nothing stands here"
	}
	return clip(n.Value) + " stands here"
}

func (n *node) isNull() bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// plainTags are the tags that YAML gives by itself.
var plainTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!null", "!!merge", "!!map", "!!seq"}

// is checks the kind of n, and that it has no tag of its own.
func (d *decoder) is(n *node, kind yaml.Kind, allowed string) bool {
	if !d.visit(n) {
		return false
	}
	if n.Kind != kind || n.isNull() {
		found := n.found()
		if n.Kind == yaml.ScalarNode && !n.isNull() && strings.Contains(n.path(), "http_sd_configs[") {
			found = "a text stands here" // which may be a password that belongs one level below
		}
		d.fail(n, "%s; allowed: %s", found, allowed)
		return false
	}
	if tag := n.ShortTag(); !slices.Contains(plainTags, tag) {
		if strings.Contains(n.path(), "http_sd_configs[") {
			tag = "that stands here" // may be a password without quotes
		}
		d.fail(n, "the tag %s has no meaning here; remove it", tag)
		return false
	}
	return true
}

// text reads a scalar as it is written, whatever YAML thinks it is: a label's
// value may look like a number.
func (d *decoder) text(n *node, allowed string) (string, bool) {
	return n.Value, d.is(n, yaml.ScalarNode, allowed)
}

// list reads a sequence.
func (d *decoder) list(n *node, allowed string) ([]*node, bool) {
	if !d.is(n, yaml.SequenceNode, allowed) {
		return nil, false
	}
	items := make([]*node, len(n.Content))
	for i, y := range n.Content {
		items[i] = d.child(n, "", i, y)
	}
	return items, true
}

// entry is one key of a mapping.
type entry struct {
	name  string
	key   *yaml.Node
	value *node
}

// mapping reads a mapping, merge keys included. Nothing at all is an empty
// mapping: that is what is left of one whose keys are commented out.
func (d *decoder) mapping(n *node, allowed string) ([]entry, bool) {
	if n.isNull() {
		return nil, d.visit(n)
	}
	return d.entries(n, allowed, 0)
}

// entries collects a mapping's own keys, then those that it merges in; the
// first of a name is in force.
func (d *decoder) entries(n *node, allowed string, depth int) ([]entry, bool) {
	if !d.is(n, yaml.MappingNode, allowed) {
		return nil, false
	}
	var merges []*node
	own := make([]entry, 0, len(n.Content)/2)
	first := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, y := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, d.child(n, "<<", 0, y))
			continue
		}
		k := d.child(n, "", 0, key)
		if k.Kind != yaml.ScalarNode || k.isNull() || k.Value == "" {
			d.failAt(key, n.path(), "a key must be a plain word")
			continue
		}
		e := entry{k.Value, key, d.child(n, k.Value, 0, y)}
		if was := first[e.name]; was != nil {
			d.failAt(key, e.value.path(), fmt.Sprintf("this key is already there at line %d; remove one", was.Line))
			continue
		}
		first[e.name] = key
		own = append(own, e)
	}
	for _, m := range merges {
		for _, e := range d.merged(n, m, depth+1) {
			if first[e.name] == nil {
				first[e.name] = e.key
				own = append(own, e)
			}
		}
	}
	return own, true
}

// within reports whether y is n or above it.
func (n *node) within(y *yaml.Node) bool {
	return n != nil && (n.Node == y || n.up.within(y))
}

// merged returns the entries that the merge key m brings into n: a mapping's,
// or those of each mapping in a list.
func (d *decoder) merged(n, m *node, depth int) []entry {
	if depth > maxMerge {
		d.fail(n, "merge keys (<<) are nested too deeply; allowed: %d levels", maxMerge)
		return nil
	}
	sources := []*node{m}
	if m.Kind == yaml.SequenceNode {
		sources, _ = d.list(m, "")
	}
	var all []entry
	for _, s := range sources {
		if n.within(s.Node) {
			d.fail(n, "<< merges this mapping into itself; remove it")
			continue
		}
		entries, _ := d.entries(s, "a mapping to merge, such as *name", depth)
		for _, e := range entries {
			d.budget--
			e.value = &node{e.value.Node, n, e.name, 0}
			all = append(all, e)
		}
	}
	return all
}
