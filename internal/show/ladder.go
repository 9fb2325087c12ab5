package show

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// TextOptions says how WriteLadder draws.
type TextOptions struct {
	Width int  // of the terminal, columns; less than 60 is 60, 0 is 80, and more than 132 is not used
	Color bool // with SGR sequences; they carry nothing that is not there without
}

// The columns of a ladder: time, our state, our lifeline, the wire, the peer's
// lifeline, its state, and on wide terminals what was measured.
const (
	timeColumns    = 9
	stateColumns   = 12 // SYN-RECEIVED
	ourLifeline    = timeColumns + 1 + stateColumns + 1
	measureColumns = 34

	minColumns     = 60
	defaultColumns = 80
	maxColumns     = 132

	wireForMeasure = 34 // how wide the wire stays at least beside what was measured
)

// WriteLadder draws the time-sequence ladder: we are left, the peer is right, time
// goes down. What is on the wire is drawn when our kernel stamped it; when the peer
// sent or got it is not known, so arrows are level. Time is to scale as far as
// lines allow: longer gaps are longer, on a logarithmic scale, and each says how
// long it was. What was measured is a bracket on the right, on narrow terminals a
// line below the segment that completed it.
func (c *Conversation) WriteLadder(w io.Writer, o TextOptions) error {
	l := newLadder(c, o)
	l.head()
	l.body()
	l.brackets()
	l.foot()
	var b strings.Builder
	for i := range l.rows {
		b.WriteString(l.line(&l.rows[i]) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("show: write ladder: %w", err)
	}
	return nil
}

// A ladder is one being drawn.
type ladder struct {
	c       *Conversation
	color   bool
	columns int
	wire    int  // columns between the lifelines
	measure bool // brackets are drawn
	rows    []row
	rowOf   []int // of each step
}

// A row is one line. Free text takes all of it; else it is made of columns.
type row struct {
	free        []span
	time        span
	local, peer string
	left, right string // the lifelines
	wire        span
	measure     string
}

func newLadder(c *Conversation, o TextOptions) *ladder {
	l := &ladder{c: c, color: o.Color, columns: o.Width, rowOf: make([]int, len(c.Steps))}
	if l.columns == 0 {
		l.columns = defaultColumns
	}
	l.columns = min(max(l.columns, minColumns), maxColumns)
	l.wire = l.columns - ourLifeline - 2 - 1 - stateColumns
	if l.wire-measureColumns >= wireForMeasure {
		l.measure = true
		l.wire -= measureColumns
	}
	return l
}

// head says what it is, and who is at both ends.
func (l *ladder) head() {
	started := time.Unix(0, l.c.Zero).UTC().Format(stampLayout)
	l.free(styleBold, l.c.Kind.String()+" "+started+" UTC")
	from := "the OPEN"
	if slices.ContainsFunc(l.c.Steps, func(s Step) bool { return s.Way == Out && s.At == 0 }) {
		from = "our SYN left"
	}
	l.free(styleDim, "time since "+from+", gaps logarithmic; the peer's states are inferred")
	l.rows = append(l.rows, row{})
	if !l.c.Tuple.Remote.IsValid() {
		return
	}
	us, peer := endText(l.c.Tuple.Local), endText(l.c.Tuple.Remote)
	theirs := ourLifeline + l.wire + 1
	left := max(0, ourLifeline-len(us)/2)
	right := min(theirs-len(peer)/2, l.columns-len(peer))
	if left+len(us)+1 <= right {
		l.rows = append(l.rows, row{free: []span{{blanks(left) + us, styleBold}, {blanks(right - left - len(us)), stylePlain}, {peer, styleBold}}})
		return
	}
	l.rows = append(l.rows,
		row{free: []span{{us, styleBold}}},
		row{free: []span{{blanks(max(0, l.columns-len(peer))), stylePlain}, {peer, styleBold}}})
}

// body draws the steps and what lies between them.
func (l *ladder) body() {
	gaps := l.gaps()
	var local, peer probe.State
	said := ""
	for i := range l.c.Steps {
		s := &l.c.Steps[i]
		if l.c.Lost > 0 && i == l.c.LostAt {
			l.rows = append(l.rows, row{left: "┊", right: "┊", wire: l.centered(fmt.Sprintf("… %d steps not kept …", l.c.Lost), styleDim)})
		}
		if i > 0 {
			l.pass(gaps[i], s.At-l.c.Steps[i-1].At)
		}
		r := row{left: "│", right: "│", time: span{FormatDuration(s.At), stylePlain}}
		if r.time.text == said && i > 0 {
			r.time = span{"+" + FormatDuration(s.At-l.c.Steps[i-1].At), styleDim}
		} else {
			said = r.time.text
		}
		if s.Local != local {
			local, r.local = s.Local, s.Local.String()
		}
		if s.Peer != peer {
			peer, r.peer = s.Peer, s.Peer.String()
		}
		l.rowOf[i] = len(l.rows)
		below := l.draw(&r, i)
		l.rows = append(l.rows, r)
		for _, text := range below {
			l.rows = append(l.rows, row{left: "│", right: "│", wire: text})
		}
		if l.measure {
			// A line for each bracket that ends here.
			for have := 1 + len(below); have < l.closing(i); have++ {
				l.rows = append(l.rows, row{left: "│", right: "│"})
			}
		}
	}
}

// pass draws n lines of time going by.
func (l *ladder) pass(n int, d time.Duration) {
	// What stands below a step takes of the gap.
	for j := len(l.rows) - 1; j >= 0 && n > 1 && l.rows[j].time.text == "" && l.rows[j].left != ""; j-- {
		n--
	}
	for k := range n {
		r := row{left: "│", right: "│"}
		if k == n/2 {
			r.time = span{"+" + FormatDuration(d), styleDim}
		}
		l.rows = append(l.rows, r)
	}
}

// The most lines that one gap takes, and all of them together.
const (
	gapLines  = 4
	gapsLines = 24
)

// gaps returns how many lines to leave before each step: by the logarithm of the
// time, on a scale from the shortest gap of the conversation to the longest.
func (l *ladder) gaps() []int {
	shortest, longest := time.Duration(math.MaxInt64), time.Duration(0)
	for i := 1; i < len(l.c.Steps); i++ {
		if d := l.c.Steps[i].At - l.c.Steps[i-1].At; d > 0 {
			shortest, longest = min(shortest, d), max(longest, d)
		}
	}
	list := make([]int, len(l.c.Steps))
	if longest == 0 {
		return list
	}
	scale := math.Log2(1 + float64(longest)/float64(shortest))
	for most := gapLines; most > 0; most-- {
		sum := 0
		for i := 1; i < len(list); i++ {
			d := max(l.c.Steps[i].At-l.c.Steps[i-1].At, 0)
			list[i] = int(math.Round(float64(most) * math.Log2(1+float64(d)/float64(shortest)) / scale))
			sum += list[i]
		}
		if sum <= gapsLines {
			return list
		}
	}
	return make([]int, len(list))
}

// foot gives the verdict, and what was learned that no step shows.
func (l *ladder) foot() {
	style := styleFailed
	switch {
	case l.c.OK():
		style = styleOK
	case !l.c.Settled || l.c.Discarded != probe.NotDiscarded:
		style = styleOther
	}
	l.rows = append(l.rows, row{})
	l.free(style, strings.Join(append([]string{"verdict: " + l.c.Verdict()}, l.c.rest()...), ", "))
}

// rest is what was learned that is no interval between two steps that are shown.
func (c *Conversation) rest() []string {
	var list []string
	for i := range c.Figures {
		switch o := &c.Figures[i]; o.Kind {
		case probe.Teardown:
			list = append(list, o.Form.String()+" teardown")
		case probe.TimeWaitReuse:
			list = append(list, "reuse "+o.Answer.String())
		case probe.TimeWaitLasted:
			list = append(list, fmt.Sprintf("TIME-WAIT lasted %s to %s", FormatDuration(o.Least), FormatDuration(o.Duration)))
		case probe.HalfCloseOctets:
			list = append(list, fmt.Sprintf("%d octets after our FIN", o.Octets))
		}
	}
	for _, m := range c.Marks {
		if m.From < 0 || m.To < 0 {
			list = append(list, m.Name+" "+FormatDuration(m.Duration))
		}
	}
	return list
}

// free adds text, wrapped at blanks.
func (l *ladder) free(style, text string) {
	for _, part := range wrap(text, l.columns) {
		l.rows = append(l.rows, row{free: []span{{part, style}}})
	}
}

// line writes a row out, without blanks at its end.
func (l *ladder) line(r *row) string {
	spans := r.free
	if r.left != "" {
		wire := r.wire
		if wire.text == "" {
			wire.text = blanks(l.wire)
		}
		spans = []span{
			{PadLeft(r.time.text, timeColumns), r.time.style}, {" ", stylePlain},
			{PadLeft(r.local, stateColumns), styleBold}, {" ", stylePlain},
			{r.left, stylePlain}, wire, {r.right, stylePlain},
		}
		if r.peer != "" || r.measure != "" {
			spans = append(spans, span{" ", stylePlain}, span{r.peer, styleBold})
		}
		if r.measure != "" {
			spans = append(spans, span{blanks(stateColumns - Width(r.peer)), stylePlain}, span{" " + r.measure, styleMeasure})
		}
	}
	return join(spans, l.color)
}
