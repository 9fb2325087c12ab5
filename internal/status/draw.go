package status

import (
	"html/template"
	"math"
	"strconv"
	"strings"

	"github.com/probed/probed/internal/show"
)

// A canvas collects what an SVG consists of. It escapes every text that it is
// given; colours and fonts are left to classes of the style sheet, so that a page
// with pictures needs no inline style.
type canvas struct {
	b      strings.Builder
	labels []label // everything written, to see that nothing overlaps
}

// A label is a line of text.
type label struct {
	x, y   float64 // of the baseline's anchor
	angle  float64 // degrees, clockwise
	anchor anchor
	size   float64 // of the font, in user units
	class  string
	text   string
}

// An anchor says which part of a text its x is.
type anchor uint8

const (
	fromLeft anchor = iota
	centred
	fromRight
)

// advance is how wide a character is at most, as a share of the font's size: the
// fixed-width fonts of the style sheet take 0.55 to 0.602. Texts in a proportional
// font are kept in lower case, which is narrower.
const advance = 0.605

// textWidth is how wide a text is at most.
func textWidth(s string, size float64) float64 {
	return float64(show.Width(s)) * advance * size
}

// A point is a place in the picture, y downwards.
type point struct{ x, y float64 }

// A box is a rectangle, which may be rotated, or a line.
type box struct {
	corner      [4]point
	top, bottom float64
}

func newBox(corner [4]point) box {
	return box{
		corner,
		min(corner[0].y, corner[1].y, corner[2].y, corner[3].y),
		max(corner[0].y, corner[1].y, corner[2].y, corner[3].y),
	}
}

// box is what a label takes.
func (l *label) box() box {
	w := textWidth(l.text, l.size)
	left := l.x
	switch l.anchor {
	case centred:
		left -= w / 2
	case fromRight:
		left -= w
	}
	top, bottom := l.y-0.8*l.size, l.y+0.22*l.size
	corner := [4]point{{left, top}, {left + w, top}, {left + w, bottom}, {left, bottom}}
	sin, cos := math.Sincos(l.angle * math.Pi / 180)
	for i, c := range corner {
		dx, dy := c.x-l.x, c.y-l.y
		corner[i] = point{l.x + dx*cos - dy*sin, l.y + dx*sin + dy*cos}
	}
	return newBox(corner)
}

// apart reports whether two boxes do not overlap: a line can be drawn between them
// that is parallel to a side of one.
func apart(a, b *box) bool {
	if a.bottom <= b.top || b.bottom <= a.top {
		return true // most are
	}
	for _, r := range [2]*box{a, b} {
		for i := range 2 {
			nx, ny := r.corner[i+1].y-r.corner[i].y, r.corner[i].x-r.corner[i+1].x
			if nx == 0 && ny == 0 {
				continue // a line
			}
			aLow, aHigh := a.shadow(nx, ny)
			bLow, bHigh := b.shadow(nx, ny)
			if aHigh <= bLow || bHigh <= aLow {
				return true
			}
		}
	}
	return false
}

// over reports whether two labels overlap.
func (l *label) over(o *label) bool {
	a, b := l.box(), o.box()
	return !apart(&a, &b)
}

// shadow is a box's extent along a direction.
func (r *box) shadow(nx, ny float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range r.corner {
		d := c.x*nx + c.y*ny
		low, high = min(low, d), max(high, d)
	}
	return low, high
}

// num writes a coordinate, to a tenth.
func num(v float64) string {
	v = math.Round(v*10) / 10
	if v == 0 {
		v = 0 // not -0
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// put writes markup and coordinates: strings as they are, numbers by num.
func (c *canvas) put(parts ...any) {
	for _, p := range parts {
		switch v := p.(type) {
		case string:
			c.b.WriteString(v)
		case float64:
			c.b.WriteString(num(v))
		case int:
			c.b.WriteString(strconv.Itoa(v))
		}
	}
}

// escape writes a text from anywhere.
func (c *canvas) escape(s string) { c.b.WriteString(template.HTMLEscapeString(show.SafeText(s))) }

// write writes a label.
func (c *canvas) write(l label) {
	if l.text == "" {
		return
	}
	l.text = show.SafeText(l.text)
	c.labels = append(c.labels, l)
	c.put(`<text x="`, l.x, `" y="`, l.y, `" class="`, l.class, `"`)
	switch l.anchor {
	case centred:
		c.put(` text-anchor="middle"`)
	case fromRight:
		c.put(` text-anchor="end"`)
	}
	c.put(` font-size="`, l.size, `"`)
	if l.angle != 0 {
		c.put(` transform="rotate(`, l.angle, ` `, l.x, ` `, l.y, `)"`)
	}
	c.put(">")
	c.escape(l.text)
	c.put("</text>")
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	c.put(`<line x1="`, x1, `" y1="`, y1, `" x2="`, x2, `" y2="`, y2, `" class="`, class, `"/>`)
}

func (c *canvas) rect(x, y, w, h float64, class string) {
	c.put(`<rect x="`, x, `" y="`, y, `" width="`, w, `" height="`, h, `" class="`, class, `"/>`)
}

// path draws a line through points.
func (c *canvas) path(class string, points ...point) {
	c.put(`<path class="`, class, `" d="`)
	for i, p := range points {
		if i == 0 {
			c.put("M", p.x, " ", p.y)
		} else {
			c.put("L", p.x, " ", p.y)
		}
	}
	c.put(`"/>`)
}

// svg returns the whole picture. The title is what a screen reader says first, the
// description what follows; id makes the names that bind them to the picture unique
// on a page.
func (c *canvas) svg(id, class string, w, h float64, title, description string) template.HTML {
	var s canvas
	s.put(`<svg xmlns="http://www.w3.org/2000/svg" class="`, class, `" viewBox="0 0 `, math.Ceil(w), " ", math.Ceil(h),
		`" width="`, math.Ceil(w), `" height="`, math.Ceil(h), `" role="img" aria-labelledby="`, id, `-t"`)
	if description != "" {
		s.put(` aria-describedby="`, id, `-d"`)
	}
	s.put(`><title id="`, id, `-t">`)
	s.escape(title)
	s.put("</title>")
	if description != "" {
		s.put(`<desc id="`, id, `-d">`)
		s.escape(description)
		s.put("</desc>")
	}
	s.put(c.b.String(), "</svg>\n")
	return template.HTML(s.b.String()) // markup of ours, and texts that escape wrote
}
