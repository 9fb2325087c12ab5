package show

import "strings"

// The styles are parameters of an SGR sequence (ECMA-48 §8.3.117).
const (
	stylePlain   = ""
	styleBold    = "1"
	styleDim     = "2"
	styleOut     = "36" // cyan
	styleIn      = "32" // green
	styleReset   = "31" // red: a RST, or an ICMP error
	styleMeasure = "35" // magenta
	styleOK      = "1;32"
	styleFailed  = "1;31"
	styleOther   = "1;33"
)

// A span is text in one style.
type span struct{ text, style string }

// join writes spans out, without blanks at the end.
func join(spans []span, color bool) string {
	for len(spans) > 0 && strings.TrimRight(spans[len(spans)-1].text, " ") == "" {
		spans = spans[:len(spans)-1]
	}
	var b strings.Builder
	for i, s := range spans {
		text := s.text
		if i == len(spans)-1 {
			text = strings.TrimRight(text, " ")
		}
		bare := strings.Trim(text, " ")
		if !color || s.style == stylePlain || bare == "" {
			b.WriteString(text)
			continue
		}
		left := strings.Index(text, bare)
		b.WriteString(text[:left] + "\x1b[" + s.style + "m" + bare + "\x1b[0m" + text[left+len(bare):])
	}
	return b.String()
}

// wrap breaks text at blanks into parts of at most n columns; a word that is wider
// is cut.
func wrap(text string, n int) []string {
	var list []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		word = Fit(word, n)
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= n:
			line += " " + word
		default:
			list = append(list, line)
			line = word
		}
	}
	if line != "" {
		list = append(list, line)
	}
	return list
}
