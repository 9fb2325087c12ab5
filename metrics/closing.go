package metrics

import (
	"time"

	"github.com/probed/probed/probe"
)

// A closing holds what is observed of one target behind the handshake: the
// teardown and the peer's TIME-WAIT. Targets whose kind never gets there have
// none. Its target's mutex guards it.
//
// An empty histogram takes 112 octets, one that was observed a classic bucket's
// 8 for each bound and some 10 for each native bucket: with 18 and thirty of
// them half a kilobyte. A kind has three, time_wait's reuse four.
type closing struct {
	n         closeCounts
	intervals [numIntervals]*histogram // nil where the kind has none
}

// closeCounts is what a scrape copies in one piece.
type closeCounts struct {
	kind    probe.Kind
	measure probe.Measure
	lasted  bool // least and most are known

	forms   [probe.NumForms]uint64
	fins    [probe.NumSides]uint64 // retransmitted
	answers [probe.NumAnswers]uint64
	octets  uint64        // received after our FIN
	least   time.Duration // the peer's TIME-WAIT was last seen alive after
	most    time.Duration // and first seen gone after
}

// An interval is one histogram of a closing.
type interval uint8

const (
	finACKRTT interval = iota
	closeWait
	peerClose
	lastACKRTT
	teardown
	reuseRTT
	numIntervals = int(reuseRTT) + 1
)

// intervalsOf returns those that a kind of probe can have.
func intervalsOf(k probe.Kind, m probe.Measure) []interval {
	switch {
	case k == probe.ActiveClose:
		return []interval{finACKRTT, closeWait, teardown}
	case k == probe.TimeWaitProbe && m == probe.MeasureReuse:
		return []interval{peerClose, lastACKRTT, teardown, reuseRTT}
	case closesAfterPeer(k):
		return []interval{peerClose, lastACKRTT, teardown}
	}
	return nil
}

// newClosing returns nil for a kind that never gets past the handshake.
func newClosing(k probe.Kind, m probe.Measure, b *bounds) *closing {
	if !closes(k) {
		return nil
	}
	if k != probe.TimeWaitProbe {
		m = probe.NoMeasure
	}
	c := &closing{n: closeCounts{kind: k, measure: m}}
	for _, i := range intervalsOf(k, m) {
		h := newHistogram(b)
		c.intervals[i] = &h
	}
	return c
}

// observe counts one observation. One that the kind can't make is left out: a
// conversation that began before a reload changed the kind makes it.
func (c *closing) observe(o *probe.Observation) {
	if c == nil {
		return
	}
	switch n := &c.n; o.Kind {
	case probe.FINACKRTT:
		c.took(finACKRTT, o.Duration)
	case probe.CloseWaitTime:
		c.took(closeWait, o.Duration)
	case probe.PeerCloseTime:
		c.took(peerClose, o.Duration)
	case probe.LastACKRTT:
		c.took(lastACKRTT, o.Duration)
	case probe.Teardown:
		if int(o.Form) < len(n.forms) {
			n.forms[o.Form]++
		}
		c.took(teardown, o.Duration)
	case probe.HalfCloseOctets:
		n.octets += uint64(o.Octets)
	case probe.FINRetransmit:
		if int(o.Side) < len(n.fins) {
			n.fins[o.Side]++
		}
	case probe.TimeWaitReuse:
		if int(o.Answer) < len(n.answers) {
			n.answers[o.Answer]++
		}
		c.took(reuseRTT, o.Duration)
	case probe.TimeWaitLasted:
		n.least, n.most, n.lasted = o.Least, o.Duration, n.measure == probe.MeasureDuration
	}
}

// took counts a duration; one below 0 is not known.
func (c *closing) took(i interval, d time.Duration) {
	if h := c.intervals[i]; h != nil && d >= 0 {
		h.observe(d)
	}
}

// rebucket starts every histogram again, with other classic buckets.
func (c *closing) rebucket(b *bounds) {
	if c == nil {
		return
	}
	for _, h := range c.intervals {
		if h != nil {
			*h = newHistogram(b)
		}
	}
}

// differs reports whether what a kind of probe observes has no place in c.
func (c *closing) differs(k probe.Kind, m probe.Measure) bool {
	if c == nil {
		return closes(k)
	}
	return c.n.kind != k || k == probe.TimeWaitProbe && c.n.measure != m
}
