package show

import (
	"strconv"
	"strings"

	"github.com/probed/probed/probe"
)

// draw puts step i on its row, and returns what is to stand below it.
func (l *ladder) draw(r *row, i int) []span {
	s := &l.c.Steps[i]
	var below []span
	say := func(text, style string) {
		for _, part := range wrap(text, l.wire-2) {
			below = append(below, l.centered(part, style))
		}
	}
	switch s.Way {
	case Here:
		r.left = "●"
		text := wrap(hereText(s), l.wire-2)
		if len(text) > 0 {
			r.wire = span{Pad(" "+text[0], l.wire), stylePlain}
			for _, more := range text[1:] {
				below = append(below, span{Pad(" "+more, l.wire), stylePlain})
			}
		}
	case Error:
		text := strings.TrimPrefix(l.c.icmpText(&s.ICMP), "ICMP6, ")
		label := "ICMP"
		if full := "ICMP " + strings.TrimPrefix(text, "ICMP "); Width(full) <= l.wire-6 {
			label = full
		} else {
			say(strings.TrimPrefix(text, "ICMP "), styleReset)
		}
		// It may come from anywhere on the way: the line does not reach the peer.
		r.wire = span{"◀" + l.label(label, "╌", l.wire-3) + "  ", styleReset}
		if s.ICMP.From.IsValid() {
			say("from "+addrText(s.ICMP.From), styleReset)
		}
		say(noteText(s), styleDim)
	default:
		label, numbers := l.segmentLabel(i)
		style := styleOut
		switch {
		case s.Segment.Flags.Has(probe.RST):
			style = styleReset
		case s.Way == In:
			style = styleIn
		}
		if s.Way == Out {
			r.left = "├"
			r.wire = span{l.label(label, "─", l.wire-1) + "▶", style}
		} else {
			r.right = "┤"
			r.wire = span{"◀" + l.label(label, "─", l.wire-1), style}
		}
		say(numbers, style)
		say(noteText(s), styleDim)
	}
	if !l.measure {
		for _, m := range l.c.Marks {
			if m.To == i && m.From >= 0 {
				say(m.Name+" "+FormatDuration(m.Duration), styleMeasure)
			}
		}
	}
	return below
}

// label is a line of n columns with text in its middle.
func (l *ladder) label(text, line string, n int) string {
	rest := n - Width(text) - 2
	return strings.Repeat(line, max(rest/2, 0)) + " " + text + " " + strings.Repeat(line, max(rest-rest/2, 0))
}

func (l *ladder) centered(text, style string) span {
	text = Fit(text, l.wire)
	return span{Pad(blanks((l.wire-Width(text))/2)+text, l.wire), style}
}

// segmentLabel is what stands on a segment's arrow: as much as there is room for.
// Numbers that don't fit are returned apart.
func (l *ladder) segmentLabel(i int) (label, numbers string) {
	s := &l.c.Steps[i].Segment
	seq, ack := l.c.Relative(i)
	label, numbers = FlagWords(s.Flags), "seq "+signed(seq)
	if s.Flags.Has(probe.ACK) {
		numbers += " ack " + signed(ack)
	}
	if s.Len > 0 {
		numbers += " len " + strconv.Itoa(int(s.Len))
	}
	room := l.wire - 5
	window := " win " + strconv.Itoa(int(s.Window))
	switch {
	case Width(label+" "+numbers+window) <= room && !s.Flags.Has(probe.RST):
		return label + " " + numbers + window, ""
	case Width(label+" "+numbers) <= room:
		return label + " " + numbers, ""
	}
	return Fit(label, room), numbers
}

// signed writes a relative number; one a little before the initial sequence number
// is negative.
func signed(n probe.Seq) string {
	if d := int32(n); d < 0 && d >= -1<<20 {
		return strconv.Itoa(int(d))
	}
	return strconv.FormatUint(uint64(n), 10)
}

// flagWords are the control bits in the order in which a person says them.
var flagWords = [...]struct {
	flag probe.Flags
	word string
}{{probe.SYN, "SYN"}, {probe.FIN, "FIN"}, {probe.RST, "RST"}, {probe.PSH, "PSH"}, {probe.URG, "URG"},
	{probe.ECE, "ECE"}, {probe.CWR, "CWR"}, {probe.AE, "AE"}, {probe.ACK, "ACK"}}

// FlagWords names the control bits as on a whiteboard: SYN-ACK. Reserved bits are
// a question mark each.
func FlagWords(f probe.Flags) string {
	var list []string
	for _, w := range flagWords {
		if f.Has(w.flag) {
			list = append(list, w.word)
		}
		f &^= w.flag
	}
	text := strings.Join(list, "-")
	if f &= 1<<12 - 1; f != 0 {
		text += strings.Repeat("?", strings.Count(strconv.FormatUint(uint64(f), 2), "1"))
	}
	if text == "" {
		return "no flags"
	}
	return text
}

// hereText is a step that crossed no wire.
func hereText(s *Step) string {
	event := s.Event.String()
	switch {
	case s.Event == 0:
		return s.Note
	case s.Note == "" || strings.EqualFold(s.Note, event):
		return event
	}
	return event + ": " + s.Note
}

// noteText is a segment's note, unless the arrow says the same.
func noteText(s *Step) string {
	switch s.Note {
	case probe.NoteSYNSent.String(), probe.NoteLeft.String(), probe.NoteFINLeft.String(), probe.NoteResetSent.String(),
		probe.NoteICMP.String(), probe.NoteData.String():
		return ""
	}
	return s.Note
}
