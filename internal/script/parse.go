package script

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// Parse reads a script. Errors are file:line: what is wrong. There is one
// Script for every value of its "each" line, or one if it has none.
func Parse(file string, src []byte) ([]*Script, error) {
	if len(src) > maxSource {
		return nil, fmt.Errorf("%s:1: longer than %d octets", file, maxSource)
	}
	lines := strings.Split(string(src), "\n")
	name, values, err := each(file, lines)
	if err != nil {
		return nil, err
	}
	scripts := make([]*Script, 0, len(values))
	for _, v := range values {
		p := parser{script: &Script{File: file, Value: v}, name: name, value: v}
		for i, l := range lines {
			p.line = i + 1
			if err := p.parseLine(l); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, p.line, err)
			}
		}
		if p.script.Params.Kind == 0 {
			return nil, fmt.Errorf("%s:%d: no line says how the conversation is held", file, len(lines))
		}
		scripts = append(scripts, p.script)
	}
	return scripts, nil
}

// What a script may be at most: enough for any by hand, and a bound for the
// work that a bad one makes.
const (
	maxSource = 64 << 10
	maxEach   = 64
)

// each finds the script's "each" line.
func each(file string, lines []string) (name string, values []string, err error) {
	for i, l := range lines {
		f := split(stripComment(l))
		if len(f) == 0 || f[0] != "each" {
			continue
		}
		switch {
		case values != nil:
			return "", nil, fmt.Errorf("%s:%d: a second each", file, i+1)
		case len(f) < 3:
			return "", nil, fmt.Errorf("%s:%d: each wants a name and values", file, i+1)
		case len(f) > 2+maxEach:
			return "", nil, fmt.Errorf("%s:%d: more than %d values", file, i+1, maxEach)
		}
		name, values = f[1], f[2:]
		for i, v := range values {
			values[i] = strings.Trim(v, `"`)
		}
	}
	if values == nil {
		values = []string{""}
	}
	return name, values, nil
}

func stripComment(l string) string {
	l, _, _ = strings.Cut(l, "#")
	return l
}

// parser holds where the parse of one script stands.
type parser struct {
	script      *Script
	line        int
	name, value string // each's
}

func (p *parser) parseLine(l string) error {
	l = stripComment(l)
	if p.name != "" {
		l = strings.ReplaceAll(l, "$"+p.name, p.value)
	}
	w := words{list: split(l)}
	first, ok := w.next()
	if !ok {
		return nil
	}
	switch {
	case first == "each":
		if len(p.script.Steps) > 0 {
			return fmt.Errorf("each belongs above the first event")
		}
		return nil
	case p.script.Params.Kind == 0:
		return p.params(first, &w)
	case strings.HasPrefix(first, "+"):
		return p.event(first, &w)
	case len(p.script.Steps) == 0:
		return fmt.Errorf("%q: an event begins with the time since the one before, as in +20ms", first)
	}
	want, err := parseWant(first, &w)
	if err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	want.Line = p.line
	s := &p.script.Steps[len(p.script.Steps)-1]
	s.Want = append(s.Want, want)
	return nil
}

// params reads "half_open timeout 900ms linger 5s grace 50ms" and what may
// follow: ipv6, cookies; for the kinds that go further send N, hold D,
// fin_with_data, prompt, combined, reuse D, lower, duration D.
func (p *parser) params(first string, w *words) error {
	ps := probe.Params{}
	for k := probe.HalfOpen; k <= probe.TimeWaitProbe; k++ {
		if k.String() == first {
			ps.Kind = k
		}
	}
	if ps.Kind == 0 {
		return fmt.Errorf("%q: the first line names the kind of probe: half_open, active_close, passive_close, time_wait", first)
	}
	for _, f := range []struct {
		name string
		d    *time.Duration
	}{{"timeout", &ps.Timeout}, {"linger", &ps.Linger}, {"grace", &ps.ResetGrace}} {
		if ps.Kind != probe.HalfOpen && f.name == "grace" {
			break // the port is guarded
		}
		if err := w.expect(f.name); err != nil {
			return err
		}
		d, err := w.duration()
		if err != nil {
			return err
		}
		*f.d = d
	}
	if err := moreParams(&ps, w); err != nil {
		return err
	}
	p.script.Params = ps
	return w.end()
}

func moreParams(ps *probe.Params, w *words) (err error) {
	for err == nil && w.peek() != "" {
		switch {
		case w.take("ipv6"):
			ps.IPv6 = true
		case w.take("cookies"):
			ps.DetectCookies = true
		case w.take("send"):
			var n uint64
			n, err = w.uint(20)
			ps.Send = uint32(n)
		case w.take("hold"):
			ps.Hold, err = w.duration()
		case w.take("fin_with_data"):
			ps.FINWithData = true
		case w.take("prompt"):
			ps.Prompt = true
		case w.take("combined"):
			ps.Combined = true
		case w.take("reuse"):
			ps.Measure = probe.MeasureReuse
			ps.After, err = w.duration()
		case w.take("lower"):
			ps.Lower = true
		case w.take("duration"):
			ps.Measure = probe.MeasureDuration
			ps.Limit, err = w.duration()
		default:
			return nil
		}
	}
	return err
}

// event reads a line that begins with a time.
func (p *parser) event(first string, w *words) error {
	after, err := parseDuration(first[1:])
	if err != nil {
		return err
	}
	ev, err := parseEvent(w)
	if err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	p.script.Steps = append(p.script.Steps, Step{Line: p.line, After: after, Event: ev})
	return nil
}

func parseEvent(w *words) (ev Event, err error) {
	word, _ := w.next()
	switch word {
	case "open":
		ev.Kind, ev.Narrow = probe.Open, w.take("narrow")
	case "reopen":
		ev.Kind = probe.Reopen
		if w.peek() != "" {
			ev.Given = true
			if ev.Segment, err = parseSegment(w); err != nil {
				return ev, err
			}
		}
	case "sent":
		ev.Kind = probe.SegmentSent
		if ev.Segment, err = parseSegment(w); err != nil {
			return ev, err
		}
	case "<":
		ev.Kind = probe.SegmentArrives
		if w.peek() == "icmp" || w.peek() == "icmp6" {
			ev.Kind = probe.ICMPArrives
			err = parseICMP(w, &ev)
		} else {
			ev.Segment, err = parseSegment(w)
		}
		if err != nil {
			return ev, err
		}
	case "CLOSE":
		ev.Kind = probe.Close
		ev.Overdue = w.take("late")
		return ev, nil
	case "USER", "RETRANSMISSION", "TIME-WAIT", "ACK":
		if err := w.expect("TIMEOUT"); err != nil {
			return ev, err
		}
		ev.Kind = timers[word]
		ev.Narrow = ev.Kind == probe.RetransmissionTimeout && w.take("narrow")
		ev.Overdue = w.take("late")
		return ev, nil
	case "send":
		ev.Kind = probe.SendFailed
		if err := w.expect("failed"); err != nil {
			return ev, err
		}
	case "no":
		ev.Kind = probe.NoRoom
		if err := w.expect("room"); err != nil {
			return ev, err
		}
		if ev.Given = w.peek() != ""; ev.Given {
			if ev.Segment, err = parseSegment(w); err != nil {
				return ev, err
			}
		}
	case "spoiled", "abort":
		ev.Kind = probe.Spoiled
		if word == "abort" {
			ev.Kind = probe.Abort
		}
		reason, _ := w.next()
		if ev.Discard, err = parseDiscard(reason); err != nil {
			return ev, err
		}
	case "clock":
		if ev.ClockStep, err = w.duration(); err != nil {
			return ev, err
		}
		ev.Unseen = w.take("unseen")
		return ev, nil
	default:
		return ev, fmt.Errorf("%q is no event: open, reopen, sent, <, USER TIMEOUT, RETRANSMISSION TIMEOUT, "+
			"TIME-WAIT TIMEOUT, ACK TIMEOUT, CLOSE, send failed, no room, spoiled, abort, clock", word)
	}
	return ev, parseStamp(w, &ev)
}

var timers = map[string]probe.EventKind{
	"USER": probe.UserTimeout, "RETRANSMISSION": probe.RetransmissionTimeout, "TIME-WAIT": probe.TimeWaitTimeout,
	"ACK": probe.ACKTimeout,
}

// parseStamp reads what may follow an event: stamped, unstamped, overdue.
func parseStamp(w *words, ev *Event) (err error) {
	stamped := ev.Kind == probe.SegmentSent || ev.Kind == probe.SegmentArrives || ev.Kind == probe.ICMPArrives
	if stamped && w.take("stamped") {
		if ev.Stamped, err = w.duration(); err != nil {
			return err
		}
		if err := w.expect("ago"); err != nil {
			return err
		}
	}
	ev.Unstamped = stamped && w.take("unstamped")
	ev.Overdue = w.take("overdue")
	return nil
}

// parseICMP reads "icmp TYPE/CODE seq N".
func parseICMP(w *words, ev *Event) error {
	family, _ := w.next()
	ev.ICMP.V6 = family == "icmp6"
	word, _ := w.next()
	typ, code, ok := strings.Cut(word, "/")
	t, err1 := parseUint(typ, 8)
	c, err2 := parseUint(code, 8)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("%q: an ICMP type and code look like 3/1", word)
	}
	ev.ICMP.Type, ev.ICMP.Code = uint8(t), uint8(c)
	if err := w.expect("seq"); err != nil {
		return err
	}
	var err error
	ev.Quote, err = w.number()
	return err
}

func parseWant(first string, w *words) (Want, error) {
	switch {
	case first == ">":
		s, err := parseSegment(w)
		return Want{Kind: WantSegment, Segment: s}, err
	case first == "!":
		o, err := parseObservation(w)
		return Want{Kind: WantObservation, Observation: o}, err
	case first == "=":
		local, err := parseState(w)
		if err != nil {
			return Want{}, err
		}
		peer, err := parseState(w)
		return Want{Kind: WantStates, Local: local, Peer: peer}, err
	case first == "done":
		return Want{Kind: WantDone}, nil
	case strings.HasPrefix(first, `"`):
		note := strings.Trim(first, `"`)
		if !slices.Contains(notes(), note) {
			return Want{}, fmt.Errorf("%s is no note", first)
		}
		return Want{Kind: WantNote, Note: note}, nil
	}
	return Want{}, fmt.Errorf("%q: below an event stand >, !, =, a note in quotes, or done", first)
}

// notes are the texts of all notes.
func notes() []string {
	var list []string
	for n := probe.NoteNone; n <= probe.NotePromptReset; n++ {
		list = append(list, n.String())
	}
	return list
}

func parseState(w *words) (probe.State, error) {
	word, _ := w.next()
	for s := probe.Unknown; s <= probe.TimeWait; s++ {
		if s.String() == word {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%q is no state of RFC 9293, nor - for unknown", word)
}

func parseDiscard(word string) (probe.DiscardReason, error) {
	for r := range probe.DiscardReason(probe.NumDiscardReasons) {
		if r != probe.NotDiscarded && r.String() == word {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is no reason to discard", word)
}
