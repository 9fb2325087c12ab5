package metrics

import (
	"io"
	"math"
	"strconv"
)

// flushAt is how much is gathered before it is written, in octets.
const flushAt = 64 << 10

// A textWriter writes the Prometheus text format 0.0.4. Native buckets have no
// place in it.
type textWriter struct {
	w   io.Writer
	buf []byte
	fam *family
	err error // the first; nothing is written after it
}

func (t *textWriter) reset(w io.Writer) { t.w, t.buf, t.err = w, t.buf[:0], nil }

func (t *textWriter) begin(f *family) {
	t.fam = f
	t.buf = append(t.buf, "# HELP "...)
	t.buf = append(t.buf, f.name...)
	t.buf = append(t.buf, ' ')
	t.buf = append(t.buf, f.help...)
	t.buf = append(t.buf, "\n# TYPE "...)
	t.buf = append(t.buf, f.name...)
	t.buf = append(t.buf, ' ')
	t.buf = append(t.buf, f.kind.String()...)
	t.buf = append(t.buf, '\n')
}

func (t *textWriter) value(ls *labelSet, extra []label, v float64) error {
	t.series("", ls, extra, "")
	t.buf = appendTextFloat(t.buf, v)
	return t.line()
}

func (t *textWriter) histogram(ls *labelSet, h *histogram) error {
	var sum uint64
	for i, le := range h.bounds.le {
		sum += h.at(i)
		t.count("_bucket", ls, le, sum)
	}
	t.count("_bucket", ls, "+Inf", h.count)
	t.series("_sum", ls, nil, "")
	t.buf = appendTextFloat(t.buf, h.sum)
	t.buf = append(t.buf, '\n')
	t.count("_count", ls, "", h.count)
	return t.flush(flushAt)
}

func (t *textWriter) end() error { return t.flush(flushAt) }

// series writes the name with its suffix, the labels, and a space.
func (t *textWriter) series(suffix string, ls *labelSet, extra []label, le string) {
	t.buf = append(t.buf, t.fam.name...)
	t.buf = append(t.buf, suffix...)
	if ls.text == "" && len(extra) == 0 && le == "" {
		t.buf = append(t.buf, ' ')
		return
	}
	t.buf = append(t.buf, '{')
	start := len(t.buf)
	t.buf = append(t.buf, ls.text...)
	for _, p := range extra {
		if len(t.buf) > start {
			t.buf = append(t.buf, ',')
		}
		t.buf = appendTextLabel(t.buf, p)
	}
	if le != "" {
		if len(t.buf) > start {
			t.buf = append(t.buf, ',')
		}
		t.buf = append(t.buf, `le="`...)
		t.buf = append(t.buf, le...)
		t.buf = append(t.buf, '"')
	}
	t.buf = append(t.buf, "} "...)
}

func (t *textWriter) count(suffix string, ls *labelSet, le string, n uint64) {
	t.series(suffix, ls, nil, le)
	t.buf = strconv.AppendUint(t.buf, n, 10)
	t.buf = append(t.buf, '\n')
}

func (t *textWriter) line() error {
	t.buf = append(t.buf, '\n')
	return t.flush(flushAt)
}

// flush writes what is gathered if it is that many octets.
func (t *textWriter) flush(atLeast int) error {
	if t.err == nil && len(t.buf) >= atLeast {
		_, t.err = t.w.Write(t.buf)
		t.buf = t.buf[:0]
	}
	return t.err
}

// appendTextLabel writes name="value". Backslash, quote and line feed are
// escaped, as the format asks.
func appendTextLabel(b []byte, p label) []byte {
	b = append(b, p.name...)
	b = append(b, `="`...)
	for i := range len(p.value) {
		switch c := p.value[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// appendTextFloat writes whole numbers as such, which is what counters are.
func appendTextFloat(b []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
