package scale

import (
	"flag"
	"runtime"
	"testing"
	"time"

	"github.com/probed/probed/probe/engine"
)

var (
	days     = flag.Float64("days", 1, "of virtual time that BenchmarkMillion simulates")
	shards   = flag.Int("shards", 2, "among which BenchmarkMillion divides its targets")
	interval = flag.Duration("interval", 10*time.Minute, "at which BenchmarkMillion probes each")
	million  = flag.Int("targets", 1_000_000, "of BenchmarkMillion")

	fleetSize     = flag.Int("fleet", 100_000, "targets of BenchmarkFleet")
	fleetInterval = flag.Duration("fleet.interval", 10*time.Second, "at which BenchmarkFleet probes each")
	fleetProbes   = flag.Int("fleet.probes", 260, "of each target of BenchmarkFleet")
)

// trimmed is how much of what was given back is asked for again in a minute: the engine
// gives back what it has not needed for as long.
const trimmed = 20

// check holds an outcome against what is promised of memory.
func check(tb testing.TB, o *outcome) {
	tb.Helper()
	tb.Log(o)
	if n := o.ending.mallocs - o.settled.mallocs; float64(n) > maxAllocations*float64(o.ending.probes-o.settled.probes)+trimmed*(o.span-o.settle).Minutes()*float64(o.shards) {
		tb.Errorf("%d allocations for %d probes", n, o.ending.probes-o.settled.probes)
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

// TestThirtyThousandASecond has one shard make as many probes: none is skipped, and each
// goes within a tick of its slot.
func TestThirtyThousandASecond(t *testing.T) {
	check(t, play(t, scenario{
		targets: 30_000, shards: 1, perAddress: 8, interval: time.Second, span: 9 * time.Second, settle: 7 * time.Second,
		rtts: usual, limits: wide, bound: 2 * time.Millisecond,
	}))
}

// TestLimitsHold has targets whose intervals leave a limit some two percent of room, the
// global one or that of an address, all ports of which are targets: as phases are random
// it is met again and again. No second has more packets than it, and nobody is skipped.
func TestLimitsHold(t *testing.T) {
	for name, s := range map[string]scenario{
		"global":      {perAddress: 1, limits: engine.Limits{Global: 3900, PerAddress: 200}},
		"per address": {perAddress: 510, limits: engine.Limits{Global: 20_000, PerAddress: 200}, crowded: true},
	} {
		t.Run(name, func(t *testing.T) {
			s.targets, s.shards, s.interval, s.span, s.settle = 10_200, 1, 5350*time.Millisecond, 40*time.Second, 20*time.Second
			s.alike = true                            // each probe is the two packets that it stands for
			s.rtts, s.bound = usual[:2], s.interval/2 // how late a limit makes a probe is promised by nobody
			o := play(t, s)
			t.Log(o)
			if o.worlds[0].longest < 10*time.Millisecond {
				t.Error("no limit was met")
			}
		})
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
		b.ReportMetric(float64(o.alone().Nanoseconds()), "network-ns/probe")
		b.ReportMetric(o.perTarget(o.ending), "B/target")
		b.ReportMetric(o.allocations(), "allocs/probe")
	}
}

// BenchmarkFleet is all that the daemon keeps of many targets: before the first probe,
// after some probes, and with no conversation open any more.
func BenchmarkFleet(b *testing.B) {
	for range b.N {
		network := nowhere(b, *fleetSize)
		network.uneven = true
		before, wide := heap(), network.footprint()
		f := newFleet(b, network, *fleetInterval, 0)
		taken := time.Duration(*fleetSize) * time.Microsecond * 10 // the list is taken in by pieces
		f.run(taken, nil)
		own := func() float64 { return heap() - before - float64(network.footprint()-wide) }
		b.ReportMetric(own()/float64(*fleetSize), "idle-B/target")
		from, probed := processTime(), network.peers.probes
		live := 0.0
		span := time.Duration(*fleetProbes) * *fleetInterval
		f.run(span, map[time.Duration]func(){span - time.Millisecond: func() { live = own() }})
		b.ReportMetric(float64((processTime()-from).Nanoseconds())/float64(network.peers.probes-probed), "cpu-ns/probe")
		b.ReportMetric(live/float64(*fleetSize), "live-B/target")
		b.ReportMetric(own()/float64(*fleetSize), "warm-B/target")
		b.ReportMetric(float64(network.peers.probes), "probes")
		runtime.KeepAlive(f)
	}
}
