package status

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// maxLabelNames bounds how many labels a page offers to group by.
const maxLabelNames = 50

// labelNames are those of the targets, sorted.
func labelNames(targets []Target) []string {
	seen := make(map[string]bool)
	for i := range targets {
		for _, l := range targets[i].Labels {
			seen[l.Name] = true
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[:min(len(names), maxLabelNames)]
}

// A tally is how many targets are in which state.
type tally struct {
	Down    int `json:"down"`
	Ours    int `json:"ours"`
	Unknown int `json:"unknown"`
	Up      int `json:"up"`
}

func (t *tally) count(s state) {
	switch s {
	case down:
		t.Down++
	case ours:
		t.Ours++
	case unknown:
		t.Unknown++
	case up:
		t.Up++
	}
}

// Of is how many are in a state.
func (t tally) Of(s state) int {
	switch s {
	case down:
		return t.Down
	case ours:
		return t.Ours
	case unknown:
		return t.Unknown
	default:
		return t.Up
	}
}

// All is how many there are.
func (t tally) All() int { return t.Down + t.Ours + t.Unknown + t.Up }

// A group is the targets that share a value, next to each other in a selection.
type group struct {
	value    string
	from, to int // of selection.rows
	tally
}

// A selection is what a query leaves of a snapshot, in its order.
type selection struct {
	rows   []*entry
	groups []group // none if it groups by nothing
	tally  tally   // of what the text leaves, whatever state was asked for
}

// find returns the selection of a query. It is shared: don't change it.
func (s *snapshot) find(q *query) *selection {
	key := q.key()
	s.mu.Lock()
	found := s.selections[key]
	s.mu.Unlock()
	if found != nil {
		return found
	}
	found = s.work(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.selections) < maxSelections {
		s.selections[key] = found
	}
	return found
}

func (s *snapshot) work(q *query) *selection {
	sel := &selection{rows: make([]*entry, 0, len(s.rows))}
	for _, r := range s.rows {
		if !q.matches(r) {
			continue
		}
		sel.tally.count(r.state)
		if q.state == "" || q.state == r.state {
			sel.rows = append(sel.rows, r)
		}
	}
	compare := q.order()
	if q.group == "" {
		if compare != nil {
			slices.SortStableFunc(sel.rows, compare)
		}
		return sel
	}
	slices.SortStableFunc(sel.rows, func(a, b *entry) int {
		if c := compareGroups(a.target.value(q.group), b.target.value(q.group)); c != 0 || compare == nil {
			return c
		}
		return compare(a, b)
	})
	for i, r := range sel.rows {
		v := r.target.value(q.group)
		if n := len(sel.groups); n == 0 || sel.groups[n-1].value != v {
			sel.groups = append(sel.groups, group{value: v, from: i})
		}
		g := &sel.groups[len(sel.groups)-1]
		g.to = i + 1
		g.count(r.state)
	}
	return sel
}

// compareGroups has those without a value come last.
func compareGroups(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// value is a label's, or that of one of the names that all targets have.
func (t *Target) value(name string) string {
	for i := range t.Labels {
		if t.Labels[i].Name == name {
			return t.Labels[i].Value
		}
	}
	switch name {
	case "job":
		return t.Job
	case "module":
		return t.Module
	case "kind":
		return t.Kind.String()
	case "target":
		return t.Address
	case "ip":
		return t.IP
	}
	return ""
}

// order is how a query's rows are to be compared, nil for the configuration's
// order. Rows that are equal stay in that.
func (q *query) order() func(a, b *entry) int {
	var up func(a, b *entry) int
	switch q.sort {
	case "":
		return nil
	case "state":
		up = func(a, b *entry) int {
			return cmp.Compare(slices.Index(states, a.state), slices.Index(states, b.state))
		}
	case "target":
		up = func(a, b *entry) int {
			return cmp.Compare(strings.ToLower(a.target.Address), strings.ToLower(b.target.Address))
		}
	case "job":
		up = func(a, b *entry) int { return cmp.Compare(a.target.Job, b.target.Job) }
	case "kind":
		up = func(a, b *entry) int { return cmp.Compare(a.target.Kind, b.target.Kind) }
	case "interval":
		up = func(a, b *entry) int { return cmp.Compare(a.target.Interval, b.target.Interval) }
	default:
		return q.byNumber()
	}
	if q.down {
		return func(a, b *entry) int { return up(b, a) }
	}
	return up
}

// byNumber compares by a figure. Those without it come last, whatever the
// direction.
func (q *query) byNumber() func(a, b *entry) int {
	var figure func(r *entry) float64
	switch q.sort {
	case "loss":
		figure = func(r *entry) float64 { return r.loss() }
	case "p50":
		figure = func(r *entry) float64 { p50, _ := r.quantiles(); return p50 }
	case "p99":
		figure = func(r *entry) float64 { _, p99 := r.quantiles(); return p99 }
	case "failure":
		figure = func(r *entry) float64 {
			if !r.everFailed {
				return math.NaN()
			}
			return float64(r.lastFailure.At)
		}
	}
	return func(a, b *entry) int {
		x, y := figure(a), figure(b)
		switch nx, ny := math.IsNaN(x), math.IsNaN(y); {
		case nx && ny:
			return 0
		case nx:
			return 1
		case ny:
			return -1
		case q.down:
			return cmp.Compare(y, x)
		}
		return cmp.Compare(x, y)
	}
}
