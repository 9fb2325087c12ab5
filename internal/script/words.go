package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// words walks over a line's words.
type words struct{ list []string }

// split cuts a line at blanks, but keeps <…> and "…" whole.
func split(l string) []string {
	var list []string
	for l = strings.TrimSpace(l); l != ""; l = strings.TrimSpace(l) {
		end := strings.IndexAny(l, " \t\r")
		switch {
		case l[0] == '"':
			end = 1 + strings.IndexByte(l[1:], '"') + 1
		case l[0] == '<' && len(l) > 1 && l[1] != ' ' && l[1] != '\t':
			end = strings.IndexByte(l, '>') + 1
		}
		if end <= 0 || end > len(l) {
			end = len(l)
		}
		list = append(list, l[:end])
		l = l[end:]
	}
	return list
}

// next returns the next word, and false at the end of the line.
func (w *words) next() (string, bool) {
	if len(w.list) == 0 {
		return "", false
	}
	word := w.list[0]
	w.list = w.list[1:]
	return word, true
}

// peek returns the next word and leaves it there.
func (w *words) peek() string {
	if len(w.list) == 0 {
		return ""
	}
	return w.list[0]
}

// take skips the next word if it is this one.
func (w *words) take(word string) bool {
	if w.peek() != word {
		return false
	}
	w.list = w.list[1:]
	return true
}

// expect skips the next word, which must be this one.
func (w *words) expect(word string) error {
	if !w.take(word) {
		return fmt.Errorf("%q where %s belongs", w.peek(), word)
	}
	return nil
}

// end checks that nothing is left.
func (w *words) end() error {
	if len(w.list) > 0 {
		return fmt.Errorf("%q is too much", w.peek())
	}
	return nil
}

func (w *words) duration() (time.Duration, error) {
	word, _ := w.next()
	return parseDuration(word)
}

// durationOrUnknown reads a duration, or the word unknown as one below 0.
func (w *words) durationOrUnknown() (time.Duration, error) {
	if w.take("unknown") {
		return -1, nil
	}
	return w.duration()
}

// maxDuration keeps sums of times far from overflow.
const maxDuration = 24 * time.Hour

func parseDuration(word string) (time.Duration, error) {
	d, err := time.ParseDuration(word)
	if err != nil || d > maxDuration || d < -maxDuration {
		return 0, fmt.Errorf("%q is no time, as in 20ms, of at most a day", word)
	}
	return d, nil
}

// number reads a sequence number: relative, or absolute after "=".
func (w *words) number() (Number, error) {
	word, _ := w.next()
	digits, absolute := strings.CutPrefix(word, "=")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > 1<<32-1 || n < -(1<<31) {
		return Number{}, fmt.Errorf("%q is no sequence number", word)
	}
	return Number{N: uint32(n), Absolute: absolute}, nil
}

func (w *words) uint(bits int) (uint64, error) {
	word, _ := w.next()
	return parseUint(word, bits)
}

func parseUint(word string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(word, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of %d bits", word, bits)
	}
	return n, nil
}
