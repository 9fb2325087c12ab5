package config

import (
	"net/url"
	"reflect"
	"slices"
	"strings"

	promconfig "github.com/prometheus/common/config"
	"gopkg.in/yaml.v3"
)

// The keys of Prometheus's HTTP client are read off its own structures, since
// there are many, and new ones come with its versions.

const asInPrometheus = "As in Prometheus, of its HTTP client."

// httpClientKeys makes keys of the client's fields.
func httpClientKeys[T any](of func(*T) *promconfig.HTTPClientConfig) []key[T] {
	var keys []key[T]
	for _, f := range yamlFields(reflect.TypeFor[promconfig.HTTPClientConfig]()) {
		field := func(v *T) reflect.Value { return reflect.ValueOf(of(v)).Elem().FieldByIndex(f.index) }
		keys = append(keys, key[T]{
			Key: Key{Path: f.name, Allowed: allowedOf(f.is), Doc: asInPrometheus},
			read: func(d *decoder, n *node, v *T) {
				if !d.fits(n, f.is) {
					return
				}
				if err := n.Decode(field(v).Addr().Interface()); err != nil {
					d.fail(n, "%s", foreign(err))
				}
			},
			write: func(v *T) *yaml.Node {
				if field(v).IsZero() && f.omit {
					return nil
				}
				return printForeign(field(v).Interface())
			},
		})
	}
	return keys
}

// A yamlField is a field of a structure as YAML has it.
type yamlField struct {
	name  string
	is    reflect.Type
	index []int
	omit  bool // if it has the zero value
}

// yamlFields returns the fields of a structure, those of inlined ones among them.
func yamlFields(t reflect.Type) []yamlField {
	var fields []yamlField
	for i := range t.NumField() {
		f := t.Field(i)
		name, flags, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case flags == "inline" && f.Type.Kind() == reflect.Struct:
			for _, in := range yamlFields(f.Type) {
				in.index = append([]int{i}, in.index...)
				fields = append(fields, in)
			}
		case f.IsExported() && name != "" && name != "-" && secretRefs[name] == "":
			fields = append(fields, yamlField{name, f.Type, []int{i}, flags == "omitempty"})
		}
	}
	return fields
}

// inlineMap returns the type of a structure's map that is inlined, if it has one.
func inlineMap(t reflect.Type) (reflect.Type, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Type.Kind() == reflect.Map && strings.HasSuffix(f.Tag.Get("yaml"), ",inline") {
			return f.Type, true
		}
	}
	return nil, false
}

// Types that are written as one word though they are no string.
var (
	urlType        = reflect.TypeFor[promconfig.URL]()
	tlsVersionType = reflect.TypeFor[promconfig.TLSVersion]()
)

// allowedOf says what values a type has.
func allowedOf(t reflect.Type) string {
	switch t {
	case urlType:
		return "a URL"
	case tlsVersionType:
		return "TLS10, TLS11, TLS12, TLS13"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return allowedOf(t.Elem())
	case reflect.Bool:
		return "true, false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list of texts"
	case reflect.Struct:
		if m, ok := inlineMap(t); ok {
			return allowedOf(m)
		}
		names := make([]string, 0, t.NumField())
		for _, f := range yamlFields(t) {
			names = append(names, f.name)
		}
		return "a mapping of " + strings.Join(names, ", ")
	case reflect.Map:
		return "a mapping"
	}
	return "a value"
}

// fits checks that n can be read as a type: that there is no key that the type does
// not have, and no list where a word belongs.
func (d *decoder) fits(n *node, t reflect.Type) bool {
	switch t {
	case urlType:
		ok := d.is(n, yaml.ScalarNode, allowedOf(t))
		if _, err := url.Parse(n.Value); ok && err != nil {
			d.fail(n, "%s is not a URL", quote(withoutPassword(n.Value)))
			ok = false
		}
		return ok
	case tlsVersionType:
		_, known := promconfig.TLSVersions[n.Value]
		ok := d.is(n, yaml.ScalarNode, allowedOf(t))
		if ok && !known {
			d.fail(n, "%s is not known; allowed: %s", quote(n.Value), allowedOf(t))
		}
		return ok && known
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.fits(n, t.Elem())
	case reflect.Bool:
		_, ok := boolean.read(d, n)
		return ok
	case reflect.Slice:
		items, ok := d.list(n, allowedOf(t))
		for _, item := range items {
			ok = d.fits(item, t.Elem()) && ok
		}
		return ok
	case reflect.Map:
		return d.fitsMap(n, t)
	case reflect.Struct:
		if m, ok := inlineMap(t); ok {
			return d.fitsMap(n, m)
		}
		return d.fitsStruct(n, t)
	case reflect.Interface:
		return d.anything(n)
	}
	return d.is(n, yaml.ScalarNode, allowedOf(t))
}

func (d *decoder) fitsMap(n *node, t reflect.Type) bool {
	entries, ok := d.mapping(n, allowedOf(t))
	for _, e := range entries {
		ok = d.fits(e.value, t.Elem()) && ok
	}
	return ok
}

func (d *decoder) fitsStruct(n *node, t reflect.Type) bool {
	fields := yamlFields(t)
	names := object[struct{}]{refused: secretRefs}
	for _, f := range fields {
		names.keys = append(names.keys, key[struct{}]{Key: Key{Path: f.name}})
	}
	entries, ok := d.mapping(n, allowedOf(t))
	for _, e := range entries {
		i := slices.IndexFunc(fields, func(f yamlField) bool { return f.name == e.name })
		if i < 0 {
			wrong, _ := names.unknown(e.name)
			d.failAt(e.key, e.value.path(), wrong)
			ok = false
			continue
		}
		ok = d.fits(e.value, fields[i].is) && ok
	}
	return ok
}

// anything checks a value that may be of any form: that it has an end.
func (d *decoder) anything(n *node) bool {
	if n.up.within(n.Node) {
		d.fail(n, "this value has itself in it; write it out")
		return false
	}
	switch n.Kind {
	case yaml.MappingNode:
		entries, ok := d.mapping(n, "a mapping")
		for _, e := range entries {
			ok = d.anything(e.value) && ok
		}
		return ok
	case yaml.SequenceNode:
		items, ok := d.list(n, "a list")
		for _, item := range items {
			ok = d.anything(item) && ok
		}
		return ok
	}
	return d.visit(n)
}

// printForeign writes a value of Prometheus's as that writes it, secrets as
// <secret>.
func printForeign(v any) *yaml.Node {
	y := new(yaml.Node)
	if err := y.Encode(v); err != nil {
		panic("config: " + err.Error())
	}
	hide(y, false)
	return y
}

// hide removes what Prometheus's own writing leaves of secrets: the passwords of
// URLs, what OAuth 2 sends with its requests, and the values of headers, where a key of
// an API stands as often as not.
func hide(y *yaml.Node, secret bool) {
	if y.Kind == yaml.ScalarNode {
		if secret && !(&node{Node: y}).isNull() {
			*y = yaml.Node{Kind: yaml.ScalarNode, Value: "<secret>"}
		}
		y.Value = withoutPassword(y.Value)
		return
	}
	for i, c := range y.Content {
		of := secret || y.Kind == yaml.MappingNode && i%2 == 1 && slices.Contains([]string{"endpoint_params", "claims", "values"}, y.Content[i-1].Value)
		if y.Kind == yaml.MappingNode && i%2 == 0 {
			continue // a key
		}
		hide(c, of)
	}
}
