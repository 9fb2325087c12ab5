package status

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A geometry is how wide the parts of a ladder are, in user units. From the left:
// the names of what was measured, the brackets, our end's times and states, the way
// between both ends, the peer's states.
type geometry struct {
	id        string
	edge      float64
	names     float64 // 0: brackets are numbered, and named below
	lane      float64
	column    float64 // of times and states
	way       float64 // at least
	text      float64 // font sizes: what is written at an arrow,
	note      float64 // what was concluded,
	state     float64 // times and states
	twoLines  bool    // an arrow's numbers stand below it
	peerGauge float64 // from the peer's line to its states
}

func wideGeometry() geometry {
	return geometry{id: "w", edge: 14, names: 40, lane: 15, column: 104, way: 400, text: 12.5, note: 11, state: 12, peerGauge: 11}
}

func narrowGeometry() geometry {
	return geometry{id: "n", edge: 4, lane: 18, column: 86, way: 156, text: 11, note: 10, state: 10.5, twoLines: true, peerGauge: 7}
}

// ladderSVG draws a conversation: our end on the left, the peer's on the right, time
// downwards.
func ladderSVG(c *show.Conversation) template.HTML { return drawLadder(c, wideGeometry()).picture() }

// narrowLadderSVG draws the same for a page of a hand's width.
func narrowLadderSVG(c *show.Conversation) template.HTML {
	return drawLadder(c, narrowGeometry()).picture()
}

// A ladder is one being drawn.
type ladder struct {
	canvas
	geometry
	scale
	c           *show.Conversation
	rungs       []rung
	oneWay      time.Duration
	perNS       float64 // units a nanosecond
	left, right float64 // the lines of both ends
	width       float64
	top         float64 // where the lines begin
	height      float64
	lines       [][]label // what is written at each rung
	brackets    []bracket
	unseen      []string // what was measured between steps that are not drawn
	placed      []label
	boxes       []box // around them
	arrows      []box // lines, of each rung
}

// ladderTop is where the lines begin, if the addresses of both ends have room beside
// each other.
const ladderTop = 46.0

func drawLadder(c *show.Conversation, g geometry) *ladder {
	l := &ladder{geometry: g, c: c, rungs: rungs(c), oneWay: oneWay(c)}
	perNS, flight := unitsPer(l.rungs, l.oneWay)
	l.perNS = perNS
	flights(c, l.rungs, flight)
	l.brackets = l.measure()
	l.columns()
	l.settle()
	l.draw()
	return l
}

// columns says where everything is from left to right.
func (l *ladder) columns() {
	lanes := 0
	for i := range l.brackets {
		lanes = max(lanes, l.brackets[i].lane+1)
	}
	l.left = l.edge + float64(lanes)*l.lane + l.column
	if lanes > 0 && l.names > 0 {
		for i := range l.brackets {
			l.names = max(l.names, textWidth(l.brackets[i].name, l.note), textWidth(l.brackets[i].value, l.text))
		}
		l.names += 12
		l.left += l.names
	}
	need := l.way
	l.lines = make([][]label, len(l.rungs))
	for i := range l.rungs {
		l.lines[i] = l.lettering(&l.rungs[i])
		for _, t := range l.lines[i] {
			need = max(need, textWidth(t.text, t.size)+40)
		}
	}
	l.right = l.left + need
	l.width = l.right + l.column + l.edge
	local, remote := l.addresses()
	l.width = max(l.width, textWidth(local.text, local.size)+2*l.edge, textWidth(remote.text, remote.size)+2*l.edge)
	l.top = ladderTop
	if local, remote = l.addresses(); local.y != remote.y {
		l.top = remote.y + 11
	}
}

// settle finds room for every label: where two are in each other's way, the later
// one's rung moves down, the further the more often that did not help, and by and by
// the other end of its arrow as well. After so many moves it is good as it is.
func (l *ladder) settle() {
	const moves, patience = 30, 3
	rooms := make([]room, len(l.rungs))
	step := 6.0
	for left, last, again := moves*(len(l.rungs)+1), -1, 0; ; left-- {
		l.scale = place(l.rungs, l.perNS, l.top+44, rooms)
		i, ok := l.letter(left == 0)
		if ok {
			return
		}
		again++
		step = min(step*1.5, 40)
		if i != last {
			again, step = 0, 6
		}
		rooms[i].begin += step
		if again >= patience {
			rooms[i].end += step
		}
		last = i
	}
}

// lettering is what is written at a rung, the first line above it.
func (l *ladder) lettering(r *rung) []label {
	var t []label
	add := func(text, class string, size float64) {
		if text != "" {
			t = append(t, label{text: text, class: class, size: size})
		}
	}
	switch {
	case r.band != "":
	case r.way == show.Here && !l.twoLines:
		text := r.label
		if r.note != "" {
			if text != "" {
				text += ": "
			}
			text += r.note
		}
		add(text, "lad-timer", l.note)
	case r.way == show.Here:
		add(r.label, "lad-timer", l.note)
		add(r.note, "lad-note", l.note)
	case l.twoLines && r.flags != "":
		add(strings.TrimRight(r.flags+" "+r.octets, " "), "lad-label", l.text)
		add(r.numbers, "lad-note", l.note)
		add(r.note, "lad-note", l.note)
	default:
		add(r.label, "lad-label", l.text)
		add(r.note, "lad-note", l.note)
	}
	return t
}

// letter puts every label at its arrow. If there is no place for that of one, it
// returns which, or has it cover others if it must.
func (l *ladder) letter(must bool) (rung int, ok bool) {
	l.placed, l.boxes, l.arrows = l.placed[:0], l.boxes[:0], l.arrows[:0]
	for i := range l.rungs {
		near, far := point{l.left, l.near[i]}, point{l.right, l.far[i]}
		l.arrows = append(l.arrows, newBox([4]point{near, far, far, near}))
	}
	l.notes()
	for i := range l.rungs {
		lines := l.lines[i]
		if len(lines) == 0 || l.tryLabels(i, lines) {
			continue
		}
		if !must {
			return i, false
		}
		l.settled(l.along(i, lines, 16, false)...)
	}
	return 0, true
}

// notes puts down what has its place whatever the labels need: breaks, bands, and the
// question mark at the end of what was not answered.
func (l *ladder) notes() {
	x := (l.left + l.right) / 2
	for i := range l.rungs {
		if r := &l.rungs[i]; !r.answered && r.way == show.Out {
			l.settled(label{x: l.right - 11, y: l.far[i] + 4, anchor: centred, size: 14, class: "lad-unknown", text: "?"})
		}
	}
	for _, b := range l.breaks {
		text := show.FormatDuration(b.skipped) + " skipped"
		l.settled(label{x: x, y: (b.y0+b.y1)/2 + 4, anchor: centred, size: l.note, class: "lad-skip", text: text})
	}
	for _, b := range l.bands {
		l.settled(label{x: x, y: (b.y0+b.y1)/2 + 4, anchor: centred, size: l.note, class: "lad-skip", text: b.text})
	}
}

// tryLabels looks for a place along a rung's arrow: above it where it begins, else
// further on, else below it. It is to cover no other arrow, or if there is no such
// place at least no other label.
func (l *ladder) tryLabels(i int, lines []label) bool {
	var second []label
	for _, below := range [...]bool{false, true} {
		for _, along := range [...]float64{16, 40, 70, 100, 130, atMiddle, atEnd} {
			at := l.along(i, lines, along, below)
			boxes := make([]box, len(at))
			for n := range at {
				boxes[n] = at[n].box()
			}
			if !l.free(boxes) {
				continue
			}
			if l.clear(i, boxes) {
				l.settled(at...)
				return true
			}
			if second == nil {
				second = at
			}
		}
	}
	l.settled(second...)
	return second != nil
}

// settled puts labels down where they are.
func (l *ladder) settled(at ...label) {
	for n := range at {
		l.placed = append(l.placed, at[n])
		l.boxes = append(l.boxes, at[n].box())
	}
}

// Places of a label that do not depend on its arrow's length.
const (
	atMiddle = -1
	atEnd    = -2
)

// along places lines at a rung, so far from where its arrow begins.
func (l *ladder) along(i int, lines []label, from float64, below bool) []label {
	r := &l.rungs[i]
	x, a := l.left+from, fromLeft
	switch from {
	case atMiddle:
		x, a = (l.left+l.right)/2, centred
	case atEnd:
		x, a = l.right-16, fromRight
	}
	if r.way == show.In || r.way == show.Error {
		x, a = l.left+l.right-x, fromRight-a
		if r.midway && from > 0 {
			x -= l.beyond()
		}
	}
	slope := (l.far[i] - l.near[i]) / (l.right - l.left)
	y := l.near[i] + (x-l.left)*slope
	angle := math.Atan(slope)
	sin, cos := math.Sincos(angle)
	at := make([]label, len(lines))
	down := -5.0
	stroke := r.way == show.Here && l.c.Steps[r.step].Event != probe.UserTimeout
	if stroke {
		down = 4 // beside a short stroke, not above a long line
	}
	for n, t := range lines {
		if n == 0 && below || n == 1 && !stroke && !below {
			down = 1.5
			if n == 0 {
				down += t.size
			}
		}
		if n > 0 {
			down += t.size + 1.5
		}
		t.x, t.y, t.angle, t.anchor = x-down*sin, y+down*cos, angle*180/math.Pi, a
		l.inside(&t, slope)
		at[n] = t
	}
	return at
}

// inside moves a label along its arrow until it is between both lines.
func (l *ladder) inside(t *label, slope float64) {
	const margin = 4
	b := t.box()
	low, high := b.shadow(1, 0)
	shift := 0.0
	switch {
	case low < l.left+margin:
		shift = l.left + margin - low
	case high > l.right-margin:
		shift = l.right - margin - high
	}
	t.x += shift
	t.y += shift * slope
}

// clear reports whether labels of a rung cover no other rung's arrow.
func (l *ladder) clear(i int, boxes []box) bool {
	for j := range l.arrows {
		if j == i || l.rungs[j].way == show.Here {
			continue
		}
		for n := range boxes {
			if !apart(&boxes[n], &l.arrows[j]) {
				return false
			}
		}
	}
	return true
}

// free reports whether labels are in nobody's way, and between both lines.
func (l *ladder) free(boxes []box) bool {
	for i := range boxes {
		for _, corner := range boxes[i].corner {
			if corner.x < l.left+3 || corner.x > l.right-3 {
				return false
			}
		}
		for j := len(l.boxes) - 1; j >= 0; j-- { // the last is the nearest
			if !apart(&boxes[i], &l.boxes[j]) {
				return false
			}
		}
	}
	return true
}

// draw draws everything, what is behind first.
func (l *ladder) draw() {
	l.height = l.bottom + 26
	l.drawSpans()
	l.drawBrackets()
	l.drawLines()
	for i := range l.rungs {
		l.drawRung(i)
	}
	for _, t := range l.placed {
		l.write(t)
	}
	l.drawTimes()
	l.drawPeer()
	l.drawHead()
	l.drawFoot()
}

// drawSpans tints what is not drawn.
func (l *ladder) drawSpans() {
	for _, list := range [][]span{l.breaks, l.bands} {
		for _, s := range list {
			l.rect(l.left, s.y0, l.right-l.left, s.y1-s.y0, "lad-gap")
		}
	}
}

// drawLines draws the line of each end: straight where it is to scale, dotted where
// it is stretched, a zigzag where it is broken.
func (l *ladder) drawLines() {
	for _, x := range [2]float64{l.left, l.right} {
		y := l.top
		for _, s := range l.cuts() {
			if s.y0 > y {
				l.line(x, y, x, s.y0, "lad-life")
			}
			if s.skipped == 0 && s.text == "" {
				l.line(x, max(y, s.y0), x, s.y1, "lad-life lad-stretch")
			} else {
				l.zigzag(x, s.y0, s.y1, 5, "lad-life")
			}
			y = max(y, s.y1)
		}
		l.line(x, y, x, l.height, "lad-life")
	}
}

// cuts are all parts that are not to scale, from the top.
func (l *ladder) cuts() []span {
	all := append(append(append([]span(nil), l.breaks...), l.bands...), l.stretched...)
	sortSpans(all)
	return all
}

// zigzag draws a line that is broken between two heights.
func (l *ladder) zigzag(x, y0, y1, wide float64, class string) {
	const teeth = 6
	points := []point{{x, y0}}
	for i := range teeth {
		side := wide
		if i%2 == 1 {
			side = -wide
		}
		points = append(points, point{x + side, y0 + (y1-y0)*(float64(i)+1)/(teeth+1)})
	}
	l.path(class, append(points, point{x, y1})...)
}

// drawRung draws an arrow, or what a timer did.
func (l *ladder) drawRung(i int) {
	r := &l.rungs[i]
	near, far := point{l.left, l.near[i]}, point{l.right, l.far[i]}
	switch {
	case r.band != "":
		return
	case r.way == show.Here:
		class := "lad-arrow lad-timer-line"
		to := point{l.left + 12, near.y}
		if l.c.Steps[r.step].Event == probe.UserTimeout {
			to = far
			class += " lad-timeout"
		}
		l.put(`<g class="`, class, `"><title>`)
		l.escape(l.tooltip(r))
		l.put("</title>")
		l.line(near.x, near.y, to.x, to.y, "lad-line")
		l.put("</g>")
		l.put(`<rect x="`, near.x-3.5, `" y="`, near.y-3.5, `" width="7" height="7" class="lad-clock"/>`)
		return
	case r.midway:
		far = point{far.x - l.beyond(), far.y + (near.y-far.y)*routers}
		l.put(`<path class="lad-router" d="M`, far.x-6, " ", far.y, "l6-6 6 6-6 6", `Z"/>`)
	}
	if r.way == show.Out {
		l.arrow(r, near, far)
	} else {
		l.arrow(r, far, near)
	}
	l.put(`<circle cx="`, near.x, `" cy="`, near.y, `" r="3" class="lad-stamp"/>`)
	if r.answered && !r.midway {
		l.put(`<circle cx="`, far.x, `" cy="`, far.y, `" r="3" class="lad-inferred"/>`)
	}
}

// routers is how far from the peer a router is drawn, as a share of the way. Where it
// is, nobody knows.
const routers = 0.22

// beyond is the length of the way behind a router.
func (l *ladder) beyond() float64 { return routers * (l.right - l.left) }

// arrow draws a segment's way.
func (l *ladder) arrow(r *rung, from, to point) {
	class := "lad-arrow lad-" + r.class
	if r.way == show.Out {
		class += " lad-out"
	} else {
		class += " lad-in"
	}
	l.put(`<g class="`, class, `"><title>`)
	l.escape(l.tooltip(r))
	l.put("</title>")
	length := math.Hypot(to.x-from.x, to.y-from.y)
	ux, uy := (to.x-from.x)/length, (to.y-from.y)/length
	at := func(along, across float64) point {
		return point{from.x + along*ux - across*uy, from.y + along*uy + across*ux}
	}
	tip := length - 4
	switch {
	case !r.answered:
		half := at(length*0.45, 0)
		l.line(from.x, from.y, half.x, half.y, "lad-line")
		gone := at(length-20, 0)
		l.line(half.x, half.y, gone.x, gone.y, "lad-line lad-lost")
	case r.class == "rst":
		e := at(tip-5, 0)
		l.line(from.x, from.y, e.x, e.y, "lad-line")
		a, b, c, d := at(tip-10, -5), at(tip, 5), at(tip-10, 5), at(tip, -5)
		l.line(a.x, a.y, b.x, b.y, "lad-line lad-cross")
		l.line(c.x, c.y, d.x, d.y, "lad-line lad-cross")
	default:
		e := at(tip-8, 0)
		l.line(from.x, from.y, e.x, e.y, "lad-line")
		a, b, c := at(tip, 0), at(tip-11, -4.5), at(tip-11, 4.5)
		l.put(`<path class="lad-head" d="M`, a.x, " ", a.y, "L", b.x, " ", b.y, "L", c.x, " ", c.y, `Z"/>`)
	}
	l.put("</g>")
}

// tooltip says everything about a rung.
func (l *ladder) tooltip(r *rung) string {
	s := &l.c.Steps[r.step]
	text := stampText(s.At) + ": " + string(l.c.AppendSegment(nil, r.step, show.SegmentOptions{}))
	if s.Way == show.Here {
		text = stampText(s.At) + ": " + s.Event.String()
	}
	if s.Note != "" {
		text += " (" + s.Note + ")"
	}
	if !r.answered {
		text += "; nothing came back for it: it, its answer, or the will to answer was missing"
	}
	return text
}

// drawTimes writes when each rung was at our end, above it, and the state that it
// led to, below.
func (l *ladder) drawTimes() {
	x := l.left - 9
	first := true
	for i := range l.rungs {
		r := &l.rungs[i]
		if r.band != "" {
			continue
		}
		y := l.near[i]
		if first && l.c.Steps[r.step].Event != 0 {
			l.write(label{x: x, y: y - 22, anchor: fromRight, size: l.state, class: "lad-state", text: probe.Closed.String()})
		}
		first = false
		l.write(label{x: x, y: y - 4, anchor: fromRight, size: l.state, class: "lad-time", text: stampText(r.at)})
		if r.local != probe.Unknown {
			l.line(l.left-8, y, l.left, y, "lad-tick")
			l.write(label{x: x, y: y + 12, anchor: fromRight, size: l.state, class: "lad-state", text: r.local.String()})
		}
	}
}

// stampText writes a moment to the nanosecond where that is short, else to the
// microsecond.
func stampText(d time.Duration) string {
	abs := max(d, -d)
	switch {
	case d == 0:
		return "0"
	case abs < time.Millisecond:
		return strconv.FormatFloat(float64(d)/1e3, 'f', 3, 64) + " µs"
	case abs < time.Second:
		return strconv.FormatFloat(float64(d)/1e6, 'f', 3, 64) + " ms"
	default:
		return strconv.FormatFloat(float64(d)/1e9, 'f', 6, 64) + " s"
	}
}

// addresses are both ends' names: above their lines, below each other if they are
// too long for one height.
func (l *ladder) addresses() (local, remote label) {
	local = label{anchor: centred, size: l.state, class: "lad-end-address", y: ladderTop - 11}
	remote = local
	if l.c.Tuple.Local.IsValid() {
		local.text = show.SafeText(l.c.Tuple.Local.String())
	}
	if l.c.Tuple.Remote.IsValid() {
		remote.text = show.SafeText(l.c.Tuple.Remote.String())
	}
	for _, t := range [...]*label{&local, &remote} {
		at, half := l.left, textWidth(t.text, t.size)/2
		if t == &remote {
			at = l.right
		}
		t.x = max(min(at, l.width-l.edge-half), l.edge+half)
	}
	if local.x+textWidth(local.text, local.size)/2+10 > remote.x-textWidth(remote.text, remote.size)/2 {
		remote.y += l.state + 3
	}
	return local, remote
}

// drawHead names both ends.
func (l *ladder) drawHead() {
	local, remote := l.addresses()
	l.write(local)
	l.write(remote)
	l.write(label{x: l.left, y: 18, anchor: centred, size: l.text, class: "lad-end", text: "this host"})
	l.write(label{x: l.right, y: 18, anchor: centred, size: l.text, class: "lad-end", text: "peer"})
}

// drawFoot writes the verdict, and what was measured that no bracket shows.
func (l *ladder) drawFoot() {
	text := "verdict: " + l.c.Verdict()
	class, sign := "lad-bad", "✗ "
	switch {
	case !l.c.Settled:
		class, sign = "lad-open", "… "
	case l.c.Discarded != probe.NotDiscarded:
		class, sign = "lad-ours", "◇ "
	case l.c.OK():
		class, sign = "lad-good", "✓ "
	}
	text = sign + text
	x := (l.left + l.right) / 2
	y := l.height + 24
	w := textWidth(text, l.text+1) + 28
	l.put(`<rect x="`, x-w/2, `" y="`, y-18, `" width="`, w, `" height="27" rx="13.5" class="lad-verdict `, class, `"/>`)
	l.write(label{x: x, y: y, anchor: centred, size: l.text + 1, class: "lad-verdict-text " + class, text: text})
	y += 14
	for _, f := range l.others() {
		y += 16
		l.write(label{x: x, y: y, anchor: centred, size: l.note, class: "lad-note", text: f})
	}
	l.drawRuler(y)
	l.height = max(y, l.height+24) + 14
	if l.names == 0 {
		l.legend()
	}
}

// drawRuler shows how high a round length of time is where the lines are straight.
func (l *ladder) drawRuler(y float64) {
	if l.oneWay == 0 || l.twoLines {
		return
	}
	d := time.Duration(1)
	for unit := time.Duration(1); float64(unit)*l.perNS <= 60 && unit < time.Hour; unit *= 10 {
		for _, m := range [...]time.Duration{1, 2, 5} {
			if float64(unit*m)*l.perNS <= 60 {
				d = unit * m
			}
		}
	}
	high := float64(d) * l.perNS
	x, y0 := l.right+20, l.height+4
	l.line(x, y0, x, y0+high, "lad-ruler")
	l.line(x-4, y0, x+4, y0, "lad-ruler")
	l.line(x-4, y0+high, x+4, y0+high, "lad-ruler")
	l.write(label{x: x + 8, y: y0 + high/2 + 4, size: l.note, class: "lad-note", text: show.FormatDuration(d)})
	l.height = max(l.height, y0+high-14)
}

// others are the figures without an interval between two steps of the picture.
func (l *ladder) others() []string {
	var all []string
	for i := range l.c.Figures {
		f := &l.c.Figures[i]
		switch f.Kind {
		case probe.Teardown:
			all = append(all, "teardown: "+f.Form.String())
		case probe.HalfCloseOctets:
			all = append(all, fmt.Sprintf("half-close: %d bytes after our FIN", f.Octets))
		case probe.TimeWaitReuse:
			all = append(all, "TIME-WAIT reuse: "+f.Answer.String())
		case probe.TimeWaitLasted:
			all = append(all, "TIME-WAIT lasted "+show.FormatDuration(f.Least)+" to "+show.FormatDuration(f.Duration))
		}
	}
	return append(all, l.unseen...)
}

// picture is the whole of it.
func (l *ladder) picture() template.HTML {
	id := fmt.Sprintf("ladder-%s-%d", l.id, l.c.Number)
	title := fmt.Sprintf("Ladder of a %s probe: %s", l.c.Kind, l.c.Verdict())
	return l.svg(id, "ladder", l.width, l.height, title, l.description())
}

// description tells the picture in words.
func (l *ladder) description() string {
	n := 0
	for i := range l.rungs {
		if w := l.rungs[i].way; l.rungs[i].band == "" && w != show.Here {
			n++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Time runs downwards, this host is the left line, the peer the right one. %d arrows.", n)
	for _, m := range l.c.Marks {
		fmt.Fprintf(&b, " %s %s.", m.Name, show.FormatDuration(m.Duration))
	}
	b.WriteString(" The table after the picture lists every step.")
	return b.String()
}

// ladderCaption says how the picture is to be read.
func ladderCaption(c *show.Conversation) string {
	text := "Times and filled dots are the kernel's stamps at our end of the wire. The peer's end and its states are inferred: "
	if w := oneWay(c); w > 0 {
		text += "a segment is drawn to take half of the first round trip, " + show.FormatDuration(w) + ", or less where the answer came sooner."
	} else {
		text += "no round trip is known here, so the slant says nothing."
	}
	for i := range c.Steps {
		if c.Steps[i].Way == show.Error && midway(c, i) {
			text += " A diamond is a router; where on the way it is, nobody knows."
			break
		}
	}
	return text + " Straight lines are to scale, dotted ones stretched to be readable, zigzags skip time."
}
