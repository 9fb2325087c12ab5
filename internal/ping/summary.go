package ping

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// Options say how a summary is drawn.
type Options struct {
	Width int // columns
	Paint Paint
}

// mostFlows is how many flows a summary lists.
const mostFlows = 16

// Summary is what all probes together were, after a time, as text for a person.
func (t *Tally) Summary(of *Target, took time.Duration, o Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s %s, %s ---\n", of, of.Kind, lengthText(took))
	b.WriteString(t.verdicts(o.Paint) + "\n")
	list := func(code, head string, items []string) {
		for _, line := range wrapped(head, items, o.Width) {
			b.WriteString(o.Paint.with(code, line) + "\n")
		}
	}
	list(red, "failed: ", names(t.Failures[:], probe.Reason.String))
	list(yellow, "discarded, ours and not the network's: ", names(t.Discarded[:], probe.DiscardReason.String))
	list(yellow, "not sent, ours and not the network's: ", t.skips())
	list("", "also seen: ", t.alsoSeen())
	list("", "not believed: ", names(t.Rejected[:], probe.RejectReason.String))
	list("", "teardown: ", names(t.Forms[:], probe.Form.String))
	list("", "reuse: ", names(t.Answers[:], probe.Answer.String))
	b.WriteString(t.table())
	b.WriteString(t.flowTable())
	for _, k := range charted(of.Kind) {
		if chart := t.Figure(k).Chart(k.String(), o.Width, o.Paint); chart != "" {
			b.WriteString("\n" + chart)
		}
	}
	return b.String()
}

// lengthText is how long probing took: to the second where that is minutes.
func lengthText(d time.Duration) string {
	if d < 2*time.Minute {
		return show.FormatDuration(d)
	}
	return d.Round(time.Second).String()
}

func (t *Tally) verdicts(p Paint) string {
	if t.Probes == 0 {
		return "no probe came to a verdict"
	}
	failed := t.Failed()
	loss := percent(t.Loss()) + " loss"
	if failed > 0 {
		loss = p.with(red, loss)
	}
	return fmt.Sprintf("%s: %d ok, %d failed, %s", counted(t.Probes, "probe", "probes"), t.Probes-failed, failed, loss)
}

// charted are the figures of a kind that are worth a chart: the network's, and the
// peer's application's.
func charted(k probe.Kind) []probe.ObservationKind {
	switch k {
	case probe.ActiveClose:
		return []probe.ObservationKind{probe.HandshakeRTT, probe.CloseWaitTime}
	case probe.PassiveClose, probe.TimeWaitProbe:
		return []probe.ObservationKind{probe.HandshakeRTT, probe.PeerCloseTime}
	}
	return []probe.ObservationKind{probe.HandshakeRTT}
}

func (t *Tally) skips() (all []string) {
	for _, reason := range slices.Sorted(maps.Keys(t.Skipped)) {
		all = append(all, fmt.Sprintf("%s %d", reason, t.Skipped[reason]))
	}
	return all
}

func (t *Tally) alsoSeen() (all []string) {
	for _, of := range []struct {
		n         uint64
		one, many string
	}{
		{t.Late, "answer after the timeout", "answers after the timeout"},
		{t.Duplicates, "duplicate SYN-ACK", "duplicate SYN-ACKs"},
		{t.FINAgain[probe.Local], "retransmission of our FIN", "retransmissions of our FIN"},
		{t.FINAgain[probe.Peer], "retransmission of the peer's FIN", "retransmissions of the peer's FIN"},
	} {
		if of.n > 0 {
			all = append(all, counted(of.n, of.one, of.many))
		}
	}
	return all
}

// quantiles are those that a summary has.
var quantiles = [...]struct {
	name string
	q    float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}}

// table lists the figures, a line each.
func (t *Tally) table() string {
	rows := [][]string{{"", "n", "min", "p50", "p90", "p99", "max", "jitter"}}
	exact := true
	for _, k := range measuredKinds {
		s := t.figures[k]
		if s == nil || s.Count() == 0 {
			continue
		}
		row := []string{figureName(k), strconv.FormatUint(s.Count(), 10), show.FormatDuration(s.Min())}
		for _, q := range quantiles {
			row = append(row, show.FormatDuration(s.Quantile(q.q)))
		}
		row = append(row, show.FormatDuration(s.Max()), "-")
		if s.Count() > 1 {
			row[len(row)-1] = show.FormatDuration(s.Jitter())
		}
		rows = append(rows, row)
		exact = exact && s.Exact()
	}
	if len(rows) == 1 {
		return ""
	}
	text := columns(rows)
	if !exact {
		text += fmt.Sprintf("quantiles are exact to 0.05 %%, of more than %d\n", MaxExact)
	}
	return text
}

// figureName is a figure's name as its metric's.
func figureName(k probe.ObservationKind) string {
	if name, _ := show.Interval(k); name != "" {
		return name
	}
	return "time_wait_max"
}

// flowTable lists the source ports, those with the highest loss first if they are
// too many.
func (t *Tally) flowTable() string {
	ports := t.ports()
	if len(ports) < 2 {
		return ""
	}
	more := ""
	if n := len(ports) - mostFlows; n > 0 {
		slices.SortStableFunc(ports, func(a, b uint16) int {
			x, y := t.flows[a], t.flows[b]
			switch left, right := x.failed*y.probes, y.failed*x.probes; {
			case left > right:
				return -1
			case left < right:
				return 1
			}
			return 0
		})
		ports = ports[:mostFlows]
		more = fmt.Sprintf("and %s with no higher loss\n", counted(uint64(n), "flow", "flows"))
	}
	rows := [][]string{{"flow", "probes", "failed", "loss", "min", "mean", "max"}}
	for _, port := range ports {
		f := t.flows[port]
		row := []string{"port " + strconv.Itoa(int(port)), strconv.FormatUint(f.probes, 10), strconv.FormatUint(f.failed, 10),
			percent(float64(f.failed) / float64(f.probes)), "-", "-", "-"}
		if f.answered > 0 {
			row = append(row[:4], show.FormatDuration(f.min), show.FormatDuration(f.mean()), show.FormatDuration(f.max))
		}
		rows = append(rows, row)
	}
	return "\n" + columns(rows) + more
}

// columns sets rows in columns, the first to the left, the others to the right.
func columns(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], show.Width(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(show.Pad(row[0], widths[0]))
		for i, cell := range row[1:] {
			b.WriteString("  " + show.PadLeft(cell, widths[i+1]))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// names lists what there is more than none of: "timeout 1", "refused 2".
func names[T ~uint8](counts []uint64, name func(T) string) (all []string) {
	for i, n := range counts {
		if n > 0 && i > 0 {
			all = append(all, fmt.Sprintf("%s %d", name(T(i)), n))
		}
	}
	return all
}

// wrapped is a list in lines of at most width columns, of which all but the first
// are indented; none if there is nothing to list.
func wrapped(head string, items []string, width int) (lines []string) {
	line := head
	for i, item := range items {
		if i < len(items)-1 {
			item += ","
		}
		if i > 0 && show.Width(line+" "+item) > width {
			lines = append(lines, line)
			line = " "
		}
		if i > 0 {
			line += " "
		}
		line += item
	}
	if len(items) == 0 {
		return nil
	}
	return append(lines, line)
}

// percent writes a share with three significant digits.
func percent(share float64) string {
	return strconv.FormatFloat(share*100, 'g', 3, 64) + " %"
}

func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(n, 10) + " " + many
}
