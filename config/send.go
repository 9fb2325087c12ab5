package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxSend is the most octets that a probe sends.
const maxSend = 16 << 10

// octets is what to send. A character of the text is one octet, so that YAML's
// own escapes give every octet: \x00 to \xff. Text beyond ASCII must be written
// so too, lest it be guessed in which encoding it is meant.
var octets = codec[[]byte]{
	allowed: "a text of at most 16 KiB",
	read: func(d *decoder, n *node) ([]byte, bool) {
		s, ok := d.text(n, `a text, such as "QUIT\r\n"`)
		if !ok {
			return nil, false
		}
		b, wrong := d.octets(n, s)
		if wrong != "" {
			d.fail(n, "%s", wrong)
		}
		return b, wrong == ""
	},
	write: func(b []byte) *yaml.Node {
		if len(b) == 0 {
			return nil
		}
		runes := make([]rune, len(b))
		for i, c := range b {
			runes[i] = rune(c)
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: string(runes)}
	},
}

// octets returns those of a text, or what is wrong with it.
func (d *decoder) octets(n *node, s string) ([]byte, string) {
	quoted := n.Style&yaml.DoubleQuotedStyle != 0
	var b []byte
	for _, r := range s {
		switch {
		case r == '\\' && !quoted:
			return nil, `a backslash stands here without double quotes around the text; write "QUIT\r\n" for CR and LF, "\\" for a backslash`
		case r >= utf8.RuneSelf && (r > 0xff || !quoted || d.literal(n)):
			return nil, fmt.Sprintf("%q is not ASCII; write its octets in double quotes, %s in UTF-8, or use send_file", r, escaped(string(r)))
		}
		b = append(b, byte(r))
	}
	if len(b) > maxSend {
		return nil, fmt.Sprintf("%s octets are too many to send; allowed: %s", commas(len(b)), commas(maxSend))
	}
	return b, ""
}

// escaped writes each octet as \xHH.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\x%02x`, s[i])
	}
	return b.String()
}

// literal reports whether a text in double quotes is written with octets beyond
// ASCII, rather than with escapes. YAML does not keep that apart.
func (d *decoder) literal(n *node) bool {
	rest := d.data
	for range n.Line - 1 {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(rest)
		rest = rest[size:]
	}
	// An anchor or a tag may come first; neither has a quote in it.
	_, rest, _ = bytes.Cut(rest, []byte(`"`))
	for i := 0; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] >= utf8.RuneSelf {
			return true
		}
		if rest[i] == '\\' {
			i++
		}
	}
	return false
}

// escapeSends writes the octets beyond ASCII of the texts to send as escapes:
// the YAML encoder leaves those alone that are letters somewhere.
func escapeSends(text []byte) []byte {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return text
	}
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte(`send: "`)) {
			b.Write(line)
			continue
		}
		for _, r := range string(line) {
			if r >= utf8.RuneSelf && r <= 0xff {
				fmt.Fprintf(&b, `\x%02x`, r)
			} else {
				b.WriteRune(r)
			}
		}
	}
	return b.Bytes()
}

// sendFile is a file whose content is sent. It is read with the configuration
// and printed as what it held.
var sendFile = codec[[]byte]{
	allowed: "the path of a file of at most 16 KiB",
	read: func(d *decoder, n *node) ([]byte, bool) {
		path, ok := d.text(n, "the path of a file")
		if !ok {
			return nil, false
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(d.file), path)
		}
		b, wrong := readSend(path)
		if wrong != "" {
			d.fail(n, "%s %s", quote(path), wrong)
		}
		return b, wrong == ""
	},
	write: func([]byte) *yaml.Node { return nil },
}

// readSend reads a file with what to send, or says what is wrong with it.
func readSend(path string) ([]byte, string) {
	// Without O_NONBLOCK a named pipe would keep us waiting for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, "cannot be read: " + cause(err)
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, "cannot be read: " + cause(err)
	case !info.Mode().IsRegular():
		return nil, "is not a regular file"
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSend+1))
	switch {
	case err != nil:
		return nil, "cannot be read: " + cause(err)
	case len(b) > maxSend:
		return nil, "is too large to send; allowed: " + commas(maxSend) + " octets"
	case len(b) == 0:
		return nil, "is empty; leave send_file out to send nothing"
	}
	return b, ""
}

// cause strips the operation and the path from an error.
func cause(err error) string {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
