package status

import (
	"cmp"
	"slices"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// The ladder's axis of time. One linear axis cannot show 20 µs beside 250 ms, so
// there is one scale, and what does not fit it is marked where it is:
//
//   - a gap is drawn to scale, with the handshake's round trip roundTrip units high;
//   - one that would be higher than longest is broken: its beginning and its end are
//     to scale, and between them stands what was skipped;
//   - one that is too small for what is written at it is stretched.
//
// A gap is what lies between two moments that follow each other, at whichever end:
// so a break never cuts an arrow, and every arrow is as slanted as its way was long.
// When a segment was at the peer's end is inferred: see flights.
const (
	roundTrip = 96.0
	longest   = 230.0
	breakLead = 14.0
	breakHigh = 40.0
	bandHigh  = 34.0
	nudge     = 5.0 // what may be added without being marked
)

// A knot is a moment at one end.
type knot struct {
	rung int
	far  bool
	when time.Duration
}

// A span is a part of the axis that is not to scale.
type span struct {
	y0, y1  float64
	skipped time.Duration // of a break
	text    string        // of a band: steps that are not drawn
}

// A scale is where everything is on the axis of time.
type scale struct {
	near, far []float64 // of each rung: at our end, at the peer's
	breaks    []span
	stretched []span
	bands     []span
	bottom    float64
}

// oneWay is how long a segment is taken to be on its way: half the handshake's round
// trip, or that of whatever was answered first. It is 0 if nothing was.
func oneWay(c *show.Conversation) time.Duration {
	if c.Discarded == probe.DiscardClockStep {
		return 0 // the stamps do not belong together
	}
	for i := range c.Steps {
		s := &c.Steps[i]
		if s.Way != show.Out || s.Segment.SegLen() == 0 {
			continue
		}
		// An ICMP error comes from anywhere, and after any wait of a router's.
		if j, ok := answer(c.Steps, i); ok && c.Steps[j].Way == show.In {
			if d := c.Steps[j].At - s.At; d > 0 {
				return d / 2
			}
		}
	}
	return 0
}

// unitsPer returns how high a nanosecond is, and how long a segment is on its way if
// there is nothing else to tell.
func unitsPer(all []rung, way time.Duration) (perNS float64, flight time.Duration) {
	if way > 0 {
		return roundTrip / 2 / float64(way), way
	}
	// No answer came. What is highest is as high as can be, and the slant says
	// nothing.
	most := time.Microsecond
	for i := 1; i < len(all); i++ {
		if all[i].band == "" && all[i-1].band == "" {
			most = max(most, all[i].when-all[i-1].when)
		}
	}
	perNS = longest * 0.7 / float64(most)
	flight = time.Duration(roundTrip / 3 / perNS)
	for i := range all {
		if r := &all[i]; r.band == "" && r.way == show.In && r.when > 0 {
			flight = min(flight, r.when/2) // it left after our first segment had come
			break
		}
	}
	return perNS, max(flight, time.Duration(1/perNS))
}

// flights says for each rung when its segment was at the peer's end: so long after it
// left ours, or before it arrived there. What was answered sooner than twice that was
// there in the middle between, together with its answer; and of two segments the one
// that left first arrived first.
func flights(c *show.Conversation, all []rung, flight time.Duration) {
	at := make(map[int]int, len(all))
	for i := range all {
		r := &all[i]
		if r.band != "" {
			continue
		}
		at[r.step] = i
		switch r.way {
		case show.Out:
			r.there = r.when + flight
		case show.In, show.Error:
			r.there = r.when - flight
		}
	}
	for i := range all {
		r := &all[i]
		if r.band != "" || r.way != show.Out || c.Steps[r.step].Segment.SegLen() == 0 {
			continue
		}
		if j, ok := answer(c.Steps, r.step); ok {
			if a, drawn := at[j]; drawn && all[a].there < r.there && all[a].when > r.when {
				middle := r.when + (all[a].when-r.when)/2
				r.there, all[a].there = min(r.there, middle), max(all[a].there, middle)
			}
		}
	}
	inOrderThere(all)
}

// inOrderThere has no segment overtake another of its direction.
func inOrderThere(all []rung) {
	var later, earlier *rung
	for i := len(all) - 1; i >= 0; i-- {
		if r := &all[i]; r.band == "" && r.way == show.Out {
			if later != nil {
				r.there = min(r.there, max(later.there, r.when))
			}
			later = r
		}
	}
	for i := range all {
		if r := &all[i]; r.band == "" && r.way == show.In {
			if earlier != nil {
				r.there = max(r.there, min(earlier.there, r.when))
			}
			earlier = r
		}
	}
}

// A room is what a rung needs in addition, so that its label has a place: above where
// its arrow begins, and above where it ends.
type room struct{ begin, end float64 }

// place puts every rung on the axis.
func place(all []rung, perNS, top float64, rooms []room) scale {
	s := scale{near: make([]float64, len(all)), far: make([]float64, len(all))}
	y := top
	for i := 0; i < len(all); {
		if all[i].band != "" {
			s.bands = append(s.bands, span{y0: y + 16, y1: y + 16 + bandHigh, text: all[i].band})
			s.near[i], s.far[i] = y+16, y+16+bandHigh
			y += 16 + bandHigh + 26
			i++
			continue
		}
		n := i
		for n < len(all) && all[n].band == "" {
			n++
		}
		y = s.stretch(all, knots(all, i, n), perNS, y, rooms)
		i = n
	}
	s.bottom = y
	return s
}

// knots are the moments of some rungs in order of time.
func knots(all []rung, from, to int) []knot {
	var k []knot
	for i := from; i < to; i++ {
		switch r := &all[i]; r.way {
		case show.Out:
			k = append(k, knot{i, false, r.when}, knot{i, true, r.there})
		case show.In, show.Error:
			k = append(k, knot{i, true, r.there}, knot{i, false, r.when})
		default:
			k = append(k, knot{i, false, r.when})
		}
	}
	slices.SortStableFunc(k, func(a, b knot) int { return cmp.Compare(a.when, b.when) })
	return k
}

// stretch puts the moments of rungs that follow each other on the axis, from y down,
// and returns where the last is.
func (s *scale) stretch(all []rung, knots []knot, perNS, y float64, rooms []room) float64 {
	var last [2]*knot // at our end, at the peer's
	var lastY [2]float64
	for i := range knots {
		k := &knots[i]
		side := 0
		if k.far {
			side = 1
		}
		r := &all[k.rung]
		at := y
		if i > 0 {
			high := float64(k.when-knots[i-1].when) * perNS
			if high > longest {
				b := span{y0: y + breakLead, y1: y + breakLead + breakHigh}
				b.skipped = k.when - knots[i-1].when - time.Duration(2*breakLead/perNS)
				s.breaks = append(s.breaks, b)
				high = 2*breakLead + breakHigh
				if r.way == show.Here {
					high += 6 // what it says stands above it
				}
			}
			at += high
		}
		need := at
		if last[side] != nil {
			need = lastY[side] + spacing(&all[last[side].rung], r, k.far)
		}
		more := rooms[k.rung].end
		if k.far == (r.way == show.In || r.way == show.Error) {
			more = rooms[k.rung].begin
		}
		if more > 0 {
			need = max(need, y) + more
		}
		if need > at+nudge {
			s.stretched = append(s.stretched, span{y0: y, y1: need})
		}
		y = max(at, need)
		if k.far {
			s.far[k.rung] = y
		} else {
			s.near[k.rung] = y
			if r.way == show.Here {
				s.far[k.rung] = y
			}
		}
		last[side], lastY[side] = k, y
	}
	return y
}

// spacing is how far apart two moments of one end must be.
func spacing(a, b *rung, far bool) float64 {
	switch {
	case !far && a.local != probe.Unknown:
		return 31 // a's state and b's time stand between them
	case !far:
		return 24
	case a.way == b.way:
		return 20
	case a.peer != probe.Unknown && b.peer != probe.Unknown:
		return 17
	default:
		return nudge
	}
}
