package status

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

const (
	// maxStreams bounds how many viewers are served live at once.
	maxStreams = 64
	// heartbeat is how long a stream is silent at most, so that a page can tell a
	// quiet one from a dead one.
	heartbeat = 5 * time.Second
	// writeTimeout is how long a viewer may take to accept an update.
	writeTimeout = 10 * time.Second
	// leastWait keeps a stream from spinning on a clock that is set back.
	leastWait = 10 * time.Millisecond
)

// An update is one event of the live stream: what changed on a viewer's page.
type update struct {
	Now    int64    `json:"now_ms"` // since the Unix epoch
	Total  int      `json:"total"`  // rows that the query leaves
	States tally    `json:"states"`
	Order  []string `json:"order,omitzero"`   // IDs of the page's rows, if others than before or in another order
	Groups []string `json:"groups,omitempty"` // what the page's groups come to, if changed
	Rows   []change `json:"rows,omitempty"`
}

// A change is a row that says something new.
type change struct {
	ID string `json:"id"`
	cells
}

// A viewer is what one has been sent.
type viewer struct {
	query  *query
	order  []string
	groups []string
	states tally
	total  int
	cells  map[string]cells
	begun  bool
}

// stream serves /events: server-sent events, for as long as the viewer stays.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), pageSize)
	if err != nil {
		failJSON(w, r, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case s.viewers <- struct{}{}:
		defer func() { <-s.viewers }()
	default:
		w.Header().Set("Retry-After", "10")
		failJSON(w, r, http.StatusServiceUnavailable, "too many pages are open that are updated live: try again later")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would collect
	if r.Method == http.MethodHead {
		return
	}
	connection := http.NewResponseController(w)
	if _, err := w.Write([]byte("retry: 2000\n\n")); err != nil {
		return
	}
	v := &viewer{query: q}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var silent time.Time
	for {
		select {
		case <-s.running.Done():
			return
		case <-r.Context().Done():
			return
		case <-timer.C:
		}
		snap := s.snapshots.get()
		at := snap.at // the snapshot itself isn't kept while a viewer doesn't read: it is every target's row
		u, news := v.look(snap)
		if news || at.Sub(silent) >= heartbeat {
			silent = at
			if emit(w, connection, u) != nil {
				return
			}
		}
		timer.Reset(max(s.snapshots.due(at), leastWait))
	}
}

// look returns what is to be told of a snapshot, and whether that is anything new.
func (v *viewer) look(snap *snapshot) (*update, bool) {
	sel := snap.find(v.query)
	from, to, _, _ := v.query.slice(len(sel.rows))
	u := &update{Now: snap.at.UnixMilli(), Total: len(sel.rows), States: sel.tally}
	news := !v.begun || u.Total != v.total || u.States != v.states
	first := !v.begun
	v.begun, v.total, v.states = true, u.Total, u.States

	now := make(map[string]cells, to-from)
	order := make([]string, 0, to-from)
	for _, e := range sel.rows[from:to] {
		c := e.show()
		now[e.target.ID] = c
		order = append(order, e.target.ID)
		if v.cells[e.target.ID] != c {
			u.Rows = append(u.Rows, change{e.target.ID, c})
		}
	}
	v.cells = now
	if first || !slices.Equal(order, v.order) { // none at all is an order too
		u.Order, v.order = order, order
	}
	var groups []string
	for i := range sel.groups {
		if g := &sel.groups[i]; g.from < to && g.to > from {
			groups = append(groups, g.text())
		}
	}
	if !slices.Equal(groups, v.groups) {
		u.Groups, v.groups = groups, groups
	}
	return u, news || u.Order != nil || u.Groups != nil || u.Rows != nil
}

// emit sends one event.
func emit(w http.ResponseWriter, connection *http.ResponseController, u *update) error {
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	// A server that can't set a deadline is one of a test.
	_ = connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	for _, part := range [][]byte{[]byte("data: "), data, []byte("\n\n")} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return connection.Flush()
}
