package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// newGroup starts n shards in a lab host, each from its part of the test's ports. The
// function that it returns drains them and waits.
func newGroup(t testing.TB, h *lab.Host, n int, o engine.Observer, limits engine.Limits) (*engine.Group, func()) {
	t.Helper()
	giveLoops()
	var parts []engine.Part
	var networks []*host.Network
	first := 61000
	for range n {
		width := 256 / n
		p := host.Ports{
			Reserved: host.Range{First: uint16(first), Last: uint16(first + width/2 - 1)},
			Guarded:  host.Range{First: uint16(first + width/2), Last: uint16(first + width - 1)},
		}
		first += width
		var network *host.Network
		var err error
		h.Do(func() { network, err = host.Open(p) })
		if err != nil {
			t.Fatal(err)
		}
		networks = append(networks, network)
		parts = append(parts, engine.Part{Network: network, Reserved: engine.Ports(p.Reserved), Guarded: engine.Ports(p.Guarded)})
	}
	g := engine.NewGroup(engine.Config{Observer: o, Limits: limits, Drain: time.Second}, parts)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, s := range g.Shards() {
		running.Add(1)
		h.Go(func() {
			defer running.Done()
			s.Run(ctx)
		})
	}
	end := sync.OnceFunc(func() {
		stop()
		running.Wait()
		for _, n := range networks {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(end)
	return g, end
}

// A count is a target's metrics, and counts what must not happen. Each target is one
// shard's, and has one of its own.
type count struct {
	series      *metrics.Target // not embedded: its ObserveAll would go past Observe
	probes, bad int
}

func (c *count) Observe(o *probe.Observation) {
	switch o.Kind {
	case probe.Verdict:
		c.probes++
		if o.Reason != probe.OK {
			c.bad++
		}
	case probe.Discarded, probe.Rejected, probe.SYNACKLate, probe.SYNACKDuplicate:
		c.bad++
	}
	c.series.Observe(o)
}

// ObserveAll is what the engine calls: the Target's own would leave the count out.
func (c *count) ObserveAll(all []probe.Observation) {
	for i := range all {
		c.Observe(&all[i])
	}
}

// spread returns half_open targets at n addresses of b, each probed at an interval and
// counted.
func spread(t testing.TB, b *lab.Host, n int, interval time.Duration) (targets []*engine.Target, counts []*count) {
	t.Helper()
	b.AnyIP("198.18.64.0/18")
	b.Listen("tcp4", "0.0.0.0:80")
	m := metrics.New(metrics.Options{})
	for i, addr := 0, netip.MustParseAddr("198.18.64.1"); i < n; i, addr = i+1, addr.Next() {
		remote := netip.AddrPortFrom(addr, 80)
		series, err := m.AddTarget(metrics.Labels{Job: "load", Target: remote.String(), Module: "half_open"}, metrics.TargetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := &count{series: series}
		x := target(uint64(i), remote, interval, 900*time.Millisecond, nil)
		x.Sink, x.Recorder = c, nil
		targets, counts = append(targets, x), append(counts, c)
	}
	return targets, counts
}

// TestTwoShards has two shards probe 2,000 targets, which use the global limit up, by
// raw and by packet sockets: nothing is lost, each target is probed from the ports of
// one shard, and no second has more packets than the limit, before and after it
// changes.
func TestTwoShards(t *testing.T) {
	t.Parallel()
	const n, limit = 2000, 4000
	a, b := lab.Pair(t)
	targets, counts := spread(t, b, n, time.Second)
	for i, x := range targets {
		x.Direct = i%2 == 0
	}
	o := newSelf()
	capture := a.Capture(t, a.Iface(), "tcp port 80")
	g, end := newGroup(t, a, 2, o, engine.Limits{Global: limit + limit/50, PerAddress: 200})
	g.Update(targets[:n/2], nil)
	g.Update(targets[n/2:], nil)
	time.Sleep(3 * time.Second)
	g.SetLimits(engine.Limits{Global: 2 * limit, PerAddress: 200})
	time.Sleep(time.Second)
	g.Update(nil, targets[n/2:])
	time.Sleep(2 * time.Second)
	totals := g.Totals()
	end()
	probes := 0
	for i, c := range counts {
		probes += c.probes
		if c.bad > 0 || i < n/2 && c.probes < 5 || c.probes < 3 {
			t.Errorf("%v: %d probes, and %d observations that a silent path and good peers don't make", targets[i].Remote, c.probes, c.bad)
		}
	}
	if totals.Targets != n/2 || totals.SegmentsSent < uint64(2*probes-n) || totals.TapDrops > 0 {
		t.Errorf("%d probes, totals %+v", probes, totals)
	}
	if o.skipped[engine.SkipRateLimit]+o.skipped[engine.SkipNoPort]+o.skipped[engine.SkipUnsent] > 0 {
		t.Errorf("skipped %v", o.skipped)
	}
	shards := make(map[netip.Addr]int)
	var stamps []int64
	for _, one := range capture.Packets() {
		if !one.Outgoing {
			continue
		}
		stamps = append(stamps, one.Wall)
		var p wire.Packet
		if err := wire.Parse(one.Data, &p); err != nil {
			t.Fatal(err)
		}
		shard := 1
		if p.SrcPort >= 61128 {
			shard = 2
		}
		if p.SrcPort < 61000 || p.SrcPort > 61191 || p.SrcPort > 61063 && p.SrcPort < 61128 {
			t.Fatalf("%v > %v from port %d: not a reserved one", p.Src, p.Dst, p.SrcPort)
		}
		if was := shards[p.Dst]; was != 0 && was != shard {
			t.Fatalf("%v is probed by both shards", p.Dst)
		}
		shards[p.Dst] = shard
	}
	each := [3]int{}
	for _, shard := range shards {
		each[shard]++
	}
	if each[1]+each[2] != n || each[1] < n*4/10 || each[2] < n*4/10 {
		t.Errorf("targets by shard: %v", each)
	}
	t.Logf("%d probes, targets by shard %v, at most %d packets in a second", probes, each[1:], busiest(stamps))
	if most := busiest(stamps); most > limit+limit/50+limit/20 {
		t.Errorf("%d packets in a second, the limit is %d", most, limit)
	}
}

// BenchmarkShards probes as fast as the limits let it, by one shard and by two, and
// reports answered probes a second and what one costs, the peer's kernel included.
func BenchmarkShards(b *testing.B) {
	for _, direct := range []bool{false, true} {
		for _, n := range []int{1, 2} {
			how := map[bool]string{false: "raw", true: "packet"}[direct]
			b.Run(fmt.Sprintf("%s/shards=%d", how, n), func(b *testing.B) {
				for range b.N {
					benchmarkShards(b, n, direct)
				}
			})
		}
	}
}

func benchmarkShards(b *testing.B, n int, direct bool) {
	const targets, interval, seconds = 8000, 50 * time.Millisecond, 5
	here, there := lab.Pair(b)
	all, counts := spread(b, there, targets, interval)
	for _, x := range all {
		x.Direct = direct
		x.Params.Linger = 100 * time.Millisecond // else the ports run out
	}
	g, end := newGroup(b, here, n, newSelf(), engine.Limits{Global: 1e7, PerAddress: 1e6})
	g.Update(all, nil)
	time.Sleep(3 * time.Second)
	sent := g.Totals().SegmentsSent
	before, _ := usage(b)
	began := time.Now()
	time.Sleep(seconds * time.Second)
	after, _ := usage(b)
	probes := float64(g.Totals().SegmentsSent-sent) / 2
	took := time.Since(began)
	end()
	bad := 0
	for _, c := range counts {
		bad += c.bad
	}
	b.ReportMetric(probes/took.Seconds(), "probes/s")
	b.ReportMetric(float64((after-before).Nanoseconds())/1e3/probes, "cpu-µs/probe")
	b.ReportMetric(float64(bad), "bad")
	b.ReportMetric(0, "ns/op")
}
