package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/probed/probed/probe"
)

// What a command line says in place of a file, by the same rules.

// BuiltIn returns the configuration of a file that says nothing: what is global,
// and the built-in modules.
func BuiltIn() *Config { return initial() }

// Measures makes a time_wait module one that measures what, with the defaults of
// that.
func (m *Module) Measures(what probe.Measure) { m.measures(what, initial().Global) }

// Feasible says what speaks against probing at the module's own pace, if there are
// ports enough.
func (m *Module) Feasible() error {
	if wrong, _ := m.schedule(m.Pace, &Global{SourcePorts: PortRange{0, 65535}, Loops: 1}); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

// Conversations returns how many conversations with one target the module can have
// open at once by its own pace.
func (m *Module) Conversations() int { return m.open(m.Pace) }

// ParsePortRange reads FIRST-LAST. The error says what is wrong with it.
func ParsePortRange(s string) (PortRange, error) {
	r, wrong := parsePortRange(s)
	if wrong != "" {
		return PortRange{}, errors.New(wrong)
	}
	return r, nil
}

// escapes are those of a text to send, as the key send documents them, less \x.
var escapes = map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, '\\': '\\', '"': '"'}

// ParseSend reads a text to send that is written as the key send takes it within
// double quotes. The error says what is wrong with it.
func ParseSend(s string) ([]byte, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			r, _ := utf8.DecodeRuneInString(s[i:])
			return nil, fmt.Errorf("%q is not ASCII; write its octets, %s in UTF-8, or send a file", r, escaped(string(r)))
		case c != '\\':
			b = append(b, c)
		default:
			o, length := unescape(s[i+1:])
			if length == 0 {
				return nil, fmt.Errorf(`%s is not an escape; allowed: \r, \n, \t, \0, \\, \" and \x00 to \xff`, clip(s[i:min(i+2, len(s))]))
			}
			b = append(b, o)
			i += length
		}
	}
	if len(b) > maxSend {
		return nil, fmt.Errorf("%s octets are too many to send; allowed: %s", commas(len(b)), commas(maxSend))
	}
	return b, nil
}

// unescape returns the octet that s begins with, which follows a backslash, and
// how long it is written; 0 if it is none.
func unescape(s string) (o byte, length int) {
	if s == "" {
		return 0, 0
	}
	if o, ok := escapes[s[0]]; ok {
		return o, 1
	}
	const digits = "0123456789abcdef"
	if s[0] != 'x' || len(s) < 3 {
		return 0, 0
	}
	s = strings.ToLower(s[1:3])
	high, low := strings.IndexByte(digits, s[0]), strings.IndexByte(digits, s[1])
	if high < 0 || low < 0 {
		return 0, 0
	}
	return byte(high<<4 | low), 3
}

// ReadSend reads a file with what to send. The error says what is wrong with it.
func ReadSend(path string) ([]byte, error) {
	b, wrong := readSend(path)
	if wrong != "" {
		return nil, fmt.Errorf("%s %s", quote(path), wrong)
	}
	return b, nil
}
