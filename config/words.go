package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// clip shortens what is too long to stand in an error.
func clip(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// visible shortens a text from outside and escapes what a terminal would not show.
func visible(s string) string {
	if utf8.RuneCountInString(s) > problemMostText {
		s = string([]rune(s)[:problemMostText]) + "…"
	}
	return printable(s)
}

// printable escapes what a terminal would not show, or would obey.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// withoutPassword hides the password of a URL, if s is one, or nearly, and has one.
func withoutPassword(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return withoutUserinfo(s) // of a proxy, say, that is written without its scheme
	}
	authority := len(rest)
	if _, err := url.Parse(s); err == nil {
		authority = strings.IndexAny(rest+"/", "/?#")
	}
	at := strings.LastIndexByte(rest[:authority], '@')
	colon := strings.IndexByte(rest[:max(at, 0)], ':')
	if colon < 0 {
		return s
	}
	return scheme + "://" + rest[:colon] + ":xxxxx" + rest[at:]
}

// withoutUserinfo hides what may be a password in something that should be host:port,
// and so has no user. It hides too much rather than too little.
func withoutUserinfo(s string) string {
	from := 0
	if i := strings.Index(s, "://"); i >= 0 {
		from = i + len("://")
	}
	at := strings.LastIndexByte(s, '@')
	if at < from {
		return s
	}
	colon := strings.IndexByte(s[from:at], ':')
	if colon < 0 {
		return s
	}
	return s[:from+colon] + ":xxxxx" + s[at:]
}

func quote(s string) string { return strconv.Quote(clip(s)) }

// commas writes a number with a comma between thousands.
func commas(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted writes a number and its noun: 1 target, 12,000 targets.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return commas(n) + " " + many
}

// nearest returns the candidate that was most likely meant by word, or nothing.
func nearest(word string, candidates []string) string {
	best, least := "", 3 // further apart than two edits is another word
	for _, c := range candidates {
		if n := distance(strings.ToLower(word), c); n < least && n*2 < len(c) {
			best, least = c, n
		}
	}
	return best
}

// distance counts the edits between two words: an insertion, a deletion, a
// substitution or a swap of neighbours (optimal string alignment).
func distance(a, b string) int {
	if len(a) > len(b)+3 || len(b) > len(a)+3 {
		return 3
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
