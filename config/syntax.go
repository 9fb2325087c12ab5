package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

// yamlWords are what yaml.v3 says of a broken file, and what a person needs to
// hear.
var yamlWords = map[string]string{
	"mapping values are not allowed in this context":               "no \": \" may be here: is this line indented like its neighbours? A text with \": \" in it needs quotes",
	"found character that cannot start any token":                  "indent with blanks, not tabs",
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
// way: first the line, at whose end quotes and brackets mostly close, then the
// character.
func syntax(data []byte, err error) (line, column int, message string) {
	what := complaint(err)
	breaks := func(n int) bool { return complaint(parse(data[:n])) == what }
	ends := lineEnds(data)
	at := min(sort.Search(len(ends), func(i int) bool { return breaks(ends[i]) }), len(ends)-1)
	start, end := 0, ends[at]
	if at > 0 {
		start = ends[at-1]
	}
	starts := runeStarts(data[start:end])
	n := sort.Search(len(starts)-1, func(i int) bool { return breaks(start + starts[i+1]) })
	char := start + starts[min(n, max(len(starts)-2, 0))]
	line, column = position(data, char)
	return line, column, "not YAML: " + explain(what, data[char])
}

// explain puts yaml.v3's words into those of a person; c is where it stopped.
func explain(what string, c byte) string {
	if strings.HasPrefix(what, "unknown anchor ") { // whose name may be a password
		return "there is no such anchor above; put quotes around a text that starts with *"
	}
	if what == "found character that cannot start any token" && c != '\t' {
		return "put quotes around a text that starts with " + string(rune(c))
	}
	if words := yamlWords[what]; words != "" {
		return words
	}
	return what
}

// lineEnds returns the index after each line.
func lineEnds(data []byte) []int {
	var ends []int
	for i, c := range data {
		if c == '\n' || i == len(data)-1 {
			ends = append(ends, i+1)
		}
	}
	return ends
}

// runeStarts returns the index of each character, and the length.
func runeStarts(data []byte) []int {
	var starts []int
	for i := range string(data) {
		starts = append(starts, i)
	}
	return append(starts, len(data))
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
