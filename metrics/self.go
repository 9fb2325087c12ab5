package metrics

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"time"
)

// self is what probed says about itself.
type self struct {
	build    []label
	schedule sharedHistogram
	reaction sharedHistogram

	mu         sync.Mutex
	discovered []Discovered      // replaced and never changed
	skipped    map[string]uint64 // by reason
	reloadOK   bool
	reloadedAt time.Time // the last reload that succeeded
}

func (s *self) init(o Options) {
	s.build = []label{{"goversion", runtime.Version()}, {"revision", utf8Text(o.Revision)}, {"version", utf8Text(o.Version)}}
	b := mustBounds(selfBuckets[:])
	s.schedule.init(b)
	s.reaction.init(b)
	s.skipped = make(map[string]uint64, len(o.SkipReasons))
	for _, reason := range o.SkipReasons {
		s.skipped[reason] = 0
	}
}

// ScheduleDelay counts the time from when a probe was due to when it was sent.
func (m *Metrics) ScheduleDelay(d time.Duration) { m.self.schedule.observe(d) }

// Skipped counts probes that were due and not sent.
func (m *Metrics) Skipped(reason string, probes int) {
	m.self.mu.Lock()
	defer m.self.mu.Unlock()
	m.self.skipped[reason] += uint64(probes)
}

// ConfigReload says how the last attempt to load the configuration went, the
// first at start included, and when.
func (m *Metrics) ConfigReload(ok bool, at time.Time) {
	m.self.mu.Lock()
	defer m.self.mu.Unlock()
	m.self.reloadOK = ok
	if ok {
		m.self.reloadedAt = at
	}
}

// Discovered says how many targets a job's discovery has found.
type Discovered struct {
	Job     string
	Targets int
	Invalid int // of those
}

// Discovery says what was discovered by now, for each job with discovery.
func (m *Metrics) Discovery(jobs []Discovered) {
	m.self.mu.Lock()
	defer m.self.mu.Unlock()
	m.self.discovered = slices.Clone(jobs)
	for i := range m.self.discovered {
		m.self.discovered[i].Job = utf8Text(jobs[i].Job)
	}
}

// discoveries returns what was discovered, job by job.
func (s *self) discoveries() []Discovered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discovered
}

// skips returns the skipped probes by reason, sorted.
func (s *self) skips() []skip {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]skip, 0, len(s.skipped))
	for reason, n := range s.skipped {
		all = append(all, skip{reason, n})
	}
	slices.SortFunc(all, func(a, b skip) int { return cmp.Compare(a.reason, b.reason) })
	return all
}

type skip struct {
	reason string
	n      uint64
}

// reload returns the last reload's success, and the time of the last success in
// seconds since the Unix epoch, 0 if there was none.
func (s *self) reload() (ok bool, at float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reloadedAt.IsZero() {
		return s.reloadOK, 0
	}
	return s.reloadOK, float64(s.reloadedAt.UnixMilli()) / 1e3
}

// A sharedHistogram is one that several engine loops write, of which none waits for
// another: who finds a part in use takes the next.
type sharedHistogram struct{ parts [4]part }

// A part lies in cache lines of its own.
type part struct {
	mu sync.Mutex
	h  histogram
	_  [128]byte
}

func (s *sharedHistogram) init(b *bounds) {
	for i := range s.parts {
		s.parts[i].h = newHistogram(b)
	}
}

func (s *sharedHistogram) observe(d time.Duration) {
	for i := range s.parts {
		if p := &s.parts[i]; p.mu.TryLock() {
			p.h.observe(d)
			p.mu.Unlock()
			return
		}
	}
	p := &s.parts[0]
	p.mu.Lock()
	p.h.observe(d)
	p.mu.Unlock()
}

// copyTo makes dst the sum of the parts.
func (s *sharedHistogram) copyTo(dst *histogram) {
	for i := range s.parts {
		p := &s.parts[i]
		p.mu.Lock()
		if i == 0 {
			p.h.copyTo(dst)
		} else {
			dst.add(&p.h)
		}
		p.mu.Unlock()
	}
}
