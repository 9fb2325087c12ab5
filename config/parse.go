package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxFile is the most octets that a configuration may have: half a million
// targets.
const maxFile = 16 << 20

// Load reads the configuration in a file. What is wrong with its contents is
// an Errors.
func Load(path string) (*Config, error) { return Options{}.Load(path) }

// Parse reads a configuration; name stands for its file in errors, and files
// that it names are looked for in that one's folder. An error is an Errors.
func Parse(name string, data []byte) (*Config, error) { return Options{}.Parse(name, data) }

// Load is the function Load, with options.
func (o Options) Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return o.Parse(path, data)
}

// Parse is the function Parse, with options.
func (o Options) Parse(name string, data []byte) (*Config, error) {
	if o.Reserve != nil && len(data) <= maxFile {
		release, err := o.Reserve(octetsToRead(data))
		if err != nil {
			return nil, Errors{{File: name, Line: 1, Column: 1, Message: "the file is too large: " + err.Error()}}
		}
		defer release()
	}
	doc, err := document(name, data)
	if err != nil {
		return nil, err
	}
	d := &decoder{file: name, data: data, config: initial(), modules: make(map[string]fields), budget: len(data) + maxAliased}
	d.config.options = o
	top := &node{Node: doc}
	root.read(d, top, d.config)
	if len(d.errs) == 0 {
		d.checkPorts(d.config)
		d.checkLimits(d.config, top)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return d.config, nil
}

//go:embed default.yml
var defaultYAML []byte

// Default returns the configuration that runs without a file: it probes
// probed's own web listener at the addresses that it can be reached at.
func Default(web []netip.AddrPort) (*Config, error) { return Options{}.Default(web) }

// Default is the function Default, with options.
func (o Options) Default(web []netip.AddrPort) (*Config, error) {
	return o.Parse("default.yml", DefaultYAML(web))
}

// DefaultYAML returns the text of the default configuration, for a user to
// start from. Its first job lists the targets, the others have the same.
func DefaultYAML(web []netip.AddrPort) []byte {
	const targets, item = "    targets: &web\n", "      - "
	before, after, _ := bytes.Cut(defaultYAML, []byte(targets))
	for bytes.HasPrefix(after, []byte(item)) {
		_, after, _ = bytes.Cut(after, []byte("\n"))
	}
	text := bytes.Clone(before)
	if len(web) == 0 {
		text = append(text, "    targets: &web []\n"...)
	} else {
		text = append(text, targets...)
	}
	for _, a := range web {
		text = fmt.Appendf(text, "%s%q\n", item, a)
	}
	return append(text, after...)
}

// octetsToRead is about how much memory it takes to read a configuration. What it takes goes
// to YAML's nodes, and what is made of them: each begins at a line or an indicator.
func octetsToRead(data []byte) int64 {
	const perNode = 600 // octets; targets take 450 for a line and its dash each, mappings 550
	nodes := 0
	for i, c := range data {
		switch c {
		case '\n', ',', '[', '{':
			nodes++
		case '-', '?', ':': // inside of a word too
			if i+1 == len(data) || data[i+1] <= ' ' {
				nodes++
			}
		}
	}
	return 3*int64(len(data)) + perNode*int64(nodes)
}

// document returns the top mapping of the only document in data.
func document(name string, data []byte) (*yaml.Node, error) {
	fail := func(line, column int, message string) error {
		return Errors{{File: name, Line: line, Column: column, Message: message}}
	}
	if len(data) > maxFile {
		return nil, fail(1, 1, fmt.Sprintf("the file is too large; allowed: %d MiB", maxFile>>20))
	}
	if i := invalidUTF8(data); i >= 0 {
		line, column := position(data, i)
		return nil, fail(line, column, fmt.Sprintf("not UTF-8 (octet 0x%02x); save the file as UTF-8", data[i]))
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		if err = dec.Decode(&second); err == nil {
			return nil, fail(second.Line, second.Column, "a second document starts here; allowed: one, without ---")
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	} else if errors.Is(err, io.EOF) {
		return nil, fail(1, 1, "the file is empty; it needs at least jobs")
	}
	if err != nil {
		line, column, message := syntax(data, err)
		return nil, fail(line, column, message)
	}
	top := doc.Content[0]
	if n := (&node{Node: top}); n.isNull() {
		return nil, fail(1, 1, "the file is empty; it needs at least jobs")
	} else if n.Kind != yaml.MappingNode {
		return nil, fail(top.Line, top.Column, n.found()+"; allowed: a mapping of global, modules, jobs")
	}
	return top, nil
}

// invalidUTF8 returns the index of the first octet that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// position returns the line and the column, in characters, of an index.
func position(data []byte, i int) (line, column int) {
	before := data[:i]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte{'\n'}) + 1, utf8.RuneCount(before[start:]) + 1
}
