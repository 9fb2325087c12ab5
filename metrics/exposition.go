package metrics

import (
	"io"
	"runtime"
)

// A writer writes families in one format, one after the other. begin is only
// called for a family that has a series.
type writer interface {
	reset(io.Writer)
	begin(*family)
	value(*labelSet, []label, float64) error
	histogram(*labelSet, *histogram) error
	end() error
	flush(atLeast int) error
}

// An exposition is one walk over all families. It holds the memory that the
// walk needs, and is reused.
type exposition struct {
	w       writer
	fam     *family
	begun   bool
	err     error // the writer's first
	stats   Stats
	none    labelSet // of series of probed itself
	rows    []tally
	rares   []rare // of the rows that have any
	at      *tally // the row that is written
	counts  counts // its
	closing closeCounts
	extra   []label
	scratch histogram
}

// A tally is what a target has counted when the walk came by its round trips. Tallies lie
// together, so that the walk, family by family, does not go through all of a large memory
// again and again.
type tally struct {
	target *Target
	usual  usual
	rare   int32 // its place in rares, from 1; 0 without
}

// apiece is how many targets are written in a row. Then an engine's loop may go first.
const apiece = 32

// write walks over every family and its series.
func (x *exposition) write(m *Metrics, w io.Writer) error {
	x.w.reset(w)
	defer x.w.reset(nil)
	defer clear(x.rows) // of the targets
	x.err = nil
	if m.stats != nil {
		x.stats = m.stats()
	}
	targets := m.snapshot()
	x.load(targets.all)
	for i := range m.families {
		f := &m.families[i]
		x.fam, x.begun = f, false
		switch {
		case f.self != nil:
			f.self(x, m)
		case f.closing != nil:
			for j := 0; j < len(targets.closing) && x.err == nil; j++ {
				yield(j)
				if t := targets.closing[j]; t.loadClosing(&x.closing) {
					f.closing(x, t, &x.closing)
				}
			}
		default:
			for j := 0; j < len(x.rows) && x.err == nil; j++ {
				yield(j)
				x.row(&x.rows[j])
			}
		}
		if x.begun && x.err == nil {
			x.err = x.w.end()
		}
		if x.err != nil {
			return x.err
		}
	}
	return x.w.flush(0)
}

// yield lets others go first, now and then.
func yield(i int) {
	if i%apiece == apiece-1 {
		runtime.Gosched()
	}
}

// load makes the rows.
func (x *exposition) load(targets []*Target) {
	x.rares = x.rares[:0]
	if cap(x.rows) < len(targets) {
		x.rows = make([]tally, len(targets))
	}
	x.rows = x.rows[:len(targets)]
	for i, t := range targets {
		yield(i)
		r := &x.rows[i]
		r.target, r.rare = t, 0
		t.mu.Lock()
		x.tally(r)
		t.mu.Unlock()
	}
}

// tally takes a target's counters. Its mu is held.
func (x *exposition) tally(r *tally) {
	t := r.target
	r.usual = t.usual
	switch {
	case t.rare == nil:
	case r.rare > 0:
		x.rares[r.rare-1] = *t.rare
	default:
		x.rares = append(x.rares, *t.rare)
		r.rare = int32(len(x.rares))
	}
}

// copyRTT copies a target's round trips, and its counters of the same moment: no scrape
// shows more of the first than of the probes that they belong to.
func (x *exposition) copyRTT(t *Target) {
	t.mu.Lock()
	t.rtt.copyTo(&x.scratch)
	x.tally(x.at)
	t.mu.Unlock()
}

// row writes a target's series of the family.
func (x *exposition) row(r *tally) {
	x.at = r
	x.counts.usual = r.usual
	if r.rare > 0 {
		x.counts.rare = x.rares[r.rare-1]
	} else if x.counts.some {
		x.counts.rare = rare{}
	}
	x.fam.target(x, r.target, &x.counts)
}

// begin starts the family at its first series: one without any is left out.
func (x *exposition) begin() {
	if !x.begun {
		x.w.begin(x.fam)
		x.begun = true
	}
}

// value writes a target's series of a counter or gauge.
func (x *exposition) value(t *Target, v float64, extra ...label) {
	x.series(&t.labels, extra, v)
}

// own writes a series of probed itself.
func (x *exposition) own(v float64, labels ...label) {
	x.series(&x.none, labels, v)
}

func (x *exposition) series(ls *labelSet, extra []label, v float64) {
	if x.err != nil {
		return
	}
	x.begin()
	// The writer's interface would make a copy of the caller's slice escape.
	x.extra = append(x.extra[:0], extra...)
	x.err = x.w.value(ls, x.extra, v)
}

// histogram writes x.scratch.
func (x *exposition) histogram(ls *labelSet) {
	if x.err != nil {
		return
	}
	x.begin()
	x.err = x.w.histogram(ls, &x.scratch)
}
