package config

import (
	"slices"
	"strings"

	"github.com/probed/probed/probe"
	"gopkg.in/yaml.v3"
)

// Key describes one key of the configuration, for people.
type Key struct {
	Path     string // such as global.interval or modules.<name>.ttl
	Allowed  string
	Default  string // YAML, or whose value is inherited; empty where there is none
	Unit     string // empty where the value carries it or has none
	Example  string // YAML
	Doc      string
	Required bool
	Kinds    []probe.Kind // of the modules that have the key; nil: all
}

// key is a Key of an object T with its reading and writing.
type key[T any] struct {
	Key
	also  []string        // what people coming from elsewhere write instead
	given func(v *T) bool // whether a required key may be left out of v all the same
	read  func(d *decoder, n *node, v *T)
	write func(v *T) *yaml.Node // nil leaves the key out
}

// object is the table of a mapping's keys. They are read in the table's order,
// whatever the file's: later ones may lean on earlier ones.
type object[T any] struct {
	keys    []key[T]
	refused map[string]string // keys that are known but not allowed, and why
}

// fields are the keys that a mapping had, by name. A key that was misspelt is
// there without a node, so that it is not called missing too.
type fields map[string]*node

// has reports whether any of the named fields is there, or was meant to be.
func (f fields) has(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { _, ok := f[name]; return ok })
}

// first returns the first of the named fields that is there.
func (f fields) first(names ...string) *node {
	for _, name := range names {
		if n := f[name]; n != nil {
			return n
		}
	}
	return nil
}

// read fills v from n and reports the keys that it found.
func (o object[T]) read(d *decoder, n *node, v *T) fields {
	entries, ok := d.mapping(n, "a mapping of "+strings.Join(o.names(), ", "))
	if !ok {
		return nil
	}
	found := make(fields, len(entries))
	for _, e := range entries {
		found[e.name] = e.value
		if !slices.Contains(o.names(), e.name) {
			wrong, meant := o.unknown(e.name)
			d.failAt(e.key, e.value.path(), wrong)
			if meant != "" && !found.has(meant) {
				found[meant] = nil
			}
		}
	}
	for _, k := range o.keys {
		switch f := found[k.Path]; {
		case f != nil:
			k.read(d, f, v)
		case k.Required && !found.has(k.Path) && (k.given == nil || !k.given(v)):
			d.fail(n, "%s is missing; allowed: %s", k.Path, k.Allowed)
		}
	}
	return found
}

// unknown explains a key that is not in the table, and says which was meant
// where it can tell.
func (o object[T]) unknown(name string) (wrong, meant string) {
	if why := o.refused[name]; why != "" {
		return why, ""
	}
	meant = nearest(name, o.names())
	for _, k := range o.keys {
		if slices.Contains(k.also, name) {
			meant = k.Path
		}
	}
	if meant != "" {
		return "unknown key; did you mean " + meant + "?", meant
	}
	return "unknown key; allowed: " + strings.Join(o.names(), ", "), ""
}

func (o object[T]) names() []string {
	names := make([]string, len(o.keys))
	for i, k := range o.keys {
		names[i] = k.Path
	}
	return names
}

// print writes v as a mapping in the table's order.
func (o object[T]) print(v *T) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range o.keys {
		if y := k.write(v); y != nil {
			m.Content = append(m.Content, word(k.Path), y)
		}
	}
	return m
}

// written makes a key that is written in its own way.
func written[T any](write func(*T) *yaml.Node, k key[T]) key[T] {
	k.write = write
	return k
}

// at makes a key that keeps its value in one field.
func at[T, V any](k Key, c codec[V], field func(*T) *V, also ...string) key[T] {
	if k.Allowed == "" {
		k.Allowed = c.allowed
	}
	return key[T]{
		Key:  k,
		also: also,
		read: func(d *decoder, n *node, v *T) {
			if x, ok := c.read(d, n); ok {
				*field(v) = x
			}
		},
		write: func(v *T) *yaml.Node { return c.write(*field(v)) },
	}
}
