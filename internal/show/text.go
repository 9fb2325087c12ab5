package show

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// SafeText makes visible what a terminal or a log would obey, hide or reorder:
// control characters (C0, C1, DEL, and with them every escape sequence), line and
// paragraph separators, bidirectional overrides, invisible characters, and octets
// that are no UTF-8. Each becomes an escape as Go writes it: \n, \x1b, \u202e.
// What is left alone is printable.
func SafeText(s string) string {
	i := unsafeAt(s)
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, `\x`...)
			b = append(b, hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case unicode.IsPrint(r):
			b = append(b, s[i:i+n]...)
		default:
			q := strconv.QuoteRune(r)
			b = append(b, q[1:len(q)-1]...)
		}
		i += n
	}
	return string(b)
}

const hexDigits = "0123456789abcdef"

// unsafeAt returns where the first character is that SafeText replaces, or -1.
func unsafeAt(s string) int {
	for i, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return i
		}
	}
	return -1
}

// Width is how many columns of a terminal s takes: two for an East Asian wide
// character, none for a combining one. s is as SafeText returns it.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Fit cuts s to at most n columns; what was cut ends in "…".
func Fit(s string, n int) string {
	if Width(s) <= n {
		return s
	}
	if n <= 0 {
		return ""
	}
	used := 0
	for i, r := range s {
		w := runeWidth(r)
		if used+w > n-1 {
			return s[:i] + "…"
		}
		used += w
	}
	return s
}

// Pad fills s with blanks up to n columns.
func Pad(s string, n int) string { return s + blanks(n-Width(s)) }

// PadLeft fills s with blanks on its left up to n columns.
func PadLeft(s string, n int) string { return blanks(n-Width(s)) + s }

func blanks(n int) string { return strings.Repeat(" ", max(n, 0)) }

// FormatDuration writes a duration with four significant digits in ns, µs, ms or
// s, without trailing zeros: 123.4 µs, 1.234 ms, 2.5 s. Whole seconds are never
// rounded away: 12345 s.
func FormatDuration(d time.Duration) string {
	sign, n := "", uint64(d)
	if d < 0 {
		sign, n = "-", -n
	}
	if n == 0 {
		return "0 s"
	}
	units := [...]struct {
		name string
		ns   uint64
	}{{" ns", 1}, {" µs", 1e3}, {" ms", 1e6}, {" s", 1e9}}
	for i, u := range units {
		// One digit fewer behind the point for each before it, as n will be
		// when it is rounded: 999.96 µs are 1 ms.
		decimals := 3
		step := u.ns / 1e3 // what the last digit is worth, ns
		for whole := u.ns * 10; n+step/2 >= whole && decimals > 0; whole *= 10 {
			decimals--
			step *= 10
		}
		if u.ns == 1 {
			decimals, step = 0, 1
		}
		rounded := (n + step/2) / step
		scale := u.ns / step
		if rounded >= 1000*scale && i < len(units)-1 {
			continue
		}
		text := strconv.FormatUint(rounded/scale, 10)
		if part := rounded % scale; part != 0 {
			digits := strconv.FormatUint(part, 10)
			digits = strings.Repeat("0", decimals-len(digits)) + digits
			text += "." + strings.TrimRight(digits, "0")
		}
		return sign + text + u.name
	}
	return ""
}
