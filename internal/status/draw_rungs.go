package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A rung is what a ladder shows at one height of our end's line: a segment, an error,
// a timer, or a band that stands for steps which are not drawn.
type rung struct {
	step                   int // index of Steps; of a band the first that it stands for
	way                    show.Way
	at                     time.Duration // as stamped
	when                   time.Duration // the same, but never before the rung above
	there                  time.Duration // when it was at the peer's end, inferred
	label                  string        // of the arrow, or the event
	flags, numbers, octets string        // what the label of a segment consists of
	note                   string        // what was concluded
	class                  string        // how it is drawn: syn, fin, data, ack, rst, icmp, timer
	local                  probe.State   // if it changed with this rung, else Unknown
	peer                   probe.State
	band                   string // not empty: what the band says

	answered bool // something came back for it, or nothing has to
	midway   bool // it met, or was sent by, a router
}

// rungs returns what is drawn of a conversation: timers that led to a segment at once
// are told with the segment, and of an exchange that repeats itself the middle is
// left out.
func rungs(c *show.Conversation) []rung {
	local, peer := probe.Closed, probe.Unknown
	var all []rung
	for i := range c.Steps {
		s := &c.Steps[i]
		if c.Lost > 0 && i == c.LostAt {
			all = append(all, rung{step: i, band: fmt.Sprintf("… %d steps not kept …", c.Lost)})
		}
		if merges(c.Steps, i) || isEnd(c.Steps, i) {
			continue
		}
		r := rung{step: i, way: s.Way, at: s.At, when: s.At, note: noteOf(c.Steps, i)}
		if s.Local != local {
			r.local, local = s.Local, s.Local
		}
		if s.Peer != peer {
			r.peer, peer = s.Peer, s.Peer
		}
		r.answered, r.midway = answered(c.Steps, i), midway(c, i)
		r.describe(c, i)
		if n := len(all); n > 0 && all[n-1].band == "" {
			r.when = max(r.when, all[n-1].when)
		}
		all = append(all, r)
	}
	return shorten(all)
}

// soon is how long after a timer a segment may leave and count as sent by it.
const soon = 5 * time.Millisecond

// merges reports whether a step is told with the one after it: a call or a timer, and
// the segment that it sent.
func merges(steps []show.Step, i int) bool {
	if i+1 == len(steps) || steps[i+1].Way != show.Out || steps[i+1].At-steps[i].At > soon {
		return false
	}
	switch steps[i].Event {
	case probe.Open, probe.Reopen, probe.RetransmissionTimeout, probe.ACKTimeout, probe.Close:
		return steps[i].Way == show.Here
	}
	return false
}

// isEnd reports whether a step only says that the conversation's memory was freed.
func isEnd(steps []show.Step, i int) bool {
	s := &steps[i]
	return i+1 == len(steps) && i > 0 && s.Way == show.Here && s.Event == probe.TimeWaitTimeout && s.Local != probe.TimeWait
}

// noteOf is what was concluded from a step, less what its arrow already says.
func noteOf(steps []show.Step, i int) string {
	if i > 0 && merges(steps, i-1) {
		if n := telling(steps[i-1].Note); n != "" {
			return n
		}
	}
	return telling(steps[i].Note)
}

func telling(note string) string {
	switch note {
	case probe.NoteOpen.String(), probe.NoteSYNSent.String(), probe.NoteLeft.String(), probe.NoteFINLeft.String(),
		probe.NoteResetSent.String(), probe.NoteClose.String():
		return ""
	}
	return note
}

// describe writes what stands at the arrow.
func (r *rung) describe(c *show.Conversation, i int) {
	s := &c.Steps[i]
	switch s.Way {
	case show.Out, show.In:
		seq, ack := c.Relative(i)
		r.segment(&s.Segment, seq, ack)
	case show.Error:
		r.class, r.label = "icmp", icmpName(&s.ICMP)
		if from := s.ICMP.From; from.IsValid() && r.note == probe.NoteICMP.String() {
			r.note = "from " + from.WithZone("").String()
		}
	default:
		r.class, r.label = "timer", s.Event.String()
		if s.Event == 0 {
			r.label = ""
		}
	}
}

func (r *rung) segment(s *probe.Segment, seq, ack probe.Seq) {
	r.flags = flagNames(s.Flags)
	b := fmt.Appendf(nil, "seq=%d", seq)
	if s.Flags.Has(probe.ACK) {
		b = fmt.Appendf(b, " ack=%d", ack)
	}
	r.numbers = string(b)
	if s.Len > 0 {
		r.octets = fmt.Sprintf("len=%d", s.Len)
	}
	r.label = strings.TrimRight(r.flags+" "+r.numbers+" "+r.octets, " ")
	switch f := s.Flags; {
	case f.Has(probe.RST):
		r.class = "rst"
	case f.Has(probe.SYN):
		r.class = "syn"
	case f.Has(probe.FIN):
		r.class = "fin"
	case s.Len > 0:
		r.class = "data"
	default:
		r.class = "ack"
	}
}

// flagNames writes the control bits as people do on a whiteboard: SYN, ACK.
func flagNames(f probe.Flags) string {
	var b strings.Builder
	for _, l := range [...]struct {
		flag probe.Flags
		name string
	}{
		{probe.SYN, "SYN"}, {probe.FIN, "FIN"}, {probe.RST, "RST"}, {probe.PSH, "PSH"}, {probe.ACK, "ACK"},
		{probe.URG, "URG"}, {probe.ECE, "ECE"}, {probe.CWR, "CWR"}, {probe.AE, "AE"},
	} {
		if f.Has(l.flag) {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			b.WriteString(l.name)
		}
	}
	if rest := f &^ (probe.AE<<1 - 1); rest != 0 {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString("reserved")
	}
	if b.Len() == 0 {
		return "no flags"
	}
	return b.String()
}

// icmpName says which error it is.
func icmpName(e *probe.ICMP) string {
	name := "ICMP"
	if e.V6 {
		name = "ICMPv6"
	}
	what := map[[2]uint8]string{
		{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable",
		{3, 3}: "port unreachable", {3, 4}: "fragmentation needed", {3, 9}: "network prohibited",
		{3, 10}: "host prohibited", {3, 13}: "prohibited", {11, 0}: "TTL exceeded", {11, 1}: "reassembly time exceeded",
	}
	if e.V6 {
		what = map[[2]uint8]string{
			{1, 0}: "no route", {1, 1}: "prohibited", {1, 3}: "address unreachable", {1, 4}: "port unreachable",
			{1, 5}: "source address policy", {1, 6}: "route rejected", {2, 0}: "packet too big", {3, 0}: "hop limit exceeded",
		}
	}
	if w, ok := what[[2]uint8{e.Type, e.Code}]; ok {
		return name + " " + w
	}
	return name + " type " + strconv.Itoa(int(e.Type)) + " code " + strconv.Itoa(int(e.Code))
}

// disbelieved reports whether a note says that what arrived was not taken.
func disbelieved(note string) bool {
	switch note {
	case probe.NoteBadSYNACK.String(), probe.NoteBadRST.String(), probe.NoteBadICMP.String(), probe.NoteBadACK.String(),
		probe.NoteUnexpected.String(), probe.NoteOutOfWindow.String(), probe.NotePAWS.String(), probe.NoteNoTimestamp.String():
		return true
	}
	return false
}

// answered reports whether something came back for a segment of ours, or nothing has
// to.
func answered(steps []show.Step, i int) bool {
	s := &steps[i]
	if s.Way != show.Out || s.Segment.Flags.Has(probe.RST) || s.Segment.SegLen() == 0 {
		return true
	}
	_, ok := answer(steps, i)
	return ok
}

// answer finds what came back for a segment of ours before it was sent again: what
// the peer sent, or if that is nothing, an ICMP error.
func answer(steps []show.Step, i int) (at int, ok bool) {
	s := &steps[i].Segment
	for j := i + 1; j < len(steps); j++ {
		a := &steps[j]
		switch a.Way {
		case show.Out:
			if a.Segment.Seq == s.Seq && a.Segment.SegLen() > 0 {
				return at, ok
			}
		case show.In:
			if !disbelieved(a.Note) && (s.Flags.Has(probe.SYN) || a.Segment.Flags.Has(probe.ACK) && s.End().LessEq(a.Segment.Ack)) {
				return j, true
			}
		case show.Error:
			if !ok && a.ICMP.Seq == s.Seq && !disbelieved(a.Note) {
				at, ok = j, true
			}
		}
	}
	return at, ok
}

// midway reports whether a step is an ICMP error that came from a router, or the
// segment of ours that it is about.
func midway(c *show.Conversation, i int) bool {
	if c.Steps[i].Way == show.Out {
		at, ok := answer(c.Steps, i)
		if !ok {
			return false
		}
		i = at
	}
	s := &c.Steps[i]
	return s.Way == show.Error && s.ICMP.From.Unmap() != c.Tuple.Remote.Addr().Unmap().WithZone("")
}

// What an exchange must be to be shortened: repeated so often, in a pattern of at
// most so many rows. So many repetitions are drawn at its beginning, and one at its
// end.
const (
	foldFrom    = 7
	foldPattern = 4
	foldKeep    = 2
)

// shorten leaves out the middle of what repeats itself.
func shorten(all []rung) []rung {
	var out []rung
	for i := 0; i < len(all); {
		p, n := repeats(all[i:])
		if n < foldFrom {
			out = append(out, all[i])
			i++
			continue
		}
		out = append(out, all[i:i+foldKeep*p]...)
		first, last := all[i+foldKeep*p], all[i+(n-1)*p]
		out = append(out, rung{
			step: first.step,
			band: fmt.Sprintf("… %d more like these, %s …", n-foldKeep-1, show.FormatDuration(last.when-first.when)),
		})
		out = append(out, all[i+(n-1)*p:i+n*p]...)
		i += n * p
	}
	return out
}

// repeats finds the pattern that rows begin with: of how many it consists and how
// often it comes.
func repeats(all []rung) (p, n int) {
	for p := 1; p <= foldPattern; p++ {
		n := 1
		for (n+1)*p <= len(all) && same(all[:p], all[n*p:(n+1)*p]) {
			n++
		}
		if n >= foldFrom {
			return p, n
		}
	}
	return 1, 1
}

func same(a, b []rung) bool {
	for i := range a {
		x, y := &a[i], &b[i]
		if x.band != "" || y.band != "" || x.way != y.way || x.class != y.class || x.note != y.note ||
			x.answered != y.answered || y.local != probe.Unknown || y.peer != probe.Unknown ||
			x.way == show.Here && x.label != y.label {
			return false
		}
	}
	return true
}
