package metrics

import "io"

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
	counts  counts
	closing closeCounts
	extra   []label
	scratch histogram
}

// write walks over every family and its series.
func (x *exposition) write(m *Metrics, w io.Writer) error {
	x.w.reset(w)
	defer x.w.reset(nil)
	x.err = nil
	if m.stats != nil {
		x.stats = m.stats()
	}
	targets := m.snapshot()
	for i := range m.families {
		f := &m.families[i]
		x.fam, x.begun = f, false
		if f.self != nil {
			f.self(x, m)
		} else {
			for _, t := range targets {
				if x.target(t); x.err != nil {
					return x.err
				}
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

// target writes a target's series of the family.
func (x *exposition) target(t *Target) {
	switch f := x.fam; {
	case f.target != nil:
		t.load(&x.counts)
		f.target(x, t, &x.counts)
	case f.closing != nil:
		if t.loadClosing(&x.closing) {
			f.closing(x, t, &x.closing)
		}
	}
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
