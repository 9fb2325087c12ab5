package status

import (
	"cmp"
	"slices"

	"github.com/probed/probed/internal/show"
)

// A bracket is what was measured, beside the two rungs that it lies between.
type bracket struct {
	name, value, meaning string
	from, to             int // rungs
	lane                 int // 0 is next to our line
	y                    float64
}

// measure returns the brackets of a conversation's marks, the shortest next to our
// line.
func (l *ladder) measure() []bracket {
	at := make(map[int]int, len(l.rungs))
	for i := range l.rungs {
		if l.rungs[i].band == "" {
			at[l.rungs[i].step] = i
		}
	}
	var all []bracket
	for _, m := range l.c.Marks {
		from, ok := at[m.From]
		to, also := at[m.To]
		if !ok || !also {
			l.unseen = append(l.unseen, m.Name+" "+show.FormatDuration(m.Duration))
			continue
		}
		name, meaning := show.Interval(m.Kind)
		all = append(all, bracket{name: name, value: show.FormatDuration(m.Duration), meaning: meaning, from: from, to: to})
	}
	slices.SortStableFunc(all, func(a, b bracket) int { return cmp.Compare(a.to-a.from, b.to-b.from) })
	for i := range all {
		for taken(all[:i], &all[i]) {
			all[i].lane++
		}
	}
	slices.SortStableFunc(all, func(a, b bracket) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	return all
}

// taken reports whether a bracket's lane is another's at some height.
func taken(others []bracket, b *bracket) bool {
	return slices.ContainsFunc(others, func(o bracket) bool {
		meets := b.from < o.to && o.from < b.to || b.from == o.from && b.to == o.to ||
			b.from == b.to && (b.from == o.from || b.from == o.to)
		return o.lane == b.lane && meets
	})
}

// laneX is where a bracket's line is.
func (l *ladder) laneX(b *bracket) float64 {
	return l.left - l.column - (float64(b.lane)+0.5)*l.lane
}

// drawBrackets draws what was measured: the brackets and what they are.
func (l *ladder) drawBrackets() {
	if len(l.brackets) == 0 {
		return
	}
	for i := range l.brackets {
		b := &l.brackets[i]
		x, y0, y1 := l.laneX(b), l.near[b.from], l.near[b.to]
		l.put(`<g class="lad-mark"><title>`)
		l.escape(b.name + " " + b.value + ": " + b.meaning)
		l.put("</title>")
		for _, y := range [2]float64{y0, y1} {
			l.line(x, y, l.left-4, y, "lad-extend")
			l.line(x-4, y, x+4, y, "lad-bracket")
		}
		l.bracketLine(x, y0, y1)
		l.put("</g>")
		b.y = (y0 + y1) / 2
	}
	if l.names == 0 {
		l.numberBrackets()
	} else {
		l.nameBrackets()
	}
}

// bracketLine draws a bracket from end to end, broken where the axis is.
func (l *ladder) bracketLine(x, y0, y1 float64) {
	y := y0
	for _, s := range l.cuts() {
		if s.skipped == 0 && s.text == "" || s.y0 < y0 || s.y1 > y1 {
			continue
		}
		l.line(x, y, x, s.y0, "lad-bracket")
		l.zigzag(x, s.y0, s.y1, 3, "lad-bracket")
		y = s.y1
	}
	l.line(x, y, x, y1, "lad-bracket")
}

// nameBrackets writes names and values left of the brackets, each as near to its own
// as the others allow.
func (l *ladder) nameBrackets() {
	const high = 31.0
	order := make([]*bracket, len(l.brackets))
	lanes := 0
	for i := range l.brackets {
		order[i] = &l.brackets[i]
		lanes = max(lanes, l.brackets[i].lane+1)
	}
	slices.SortStableFunc(order, func(a, b *bracket) int { return cmp.Compare(a.y, b.y) })
	right := l.left - l.column - float64(lanes)*l.lane - 12
	y := 0.0
	for _, b := range order {
		at := max(b.y, y)
		y = at + high
		x := l.laneX(b)
		l.path("lad-leader", point{right + 3, at}, point{x, min(max(at, l.near[b.from]), l.near[b.to])})
		l.write(label{x: right, y: at - 2, anchor: fromRight, size: l.note, class: "lad-name", text: b.name})
		l.write(label{x: right, y: at + 12, anchor: fromRight, size: l.text, class: "lad-value", text: b.value})
	}
	l.height = max(l.height, y)
}

// numberBrackets writes a number on each bracket; legend says what it is.
func (l *ladder) numberBrackets() {
	var used []label
	for i := range l.brackets {
		b := &l.brackets[i]
		n := label{x: l.laneX(b), y: b.y + 4, anchor: centred, size: l.state, class: "lad-value", text: numberSign(i)}
		for slices.ContainsFunc(used, func(o label) bool { return o.over(&n) }) {
			n.y += 3
		}
		used = append(used, n)
		l.put(`<rect x="`, n.x-7, `" y="`, n.y-4-7, `" width="14" height="14" rx="7" class="lad-number"/>`)
		l.write(n)
	}
}

// legend lists the numbered brackets below the picture.
func (l *ladder) legend() {
	y := l.height + 4
	for i := range l.brackets {
		b := &l.brackets[i]
		y += 17
		l.write(label{x: l.edge + 6, y: y, size: l.text, class: "lad-value", text: numberSign(i) + " " + b.name + " " + b.value})
	}
	if len(l.brackets) > 0 {
		l.height = y + 10
	}
}

// numberSign is what a bracket is called below the picture.
func numberSign(i int) string { return string(rune('a' + i%26)) }
