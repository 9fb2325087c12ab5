package status

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
)

// A list is what templates/list.html shows.
type list struct {
	query *query

	Text, Sort  string
	Limit       string // empty for the usual one
	State       state
	Group       string
	Names       []string // to group by
	Sorts       []choice
	Tabs        []stateTab
	Columns     []column
	Groups      []section
	From, To    int // of the rows that are shown, from 1
	Total       int
	Page, Pages int
	Previous    string // addresses; empty at the ends
	Next        string
	Everything  string // address of the list without a filter
	Stream      string // address of the live stream
	Configured  int    // targets, whatever the filter
	Now         int64  // ms since the Unix epoch
}

// A stateTab shows the targets of one state.
type stateTab struct {
	State  state // empty for all
	Count  int
	URL    string
	Active bool
}

// A choice is an option of a list to choose from.
type choice struct{ Value, Text string }

// choices are what rows can be sorted by where the table has no headers. Another
// order that is in force is among them.
func choices(current string) []choice {
	all := []choice{
		{"state", "state"}, {"target", "name"}, {"-loss", "loss"}, {"-p50", "p50"}, {"-p99", "p99"},
		{"-failure", "last failure"}, {"config", "configuration"},
	}
	if slices.ContainsFunc(all, func(c choice) bool { return c.Value == current }) {
		return all
	}
	text := current
	if name, downwards := strings.CutPrefix(current, "-"); downwards {
		text = name + ", downwards"
	}
	return append(all, choice{current, text})
}

// A column is a header of the table.
type column struct {
	Name, Title string
	URL         string // empty if rows can't be sorted by it
	Sort        string // aria-sort: ascending, descending or empty
	Numeric     bool
}

// A section is rows under one heading.
type section struct {
	Heading string // empty without grouping
	Tally   string
	Rows    []*line
}

// A line is a row of the table.
type line struct {
	*entry
	cells
	Ago    string // how long ago it last failed
	Failed string // the same as a time, RFC 3339
}

// Target is the row's.
func (l *line) Target() *Target { return &l.target }

// Every is the target's interval, in words.
func (l *line) Every() string { return show.FormatDuration(l.target.Interval) }

// listPage serves /: the targets.
func (s *server) listPage(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), pageSize)
	if err != nil {
		s.fail(w, r, http.StatusBadRequest, "The address asks for what there is not: "+err.Error()+".")
		return
	}
	s.render(w, r, http.StatusOK, page{Title: "Targets", Name: "list", Body: newList(s.snapshots.get(), q)})
}

func newList(snap *snapshot, q *query) *list {
	sel := snap.find(q)
	from, to, number, pages := q.slice(len(sel.rows))
	here := *q
	here.page = number
	l := &list{
		query: &here, Text: q.text, State: q.state, Sort: q.sortText(), Group: q.group,
		Names: append([]string{"job", "module", "kind"}, snap.labels...), Groups: sections(snap, sel, from, to), Sorts: choices(q.sortText()),
		From: from + 1, To: to, Total: len(sel.rows), Page: number, Pages: pages,
		Everything: q.with(func(q *query) { q.text, q.state, q.page = "", "", 1 }),
		Stream:     "/events" + strings.TrimPrefix(here.with(func(*query) {}), "/"),
		Configured: len(snap.rows), Now: snap.at.UnixMilli(),
	}
	if q.limit != pageSize {
		l.Limit = strconv.Itoa(q.limit)
	}
	l.tabs(sel.tally)
	l.columns()
	if number > 1 {
		l.Previous = here.with(func(q *query) { q.page-- })
	}
	if number < pages {
		l.Next = here.with(func(q *query) { q.page++ })
	}
	return l
}

func (l *list) tabs(n tally) {
	add := func(s state, count int) {
		l.Tabs = append(l.Tabs, stateTab{s, count, l.query.with(func(q *query) { q.state, q.page = s, 1 }), l.State == s})
	}
	add("", n.All())
	for _, s := range states {
		add(s, n.Of(s))
	}
}

func (l *list) columns() {
	for _, c := range []column{
		{Name: "state", Title: "State"},
		{Name: "target", Title: "Target"},
		{Name: "kind", Title: "Probe"},
		{Name: "interval", Title: "Every", Numeric: true},
		{Name: "loss", Title: "Loss", Numeric: true},
		{Name: "probes", Title: "Probes", Numeric: true},
		{Name: "p50", Title: "p50", Numeric: true},
		{Name: "p99", Title: "p99", Numeric: true},
		{Name: "recent", Title: "Last probes"},
		{Name: "failure", Title: "Last failure"},
	} {
		if first, sortable := sorts[c.Name]; sortable {
			current := l.query.sort == c.Name
			downwards := first
			if current {
				downwards = !l.query.down
				c.Sort = "ascending"
				if l.query.down {
					c.Sort = "descending"
				}
			}
			c.URL = l.query.with(func(q *query) { q.sort, q.down, q.page = c.Name, downwards, 1 })
		}
		l.Columns = append(l.Columns, c)
	}
}

// sections are the rows of a page under their headings.
func sections(snap *snapshot, sel *selection, from, to int) []section {
	if len(sel.groups) == 0 {
		return []section{{Rows: lines(snap, sel.rows[from:to])}}
	}
	var all []section
	for i := range sel.groups {
		g := &sel.groups[i]
		if g.from < to && g.to > from {
			all = append(all, section{g.heading(), g.text(), lines(snap, sel.rows[max(g.from, from):min(g.to, to)])})
		}
	}
	return all
}

func lines(snap *snapshot, rows []*entry) []*line {
	all := make([]*line, len(rows))
	for i, e := range rows {
		all[i] = &line{entry: e, cells: e.show()}
		if ms := all[i].FailedAt; ms != 0 {
			at := time.UnixMilli(ms)
			all[i].Failed = at.UTC().Format(time.RFC3339)
			all[i].Ago = ago(snap.at.Sub(at))
		}
	}
	return all
}

func (g *group) heading() string {
	if g.value == "" {
		return "without"
	}
	return g.value
}

// text says how many targets are in a group, and of those that are not up in which
// state.
func (t tally) text() string {
	words := grouped(t.All()) + " targets"
	if t.All() == 1 {
		words = "1 target"
	}
	for _, s := range states[:len(states)-1] {
		if n := t.Of(s); n > 0 {
			words += ", " + grouped(n) + " " + string(s)
		}
	}
	return words
}
