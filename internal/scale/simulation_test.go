package scale

import (
	"flag"
	"testing"
	"time"

	"github.com/probed/probed/probe/engine"
)

var (
	days     = flag.Float64("days", 1, "of virtual time that BenchmarkMillion simulates")
	shards   = flag.Int("shards", 2, "among which BenchmarkMillion divides its targets")
	interval = flag.Duration("interval", 10*time.Minute, "at which BenchmarkMillion probes each")
	million  = flag.Int("targets", 1_000_000, "of BenchmarkMillion")
)

// check holds an outcome against what is promised of memory.
func check(tb testing.TB, o *outcome) {
	tb.Helper()
	tb.Log(o)
	if n := o.allocations(); n > 0.001 {
		tb.Errorf("%v allocations a probe", n)
	}
	if before, after := o.perTarget(o.settled), o.perTarget(o.ending); after > 1.01*before+16 {
		tb.Errorf("memory grows: %.0f octets a target after %v, %.0f at the end", before, o.settle, after)
	}
}

// TestHour has 20,000 targets probed for an hour of virtual time: each probe goes in
// its slot, what is observed of each is what happened, and memory is at rest.
func TestHour(t *testing.T) {
	check(t, play(t, scenario{
		targets: 20_000, shards: 2, perAddress: 8, interval: 10 * time.Minute, span: time.Hour, settle: 15 * time.Minute,
		rtts: usual, limits: byDefault, bound: 2 * time.Millisecond,
	}))
}

// TestPortsGoRound has targets probed until the source ports have gone round twice.
func TestPortsGoRound(t *testing.T) {
	check(t, play(t, scenario{
		targets: 400, shards: 1, perAddress: 1, interval: 2 * time.Second, span: 10 * time.Minute, settle: 5 * time.Minute,
		rtts: usual, limits: byDefault, bound: 2 * time.Millisecond,
	}))
}

// TestLimitsHold has targets whose intervals leave the limits two to five percent of
// room, all ports of few addresses: as their phases are random, each limit is met
// again and again. No second has more packets than it, and nobody is skipped.
func TestLimitsHold(t *testing.T) {
	o := play(t, scenario{
		targets: 10_000, shards: 1, perAddress: 500, interval: 5250 * time.Millisecond, span: 40 * time.Second, settle: 20 * time.Second,
		rtts: usual[:2], limits: engine.Limits{Global: 3900, PerAddress: 200}, crowded: true, bound: time.Second,
	})
	check(t, o)
	if o.worlds[0].longest < 10*time.Millisecond {
		t.Error("no limit was met")
	}
}

// BenchmarkMillion is a million targets through a day. It takes some minutes and
// 2 GiB.
func BenchmarkMillion(b *testing.B) {
	for range b.N {
		span := time.Duration(*days * float64(24*time.Hour))
		o := play(b, scenario{
			targets: *million, shards: *shards, perAddress: 8, interval: *interval, span: span, settle: min(time.Hour, span/3),
			rtts: usual, limits: byDefault, bound: 2 * time.Millisecond,
		})
		check(b, o)
		b.ReportMetric(float64(o.ending.probes), "probes")
		b.ReportMetric(float64(o.perProbe().Nanoseconds()), "cpu-ns/probe")
		b.ReportMetric(o.perTarget(o.ending), "B/target")
		b.ReportMetric(o.allocations(), "allocs/probe")
	}
}
