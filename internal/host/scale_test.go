package host_test

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A tally is a target's metrics, and counts what must not happen.
type tally struct {
	series      *metrics.Target // not embedded: its ObserveAll would go past Observe
	probes, bad *int
}

func (s tally) Observe(o *probe.Observation) {
	switch o.Kind {
	case probe.Verdict:
		*s.probes++
		if o.Reason != probe.OK {
			*s.bad++
		}
	case probe.Discarded, probe.Rejected, probe.SYNACKLate, probe.SYNACKDuplicate:
		*s.bad++
	}
	s.series.Observe(o)
}

// ObserveAll is what the engine calls: the Target's own would leave the tally out.
func (s tally) ObserveAll(all []probe.Observation) {
	for i := range all {
		s.Observe(&all[i])
	}
}

// load is a shard that probes n peers behind a veth once a second each, as
// probed does with its default limits.
type load struct {
	rig         *rig
	metrics     *metrics.Metrics
	self        *self
	targets     int
	probes, bad int // the shard's until it has ended
}

func newLoad(t testing.TB, n int) *load {
	t.Helper()
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/18")
	b.Listen("tcp4", "0.0.0.0:80")
	l := &load{metrics: metrics.New(metrics.Options{}), self: newSelf(), targets: n}
	l.self.delays = make([]time.Duration, 0, 100*n)
	first := netip.MustParseAddr("198.18.64.1")
	var targets []*engine.Target
	for i, addr := 0, first; i < n; i, addr = i+1, addr.Next() {
		remote := netip.AddrPortFrom(addr, 80)
		m, err := l.metrics.AddTarget(metrics.Labels{Job: "load", Target: remote.String(), Module: "half_open"}, metrics.TargetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tg := target(uint64(i), remote, time.Second, 900*time.Millisecond, nil)
		tg.Sink, tg.Recorder = tally{m, &l.probes, &l.bad}, nil
		targets = append(targets, tg)
	}
	l.rig = newRig(t, a, l.self, engine.Limits{Global: 20000, PerAddress: 200})
	l.rig.shard.Update(targets, nil)
	return l
}

// usage is what this process has used of the processors, the peer's kernel
// included (it answers within our system calls), and its largest resident set in
// MiB.
func usage(t testing.TB) (cpu time.Duration, resident float64) {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), float64(u.Maxrss) / (1 << 10)
}

// TestAccuracyOfTenThousandTargets probes 10,000 targets a second for a minute,
// under the default limits, which that load uses up to the last packet, with a
// scrape every 10 s: nothing may be skipped or dropped, and the loop keeps up.
func TestAccuracyOfTenThousandTargets(t *testing.T) {
	const n, seconds = 10_000, 60
	l := newLoad(t, n)
	runtime.GC()
	before, _ := usage(t)
	began := time.Now()
	for range seconds / 10 {
		time.Sleep(10 * time.Second)
		if err := l.metrics.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
	}
	after, resident := usage(t)
	used, took := after-before, time.Since(began)
	drops := l.rig.shard.Stats.TapDrops.Load()
	l.rig.end()
	t.Logf("%d targets at 1 s for %.0f s: %d probes, %.1f µs of CPU a probe, %.0f MiB resident at most, schedule delay p50 %v p99 %v max %v",
		n, took.Seconds(), l.probes, float64(used.Microseconds())/float64(l.probes), resident, l.self.delay(0.5), l.self.delay(0.99), l.self.delay(1))
	if len(l.self.skipped) > 0 {
		t.Errorf("skipped: %v", l.self.skipped)
	}
	if drops > 0 {
		t.Errorf("the tap dropped %d frames", drops)
	}
	if l.bad > 0 {
		t.Errorf("%d observations that a silent path and good peers don't make", l.bad)
	}
	if least := n * (seconds - 1); l.probes < least {
		t.Errorf("%d probes, expected %d or more", l.probes, least)
	}
	// A loop that can't keep up is late for each. How late the latest are is the machine's: BenchmarkLoad tells.
	if late := l.self.delay(0.5); late > 25*time.Millisecond {
		t.Errorf("schedule delay p50 %v, allowed 25ms", late)
	}
}

// BenchmarkLoad probes n targets a second for ten seconds and reports what a
// probe costs, the peer's kernel included, and how late the latest hundredth is.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			for range b.N {
				l := newLoad(b, n)
				time.Sleep(2 * time.Second) // the first probes fill tables and pages
				before, _ := usage(b)
				time.Sleep(10 * time.Second)
				after, resident := usage(b)
				used := after - before
				b.ReportMetric(float64(used.Microseconds())/float64(10*n), "cpu-µs/probe")
				b.ReportMetric(100*used.Seconds()/10, "cpu-%")
				b.ReportMetric(resident, "rss-MiB")
				l.rig.end()
				b.ReportMetric(float64(l.self.delay(0.99).Microseconds()), "delay-p99-µs")
			}
		})
	}
}
