package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Row compares probed with another tool by one unit, of which less is better.
type Row struct {
	Against, Work string
	Ours, Theirs  string // names of lines
	Least         string // that of the kernel's part alone
	Unit          string
	TheirUnit     string  // if it is another
	Goal          float64 // the ratio to reach, 0 if none was set
}

// least is the name of the line of the kernel's part of what a line of probed's has.
func least(name string) string { return strings.Replace(name, "tool=probed", "tool=bare", 1) }

// rows are the comparisons, in the order of the table.
func rows() (all []Row) {
	const unit = "cpu-ns/probe"
	for _, c := range []struct {
		kernel, work  string
		zmap, masscan float64
	}{
		{"inline", "handshakes, the peer's kernel included", 1.3, 1.8},
		{"split", "handshakes, the peer's kernel on the other core", 2, 0},
		{"steered", "the same, our arrivals on our core", 0, 0},
	} {
		for _, ours := range []string{"probed", "probed-packet"} {
			name := func(tool string) string { return "Handshakes/kernel=" + c.kernel + "/tool=" + tool }
			work := c.work
			if ours == "probed-packet" {
				work += ", `transmit: packet`"
			}
			row := Row{Against: "zmap", Work: work, Ours: name(ours), Theirs: name("zmap"), Least: least(name(ours)), Unit: unit, Goal: c.zmap}
			all = append(all, row)
			row.Against, row.Theirs, row.Goal = "masscan", name("masscan"), c.masscan
			all = append(all, row)
			row.Against, row.Theirs, row.Goal = "masscan --noreset", name("masscan-noreset"), 0
			all = append(all, row)
		}
	}
	const at1s = "Monitoring/targets=%d/tool=%s"
	for _, c := range []struct {
		ours, against string
		n, theirs     int // targets
		work          string
		goal          float64
		theirUnit     string
	}{
		{ours: "probed", against: "net.Dialer", n: 10_000, theirs: 10_000, work: "10,000 targets at 1 s", goal: 8},
		{ours: "probed-packet", against: "net.Dialer", n: 10_000, theirs: 10_000, work: "10,000 targets at 1 s, `transmit: packet`", goal: 8},
		{ours: "probed-active_close", against: "net.Dialer", n: 10_000, theirs: 10_000, work: "the same, closed by FIN by both"},
		{ours: "probed", against: "blackbox_exporter", n: 10_000, theirs: 2000, work: "10,000 targets at 1 s; it can't: 2,000", goal: 50},
		{ours: "probed", against: "blackbox_exporter", n: 2000, theirs: 2000, work: "2,000 targets at 1 s", goal: 50},
		{ours: "probed", against: "smokeping_prober", n: 1000, theirs: 1000, work: "1,000 targets at 1 s, for each echo reply", goal: 100},
		{ours: "probed", against: "smokeping_prober", n: 1000, theirs: 1000, work: "the same, for each reply that it books", goal: 100, theirUnit: "cpu-ns/booked"},
	} {
		ours := fmt.Sprintf(at1s, c.n, c.ours)
		row := Row{Against: c.against, Work: c.work, Ours: ours, Theirs: fmt.Sprintf(at1s, c.theirs, c.against), Unit: unit, TheirUnit: c.theirUnit, Goal: c.goal}
		if c.ours != "probed-active_close" {
			row.Least = least(ours)
		}
		all = append(all, row)
	}
	return all
}

// Each table is "" if there is no line for it.

// Table writes the ratios as Markdown: of each row the medians of both and of the
// ratios of the paired runs, the nth with the nth, with their least and greatest, and what
// the ratio would be of a prober that takes no time itself. A row without lines is left out.
func Table(r Results) string {
	var b strings.Builder
	b.WriteString("| against | work | probed, µs | it, µs | ratio | least to greatest (runs) | at most | goal |\n|---|---|---|---|---|---|---|---|\n")
	some := false
	for _, row := range rows() {
		ours, theirs := r.values(row.Ours, row.Unit), r.values(row.Theirs, cmp.Or(row.TheirUnit, row.Unit))
		n := min(len(ours), len(theirs))
		if n == 0 {
			continue
		}
		some = true
		ratios := make([]float64, n)
		for i := range ratios {
			ratios[i] = theirs[i] / ours[i]
		}
		most := ""
		if alone := r.values(row.Least, row.Unit); len(alone) > 0 {
			most = digits(median(theirs) / median(alone))
		}
		goal := ""
		if row.Goal > 0 {
			goal = fmt.Sprintf("≥ %g", row.Goal)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | **%s** | %s to %s (%d) | %s | %s |\n", row.Against, row.Work,
			digits(median(ours)/1e3), digits(median(theirs)/1e3), digits(median(ratios)),
			digits(slices.Min(ratios)), digits(slices.Max(ratios)), n, most, goal)
	}
	if !some {
		return ""
	}
	return b.String()
}

// AccuracyTable writes how far each tool is from the capture, the best first, and
// what multiple of probed's the deviations are: of all rounds the medians. The goals
// are those of the bias and of the 99th percentile in either state, and of each multiple.
func AccuracyTable(r Results) string {
	var b strings.Builder
	b.WriteString("| tool | bias, idle | p99 of the error, idle | bias, busy | p99, busy | times probed's | goal |\n|---|---|---|---|---|---|---|\n")
	const name = "Accuracy/load=%s/tool=%s"
	type entry struct {
		tool string
		off  [4]float64
	}
	var all []entry
	for _, tool := range r.tools("Accuracy/load=idle/tool=") {
		e := entry{tool: tool}
		for i, load := range []string{"idle", "busy"} {
			line := fmt.Sprintf(name, load, tool)
			e.off[2*i], e.off[2*i+1] = median(r.values(line, "bias-ns")), median(r.values(line, "p99-error-ns"))
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return ""
	}
	slices.SortStableFunc(all, func(x, y entry) int { return cmp.Compare(x.off[1], y.off[1]) })
	ours := slices.IndexFunc(all, func(e entry) bool { return e.tool == "probed" })
	for _, e := range all {
		times, goal := "", "≤ 0.5, ≤ 1 µs"
		if ours >= 0 && !strings.HasPrefix(e.tool, "probed") {
			goal = "≥ 10"
			var each []string
			for i, v := range e.off {
				each = append(each, digits(math.Abs(v)/math.Abs(all[ours].off[i])))
			}
			times = strings.Join(each, ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", e.tool,
			micros(e.off[0]), micros(e.off[1]), micros(e.off[2]), micros(e.off[3]), times, goal)
	}
	return b.String()
}

// GrowthTable writes what probed takes by the number of its targets: medians.
func GrowthTable(r Results) string {
	var b strings.Builder
	b.WriteString("| kind | targets | CPU a probe | memory | of it a target | text | gzip | protobuf, gzip |\n|---|---|---|---|---|---|---|---|\n")
	const prefix = "Growth/probe="
	names := r.tools(prefix)
	if len(names) == 0 {
		return ""
	}
	for _, name := range names {
		kind, n, _ := strings.Cut(name, "/targets=")
		of := func(unit string) float64 { return median(r.values(prefix+name, unit)) }
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s MiB | %s KiB |", kind, n, micros(of("cpu-ns/probe")), digits(of("rss-MiB")), digits(of("rss-B/target")/1024))
		for _, f := range []string{"text", "gzip", "protobuf-gzip"} {
			fmt.Fprintf(&b, " %s MB, %s ms |", digits(of(f+"-MB")), digits(of(f+"-ms")))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// values are a unit's of all lines of a name, in their order.
func (r Results) values(name, unit string) (all []float64) {
	for _, l := range r.Lines {
		if v, ok := l.Get(unit); ok && l.Name == name {
			all = append(all, v)
		}
	}
	return all
}

// tools are what follows a prefix in the lines' names, each once.
func (r Results) tools(prefix string) (all []string) {
	for _, l := range r.Lines {
		if tool, ok := strings.CutPrefix(l.Name, prefix); ok && !slices.Contains(all, tool) {
			all = append(all, tool)
		}
	}
	return all
}

// median is the middle one, or the mean of both; NaN of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// digits writes a number with three of them, or all before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func micros(ns float64) string { return digits(ns/1e3) + " µs" }
