package trust

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A soakSample is what probed held at one moment, by soakGauges.
type soakSample []float64

// A soakGauge is one thing that must stay flat: its median over the second quarter of
// the time and that over the last may differ by a share, or by a number that is noise.
type soakGauge struct {
	name  string
	unit  string
	share float64 // of the second quarter's median
	noise float64
	wide  float64 // the share in 20 s, which are all warm-up
}

var soakGauges = []soakGauge{
	{"resident memory", "MiB", 0.10, 2, 1},
	{"heap in use", "MiB", 0.15, 2, 2},
	{"heap after collection", "MiB", 0.10, 1, 2},
	{"goroutines", "", 0.10, 10, 1},
	{"threads", "", 0.10, 3, 1},
	{"descriptors", "", 0.05, 5, 1},
	{"guards", "", 0, 0, 0},
	{"conversations", "", 0.25, 500, 3},
	{"kernel memory of sockets", "KiB", 0.25, 512, 10},
	{"TCP sockets", "", 0.05, 10, 1},
}

// A sampler samples until it is stopped.
type sampler struct {
	stopping context.CancelFunc
	done     chan []soakSample
}

// sample starts to.
func (s *soak) sample() *sampler {
	ctx, stop := context.WithCancel(s.t.Context())
	m := &sampler{stop, make(chan []soakSample, 1)}
	go func() {
		var all []soakSample
		for tick := time.NewTicker(s.plan.every); ; {
			one, err := s.look(ctx)
			switch {
			case ctx.Err() != nil:
				m.done <- all
				return
			case err != nil:
				s.t.Errorf("a sample: %v", err)
			default:
				all = append(all, one)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	return m
}

func (m *sampler) stop() []soakSample {
	m.stopping()
	return <-m.done
}

// skmem is ss(8)'s account of what the kernel holds for a socket: octets received and
// sent that wait, room allocated ahead, options and backlog.
var skmem = regexp.MustCompile(`skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)`)

// look takes a sample.
func (s *soak) look(ctx context.Context) (soakSample, error) {
	f, err := s.web.figures(ctx)
	if err != nil {
		return nil, err
	}
	out, err := s.here.Command(context.WithoutCancel(ctx), "ss", "-amnHOtuw0").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ss: %w\n%s", err, out)
	}
	var held, sockets, guards float64
	for line := range strings.Lines(string(out)) {
		for _, n := range skmem.FindAllStringSubmatch(line, -1) {
			for _, octets := range n[1:] {
				v, err := strconv.ParseFloat(octets, 64)
				if err != nil {
					return nil, err
				}
				held += v
			}
		}
		f := strings.Fields(line)
		if len(f) < 5 || f[0] != "tcp" {
			continue
		}
		if f[1] != "TIME-WAIT" {
			sockets++
		}
		if port, err := strconv.Atoi(f[4][strings.LastIndexByte(f[4], ':')+1:]); err == nil && f[1] == "LISTEN" && port >= 61000 && port < 61256 {
			guards++
		}
	}
	const mebi = 1 << 20
	pid := s.d.cmd.Process.Pid
	return soakSample{
		lab.Resident(s.t, pid),
		f["go_memstats_heap_inuse_bytes"] / mebi,
		f["go_memstats_next_gc_bytes"] / 2 / mebi, // GOGC is 100: the collector waits for the double
		f["go_goroutines"],
		f["go_threads"],
		float64(descriptors(s.t, pid)),
		guards,
		f["probed_conversations"],
		held / 1024,
		sockets,
	}, nil
}

// A soakTable is what came of a soak.
type soakTable struct {
	plan     soakPlan
	samples  []soakSample
	faults   []*soakFault
	web      string
	reloads  int
	probes   int
	mistaken int
	left     int
}

// quarter is a gauge's median over the nth quarter of the time, from 0.
func (s *soakTable) quarter(gauge, n int) float64 {
	part := s.column(gauge)[n*len(s.samples)/4 : (n+1)*len(s.samples)/4]
	slices.Sort(part)
	if len(part) == 0 {
		return math.NaN()
	}
	return part[len(part)/2]
}

func (s *soakTable) column(gauge int) []float64 {
	all := make([]float64, len(s.samples))
	for i := range s.samples {
		all[i] = s.samples[i][gauge]
	}
	return all
}

// bound is by how much a gauge's medians may differ.
func (s *soakTable) bound(gauge int) float64 {
	g := &soakGauges[gauge]
	share := g.share
	if s.plan.wide {
		share = g.wide
	}
	return s.plan.slack * (share*s.quarter(gauge, 1) + g.noise)
}

// trends says what did not stay flat.
func (s *soakTable) trends() (complaints []string) {
	if len(s.samples) < 8 {
		return []string{fmt.Sprintf("only %d samples", len(s.samples))}
	}
	for i, g := range soakGauges {
		before, after := s.quarter(i, 1), s.quarter(i, 3)
		if d := after - before; !(math.Abs(d) <= s.bound(i)) { // NaN is none
			complaints = append(complaints, fmt.Sprintf("%s: %.1f in the second quarter, %.1f in the last: more than %.1f apart", g.name, before, after, s.bound(i)))
		}
	}
	return complaints
}

func (s *soakTable) slowest() (d time.Duration) {
	for _, f := range s.faults {
		d = max(d, f.recovery)
	}
	return d
}

// String is the tables as Markdown.
func (s *soakTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s probes/s: %s verdicts, %d of them false, %d faults, %d reloads, %s; %d sockets, processes or errors left behind.\n\n",
		s.plan.length, thousands(s.plan.rate), thousands(s.probes), s.mistaken, len(s.faults), s.reloads, s.web, s.left)
	fmt.Fprintf(&b, "| held, %d samples | 1st quarter | 2nd | 3rd | 4th | least | greatest | 2nd to 4th | allowed |\n|---|---|---|---|---|---|---|---|---|\n", len(s.samples))
	for i, g := range soakGauges {
		all := s.column(i)
		number := func(v float64) string {
			if g.unit == "" {
				return fmt.Sprintf("%.0f", v)
			}
			return fmt.Sprintf("%.1f", v)
		}
		name := g.name
		if g.unit != "" {
			name += ", " + g.unit
		}
		fmt.Fprintf(&b, "| %s |", name)
		for n := range 4 {
			fmt.Fprintf(&b, " %s |", number(s.quarter(i, n)))
		}
		fmt.Fprintf(&b, " %s | %s | %+.1f | ±%.1f |\n", number(slices.Min(all)), number(slices.Max(all)), s.quarter(i, 3)-s.quarter(i, 1), s.bound(i))
	}
	b.WriteString("\n| fault | times | failed at the rough peer | discarded | skipped | lost by the tap | recovery, median | greatest |\n|---|---|---|---|---|---|---|---|\n")
	var kinds []string
	for _, f := range s.faults {
		if !slices.Contains(kinds, f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	for _, kind := range kinds {
		var sum soakFault
		var recoveries []time.Duration
		for _, f := range s.faults {
			if f.kind == kind {
				sum.failed += f.failed
				sum.discarded += f.discarded
				sum.skipped += f.skipped
				sum.tapDrops += f.tapDrops
				recoveries = append(recoveries, f.recovery)
			}
		}
		slices.Sort(recoveries)
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s | %s |\n", kind, len(recoveries), thousands(sum.failed), thousands(sum.discarded),
			thousands(sum.skipped), thousands(sum.tapDrops), short(recoveries[len(recoveries)/2]), short(recoveries[len(recoveries)-1]))
	}
	return b.String()
}

// The trend test finds a slow leak, and does not take noise for one.
func TestSoakTrend(t *testing.T) {
	t.Parallel()
	hour := soakPlan{slack: 1}
	flat, leak := &soakTable{plan: hour}, &soakTable{plan: hour}
	for i := range 360 {
		sample := make(soakSample, len(soakGauges))
		for j := range sample {
			sample[j] = 100 + float64(i*7%5)
		}
		sample[6] = 128
		leaking := slices.Clone(sample)
		leaking[0] += float64(i) / 360 * 40 // 0.1 MiB every 10 s
		if i == 300 {
			sample[0] = 1000 // one bad moment
		}
		flat.samples, leak.samples = append(flat.samples, sample), append(leak.samples, leaking)
	}
	if c := flat.trends(); len(c) > 0 {
		t.Errorf("flat, and yet: %q", c)
	}
	if c := leak.trends(); len(c) != 1 || !strings.HasPrefix(c[0], "resident memory") {
		t.Errorf("a leak: %q", c)
	}
}
