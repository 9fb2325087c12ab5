package config

import (
	"bytes"
	"strings"

	"gopkg.in/yaml.v3"
)

// YAML prints the configuration. It parses to an equal one, without the files
// that its own text named.
func (c *Config) YAML() []byte { return escapeSends(marshal(root.print(c))) }

// marshal writes a tree as a document. Writing what this package built cannot
// fail: memory takes everything, and every node has a form.
func marshal(y *yaml.Node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(y); err != nil {
		panic("config: " + err.Error())
	}
	return b.Bytes()
}

// word makes a scalar, in quotes unless it is plain text without them.
func word(s string) *yaml.Node {
	y := &yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || s == "" {
		y.Style = yaml.DoubleQuotedStyle
	}
	return y
}
