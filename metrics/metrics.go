package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrDuplicate means that a target with the same labels is already there. Its
// series would be the same.
var ErrDuplicate = errors.New("a target with the same labels is already there")

// Options configure Metrics.
type Options struct {
	Version  string // of probed, for probed_build_info
	Revision string // the commit it was built from
	// Stats is asked once at every scrape. Without it the figures that it
	// gives are not exported.
	Stats func() Stats
	// SkipReasons are exported at 0 from the start, so that the first skipped
	// probe is a rise.
	SkipReasons []string
}

// Stats are the figures that others count. The counters among them never fall.
type Stats struct {
	Targets          int    // configured, resolved or not
	Conversations    int    // open now
	SegmentsSent     uint64 // handed to the kernel, and the kernel's own on our ports
	SegmentsReceived uint64 // parsed, of our ports
	StampFallbacks   uint64 // segments that the tap had to stamp itself
	TapDrops         uint64 // frames that the kernel dropped before we read them
	ResolveFailures  uint64 // look-ups of a target's name
	Forbidden        int    // addresses of targets' names that may not be probed
}

// Metrics holds every series that probed exports. It is safe for concurrent
// use.
type Metrics struct {
	stats    func() Stats
	families []family
	self     self

	mu      sync.Mutex
	targets map[string]*Target // by labels.text
	sorted  *sorted            // nil when stale
	bounds  []*bounds          // those that targets have named, shared

	turn        sync.Mutex // of the scrapes
	text, proto sync.Pool  // of *exposition
	gzip        sync.Pool  // of *gzip.Writer
}

// New returns Metrics without targets.
func New(o Options) *Metrics {
	m := &Metrics{stats: o.Stats, families: allFamilies(), targets: map[string]*Target{}}
	m.self.init(o)
	return m
}

// mustBounds is for the buckets in this package.
func mustBounds(upper []float64) *bounds {
	b, err := newBounds(upper)
	if err != nil {
		panic(err)
	}
	return b
}

// AddTarget makes a target's series. It fails with ErrDuplicate if there is a
// target with the same labels, or if a label's name or a bucket is not valid.
func (m *Metrics) AddTarget(l Labels, o TargetOptions) (*Target, error) {
	pairs, err := l.pairs()
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", l.Target, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.boundsFor(o.Buckets)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", l.Target, err)
	}
	t := &Target{metrics: m, labels: newLabelSet(pairs)}
	if _, taken := m.targets[t.labels.text]; taken {
		return nil, fmt.Errorf("target %s: %w", l.Target, ErrDuplicate)
	}
	t.configure(o, b)
	m.targets[t.labels.text] = t
	m.sorted = nil
	return t, nil
}

// Reconfigure gives a target other options and keeps its counters. Its
// histograms start again if its classic buckets change, and all figures of the
// teardown and of TIME-WAIT if its kind of probe or what it measures does.
func (m *Metrics) Reconfigure(t *Target, o TargetOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.boundsFor(o.Buckets)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configure(o, b)
	m.sorted = nil // it may close connections now
	return nil
}

// RemoveTarget ends a target's series. What it still observes is not exported.
func (m *Metrics) RemoveTarget(t *Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.targets[t.labels.text] == t {
		delete(m.targets, t.labels.text)
		m.sorted = nil
	}
}

// boundsFor returns the shared bounds for a target's buckets. m.mu is held.
func (m *Metrics) boundsFor(upper []float64) (*bounds, error) {
	b, err := newBounds(upper)
	if err != nil {
		return nil, err
	}
	for _, known := range m.bounds {
		if slices.Equal(known.upper, b.upper) {
			return known, nil
		}
	}
	m.bounds = append(m.bounds, b)
	return b, nil
}

// sorted is the targets in the order of their labels, and those among them that close
// connections. It is replaced and never changed.
type sorted struct{ all, closing []*Target }

// snapshot returns the targets.
func (m *Metrics) snapshot() *sorted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sorted == nil {
		s := &sorted{all: make([]*Target, 0, len(m.targets))}
		for _, t := range m.targets {
			s.all = append(s.all, t)
		}
		slices.SortFunc(s.all, func(a, b *Target) int { return cmp.Compare(a.labels.text, b.labels.text) })
		for _, t := range s.all {
			if t.closes() {
				s.closing = append(s.closing, t)
			}
		}
		m.sorted = s
	}
	return m.sorted
}
