package show_test

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/probed/probed/internal/show"
)

func TestSafeText(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"db.example.net:5432", "db.example.net:5432"},
		{"größe 東京 🙂", "größe 東京 🙂"},
		{"a\x1b[31mb", `a\x1b[31mb`},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x00\x07\b\x7f", `\x00\a\b\x7f`},
		{"\u0085\u009b31m", `\u0085\u009b31m`},             // C1: NEL, CSI
		{"exe\u202etxt.\u2066x", `exe\u202etxt.\u2066x`},   // bidi override and isolate
		{"zero\u200bwidth\ufeff", `zero\u200bwidth\ufeff`}, // invisible
		{"line\u2028sep", `line\u2028sep`},                 // a line to some
		{"nb\u00a0sp", `nb\u00a0sp`},                       // looks like another
		{"tag\U000e0041", `tag\U000e0041`},                 // invisible, beyond 16 bits
		{"bad\xff\xc3(", `bad\xff\xc3(`},                   // no UTF-8
		{"\xed\xa0\x80", `\xed\xa0\x80`},                   // a surrogate in UTF-8 is none
		{"replacement \ufffd", "replacement \ufffd"},       // the character itself is one
		{`back\slash "quoted" <html>`, `back\slash "quoted" <html>`},
	}
	for _, tt := range tests {
		if got := show.SafeText(tt.in); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzSafeText(f *testing.F) {
	f.Add("a\x1b]0;title\ab")
	f.Add("\xff\u202e\u0300")
	f.Fuzz(func(t *testing.T, s string) {
		safe := show.SafeText(s)
		for _, r := range safe {
			if !unicode.IsPrint(r) {
				t.Errorf("%q has %U", safe, r)
			}
		}
		if !utf8.ValidString(safe) || show.SafeText(safe) != safe {
			t.Errorf("%q", safe)
		}
		for _, n := range []int{-1, 0, 1, 2, 7, 80} {
			if fit := show.Fit(safe, n); show.Width(fit) > max(n, 0) {
				t.Errorf("%q is %d columns, not %d", fit, show.Width(fit), n)
			}
			if w := show.Width(show.Pad(safe, n)); w != max(n, show.Width(safe)) {
				t.Errorf("padded to %d, not %d", w, n)
			}
		}
	})
}

func TestWidth(t *testing.T) {
	tests := []struct {
		s    string
		want int
	}{
		{"", 0}, {"abc", 3}, {"größe", 5}, {"e\u0301", 1}, {"東京", 4}, {"ﾃｽﾄ", 3}, {"ＡＢ", 4}, {"한국", 4}, {"│▶├", 3}, {"µs", 2}, {"…", 1},
	}
	for _, tt := range tests {
		if got := show.Width(tt.s); got != tt.want {
			t.Errorf("%q: %d columns, want %d", tt.s, got, tt.want)
		}
	}
}

func TestFit(t *testing.T) {
	tests := []struct {
		s    string
		n    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"東京都", 6, "東京都"}, {"東京都", 5, "東京…"}, {"東京都", 4, "東…"},
		{"東京都", 1, "…"}, {"abc", 0, ""}, {"abc", -1, ""}, {"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	}
	for _, tt := range tests {
		if got := show.Fit(tt.s, tt.n); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.s, tt.n, got, tt.want)
		}
	}
	if got := show.Pad("東", 4) + "|" + show.PadLeft("東", 4) + "|"; got != "東  |  東|" {
		t.Errorf("%q", got)
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 1: "1 ns", 999: "999 ns", 1000: "1 µs", 1234: "1.234 µs", 12345: "12.35 µs", 123449: "123.4 µs", 123450: "123.5 µs",
		999949: "999.9 µs", 999950: "1 ms", 999999: "1 ms", time.Millisecond: "1 ms", 1234499: "1.234 ms",
		20*time.Millisecond + 50*time.Microsecond: "20.05 ms", 290085 * time.Microsecond: "290.1 ms",
		999950 * time.Microsecond: "1 s", 2500 * time.Millisecond: "2.5 s", 9999500 * time.Microsecond: "10 s",
		12345678 * time.Microsecond: "12.35 s", 123456 * time.Millisecond: "123.5 s", 1234567 * time.Millisecond: "1235 s",
		12345 * time.Second: "12345 s", 12345600 * time.Millisecond: "12346 s",
		-10 * time.Microsecond: "-10 µs", math.MaxInt64: "9223372037 s", math.MinInt64: "-9223372037 s",
	} {
		if got := show.FormatDuration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

// Four digits: never off by more than half of the last one, whatever the size.
func TestFormatDurationRounds(t *testing.T) {
	units := map[string]float64{"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
	for d := time.Duration(1); d < math.MaxInt64/3; d = d*2 + d/3 + 1 {
		number, unit, _ := strings.Cut(show.FormatDuration(d), " ")
		got, err := time.ParseDuration(number + "s")
		if err != nil {
			t.Fatal(err)
		}
		back := got.Seconds() * units[unit]
		if math.Abs(back-float64(d)) > max(float64(d)/2000, 0.5) {
			t.Errorf("%d ns is %s %s", d, number, unit)
		}
		if digits := strings.Trim(strings.ReplaceAll(number, ".", ""), "0"); len(digits) > 4 && d < 10_000*time.Second {
			t.Errorf("%d ns: %s", d, number)
		}
	}
}
