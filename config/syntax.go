package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// yamlWords are what yaml.v3 says of a broken file, and what a person needs to
// hear.
var yamlWords = map[string]string{
	"mapping values are not allowed in this context":               "no \": \" may be here: is this line indented like its neighbours? A text with \": \" in it needs quotes",
	"found character that cannot start any token":                  "this character cannot start a word: indent with blanks, not tabs, and put quotes around a text that starts with @, ` or %",
	"found a tab character that violates indentation":              "indent with blanks, not tabs",
	"found a tab character where an indentation space is expected": "indent with blanks, not tabs",
	"did not find expected key":                                    "a key was expected here: is this line indented like its neighbours, and does every quote and bracket close?",
	"did not find expected '-' indicator":                          "a \"- \" was expected here: is this line indented like its neighbours?",
	"did not find expected ',' or ']'":                             "a \",\" or the \"]\" of this list is missing",
	"did not find expected ',' or '}'":                             "a \",\" or the \"}\" of this mapping is missing",
	"did not find expected node content":                           "a value was expected here; in a list in brackets, put quotes around an IPv6 address",
	"could not find expected ':'":                                  "a \":\" is missing after this key",
	"found unexpected end of stream":                               "this quote is never closed",
	"found unknown escape character":                               "unknown escape; in double quotes write \\\\ for a backslash, or use single quotes",
	"block sequence entries are not allowed in this context":       "no list may start here: put its first \"- \" on a line of its own",
	"control characters are not allowed":                           "control characters are not allowed",
	"did not find expected <document start>":                       "the document ends before this: is this line indented like its neighbours?",
	"did not find expected alphabetic or numeric character":        "* and & start aliases and anchors: put quotes around a text that starts with one",
}

var yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntax explains an error of yaml.v3's parser. Its own line is often that of
// the block around the mistake, and it knows no column, so the place is found
// by looking for the shortest beginning of the file that breaks in the same
// way.
func syntax(data []byte, err error) (line, column int, message string) {
	what := complaint(err)
	size := sort.Search(len(data), func(n int) bool {
		for n < len(data) && !utf8.RuneStart(data[n]) {
			n++
		}
		return complaint(parse(data[:n])) == what
	})
	_, last := utf8.DecodeLastRune(data[:size])
	line, column = position(data, max(size-last, 0))
	if words := yamlWords[what]; words != "" {
		what = words
	} else if anchor, ok := strings.CutPrefix(what, "unknown anchor "); ok {
		what = "there is no anchor " + strings.TrimSuffix(anchor, " referenced") + " above; put quotes around a text that starts with *"
	}
	return line, column, "not YAML: " + what
}

func complaint(err error) string {
	if err == nil {
		return ""
	}
	return yamlPrefix.ReplaceAllString(err.Error(), "")
}

// parse reads every document and keeps none.
func parse(data []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
