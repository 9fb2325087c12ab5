package host_test

import (
	"cmp"
	"slices"
	"sync"

	"github.com/probed/probed/probe"
)

// A diary keeps what was observed of one target conversation by conversation.
// They must not overlap: the target's interval is above its timeout.
type diary struct {
	mu          sync.Mutex
	chapters    []chapter
	transcripts []probe.Transcript
}

// A chapter is one conversation's observations.
type chapter struct {
	observed []probe.Observation
	settled  bool
}

// of returns the observation of a kind, if it was made.
func (c *chapter) of(k probe.ObservationKind) (probe.Observation, bool) {
	for _, o := range c.observed {
		if o.Kind == k {
			return o, true
		}
	}
	return probe.Observation{}, false
}

// reason is the verdict, false if there is none.
func (c *chapter) reason() (probe.Reason, bool) {
	o, ok := c.of(probe.Verdict)
	return o.Reason, ok
}

// Observe implements engine.Sink. A conversation's first observation is its
// handshake, or a verdict without one.
func (d *diary) Observe(o *probe.Observation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	verdict := o.Kind == probe.Verdict || o.Kind == probe.Discarded
	n := len(d.chapters)
	if n == 0 || o.Kind == probe.HandshakeRTT || verdict && d.chapters[n-1].settled {
		d.chapters = append(d.chapters, chapter{})
		n++
	}
	c := &d.chapters[n-1]
	c.observed = append(c.observed, *o)
	c.settled = c.settled || verdict
}

// Settled implements engine.Recorder.
func (d *diary) Settled(tr *probe.Transcript) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.transcripts = append(d.transcripts, tr.Clone())
}

// Record implements engine.Recorder.
func (d *diary) Record(since *probe.Transcript) {
	d.mu.Lock()
	defer d.mu.Unlock()
	extend(d.transcripts, since)
}

// settled is how many conversations have a verdict or were discarded.
func (d *diary) settled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.chapters)
	if n > 0 && !d.chapters[n-1].settled {
		n--
	}
	return n
}

// order puts the transcripts into the order of the chapters, once the shard has
// ended.
func (d *diary) order() {
	slices.SortFunc(d.transcripts, func(x, y probe.Transcript) int {
		return cmp.Compare(x.Records()[0].At, y.Records()[0].At)
	})
}
