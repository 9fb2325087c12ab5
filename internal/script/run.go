package script

import (
	"fmt"
	"time"

	"github.com/probed/probed/probe"
)

// A Start says from where a script is played: the sequence numbers that its
// relative ones count from.
type Start struct{ ISS, IRS probe.Seq }

// The moments at which every script begins. They are arbitrary, and differ so
// that taking one clock for the other shows.
const (
	startMonotonic probe.Instant = 1_000_000_000_000
	startWall      int64         = 1_800_000_000_000_000_000
)

// A Timed is an event of a script as probe.Step takes it.
type Timed struct {
	At    probe.Instant
	Event probe.Event
}

// clocks are the two clocks of a script being played.
type clocks struct {
	now     probe.Instant
	wall    int64 // the packet clock less the monotonic one
	stretch uint32
}

func newClocks() clocks {
	return clocks{now: startMonotonic, wall: startWall - int64(startMonotonic), stretch: 1}
}

// apply lets the step's time pass and steps the packet clock if the step says
// so.
func (c *clocks) apply(s *Step) {
	c.now = c.now.Add(max(s.After, 0))
	if s.Event.Kind == 0 {
		c.wall += int64(s.Event.ClockStep)
		if !s.Event.Unseen {
			c.stretch++
		}
	}
}

// resolve makes the step's event, with its stamp.
func (c *clocks) resolve(s *Step, at Start) probe.Event {
	e := probe.Event{Kind: s.Event.Kind, Discard: s.Event.Discard, Narrow: s.Event.Narrow}
	switch e.Kind {
	case probe.Open, probe.Reopen:
		if s.Event.Given {
			e.Segment = s.Event.Segment.ours(at.ISS, at.IRS)
			return e
		}
		e.Segment = probe.Segment{Seq: at.ISS, Flags: probe.SYN}
		for _, w := range s.Want {
			if w.Kind == WantSegment {
				e.Segment = w.Segment.ours(at.ISS, at.IRS)
				break
			}
		}
		return e
	case probe.NoRoom:
		if s.Event.Given {
			e.Segment = s.Event.Segment.ours(at.ISS, at.IRS)
		}
		return e
	case probe.SegmentSent:
		e.Segment = s.Event.Segment.ours(at.ISS, at.IRS)
	case probe.SegmentArrives:
		e.Segment = s.Event.Segment.theirs(at.ISS, at.IRS)
	case probe.ICMPArrives:
		e.ICMP = s.Event.ICMP
		e.ICMP.Seq = s.Event.Quote.from(at.ISS)
	default:
		return e
	}
	e.Stamp.Wall = int64(c.now) + c.wall - int64(s.Event.Stamped)
	if !s.Event.Unstamped {
		e.Stamp.Clock = c.stretch
	}
	return e
}

// Events returns the script's events in order, without what must come of them.
func (s *Script) Events(at Start) []Timed {
	var list []Timed
	c := newClocks()
	for i := range s.Steps {
		c.apply(&s.Steps[i])
		if s.Steps[i].Event.Kind != 0 {
			list = append(list, Timed{c.now, c.resolve(&s.Steps[i], at)})
		}
	}
	return list
}

// Run plays the script and returns the first thing that is not as it says, as
// file:line: what.
func (s *Script) Run(at Start) (probe.Transcript, error) {
	var t probe.Transcript
	t.Reset(probe.FourTuple{}, s.Params.Kind)
	clock, c := newClocks(), probe.New(s.Params)
	for i := range s.Steps {
		step := &s.Steps[i]
		clock.apply(step)
		if err := checkTimer(&c, step, clock.now); err != nil {
			return t, fmt.Errorf("%s:%d: %w", s.File, step.Line, err)
		}
		if step.Event.Kind == 0 {
			continue
		}
		ev := clock.resolve(step, at)
		was := c.Done()
		var out probe.Output
		c, out = probe.Step(c, clock.now, ev)
		t.Add(clock.now, &ev, &c, &out)
		if line, err := checkWants(step, &c, &out, !was && c.Done(), at); err != nil {
			return t, fmt.Errorf("%s:%d: %w", s.File, line, err)
		}
	}
	switch kind, when := c.Timer(); {
	case c.Done():
	case kind == 0:
		return t, fmt.Errorf("%s:%d: the script opens nothing", s.File, s.lastLine())
	default:
		return t, fmt.Errorf("%s:%d: the script ends before the conversation: %v is due %v later",
			s.File, s.lastLine(), kind, when.Sub(clock.now))
	}
	return t, nil
}

func (s *Script) lastLine() int {
	if len(s.Steps) == 0 {
		return 1
	}
	return s.Steps[len(s.Steps)-1].Line
}

// checkTimer holds a script to the timers: none may be passed over, and each
// goes off when it is due.
func checkTimer(c *probe.Conversation, s *Step, now probe.Instant) error {
	kind, due := c.Timer()
	switch s.Event.Kind {
	case probe.UserTimeout, probe.RetransmissionTimeout, probe.TimeWaitTimeout, probe.ACKTimeout, probe.Close:
		if kind != s.Event.Kind {
			return fmt.Errorf("%v: the timer that runs is %v", s.Event.Kind, kind)
		}
		if (now != due && !s.Event.Overdue) || now < due {
			return fmt.Errorf("%v is due %v after this", kind, due.Sub(now))
		}
	default:
		if kind != 0 && now > due && !s.Event.Overdue {
			return fmt.Errorf("%v was due %v before this: say overdue if that is meant", kind, now.Sub(due))
		}
	}
	return nil
}

// checkWants compares what came of an event with the lines below it.
func checkWants(s *Step, c *probe.Conversation, out *probe.Output, ended bool, at Start) (int, error) {
	segments, observations := out.Segments(), out.Observations()
	for i := range s.Want {
		w := &s.Want[i]
		switch w.Kind {
		case WantSegment:
			if len(segments) == 0 {
				return w.Line, fmt.Errorf("no segment is sent")
			}
			want := w.Segment.ours(at.ISS, at.IRS)
			if segments[0] != want {
				return w.Line, fmt.Errorf("sends > %s, want > %s",
					FormatSegment(&segments[0], at.ISS, at.IRS), FormatSegment(&want, at.ISS, at.IRS))
			}
			segments = segments[1:]
		case WantObservation:
			if len(observations) == 0 {
				return w.Line, fmt.Errorf("nothing more is observed, want ! %s", FormatObservation(&w.Observation))
			}
			if observations[0] != w.Observation {
				return w.Line, fmt.Errorf("observes ! %s, want ! %s",
					FormatObservation(&observations[0]), FormatObservation(&w.Observation))
			}
			observations = observations[1:]
		case WantStates:
			if c.Local() != w.Local || c.Peer() != w.Peer {
				return w.Line, fmt.Errorf("states = %v %v, want = %v %v", c.Local(), c.Peer(), w.Local, w.Peer)
			}
		case WantNote:
			if out.Note.String() != w.Note {
				return w.Line, fmt.Errorf("notes %q, want %q", out.Note, w.Note)
			}
		case WantDone:
			if !ended {
				return w.Line, fmt.Errorf("not done")
			}
			ended = false
		}
	}
	switch {
	case len(segments) > 0:
		return s.Line, fmt.Errorf("not listed: > %s", FormatSegment(&segments[0], at.ISS, at.IRS))
	case len(observations) > 0:
		return s.Line, fmt.Errorf("not listed: ! %s", FormatObservation(&observations[0]))
	case ended:
		return s.Line, fmt.Errorf("not listed: done")
	}
	return 0, nil
}

// Since returns how long after the script's beginning a moment is.
func Since(t probe.Instant) time.Duration { return t.Sub(startMonotonic) }
