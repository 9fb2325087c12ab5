package scale

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// committed is what a target, a half_open one if not said, may take: octets of the heap on amd64, as they
// were measured. A change that makes one grow by more than a tenth fails; one that
// makes it smaller should take the number down with it. One beyond a goal fails in any case.
var committed = []struct {
	name   string
	octets float64
	of     func(testing.TB) float64
	goal   float64
}{
	{"engine, between two probes", 1050, engineIdle, 0},
	{"engine, at 1 s", 2025, engineLive, 0},
	{"metrics, before the first probe", 300, func(tb testing.TB) float64 { return ofMetrics(tb, probe.HalfOpen, 0) }, 0},
	{"metrics, 30 native buckets in use", 720, func(tb testing.TB) float64 { return ofMetrics(tb, probe.HalfOpen, 1000) }, 0},
	{"metrics of active_close, 30 buckets each in use", 2330, func(tb testing.TB) float64 { return ofMetrics(tb, probe.ActiveClose, 1000) }, 0},
	{"recorder, full", 2840, func(testing.TB) float64 { return ofRecorder(0) }, 0},
	{"recorder, full, one probe in ten fails", 3740, func(testing.TB) float64 { return ofRecorder(10) }, 0},
	{"the whole, before the first probe", 1890, func(tb testing.TB) float64 { return whole(tb, 24*time.Hour, 0) }, 2 << 10},
	{"the whole, warm, between two probes", 5190, func(tb testing.TB) float64 { return whole(tb, 100*time.Second, recorder.MaxSamples) }, 6 << 10},
	{"the whole, warm, at 1 s", 5990, func(tb testing.TB) float64 { return whole(tb, time.Second, recorder.MaxSamples) }, 6 << 10},
}

// growth is how much more than committed is let pass.
const growth = 1.1

// TestNothingGrows compares the octets a target with those committed.
func TestNothingGrows(t *testing.T) {
	var table strings.Builder
	for _, c := range committed {
		got := c.of(t)
		fmt.Fprintf(&table, "\n%-48s %6.0f octets, committed %6.0f", c.name, got, c.octets)
		if got > growth*c.octets {
			t.Errorf("%s: %.0f octets a target, committed are %.0f", c.name, got, c.octets)
		} else if c.goal > 0 && got > c.goal {
			t.Errorf("%s: %.0f octets a target, the goal is %.0f", c.name, got, c.goal)
		} else if got < c.octets/growth {
			fmt.Fprintf(&table, "   <- take it down")
		}
	}
	t.Log(table.String())
}

// maxAllocations is how many a probe may make: those are of maps and queues that
// have yet to find their size.
const maxAllocations = 0.001

// TestProbesAllocateNothing counts allocations a probe of all that a probe goes
// through: the schedule, the conversation, the metrics and the recorder.
func TestProbesAllocateNothing(t *testing.T) {
	const n = 200
	f := newFleet(t, nowhere(t, n), time.Second, 0)
	var from, to runtime.MemStats
	var before, after uint64
	f.run(560*time.Second, map[time.Duration]func(){
		// By then each recorder is full, and has all the memory that it will.
		500 * time.Second: func() { runtime.ReadMemStats(&from); before = f.network.peers.probes },
		559 * time.Second: func() { runtime.ReadMemStats(&to); after = f.network.peers.probes },
	})
	each := float64(to.Mallocs-from.Mallocs) / float64(after-before)
	t.Logf("%.5f allocations for each of %d probes", each, after-before)
	if each > maxAllocations || after-before < 58*n {
		t.Errorf("%v allocations for each of %d probes", each, after-before)
	}
}

// heap is what is in use.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// ofEngine is what the engine keeps of a target after a time of probing.
func ofEngine(tb testing.TB, interval, after time.Duration) float64 {
	const n = 4000
	f := &fleet{network: nowhere(tb, n), metrics: metrics.New(metrics.Options{})}
	before := heap()
	f.shard = engine.New(engine.Config{
		Network: f.network, Observer: observer{f.metrics}, Reserved: reserved, Guarded: engine.Ports{First: 61128, Last: 61255}, Limits: wide,
	})
	ts := make([]*engine.Target, n)
	for i := range ts {
		ts[i] = f.network.peers.subjects[i].target(0)
		ts[i].Interval, ts[i].Sink, ts[i].Recorder = interval, idler{}, idler{}
	}
	f.shard.Update(ts, nil)
	used := 0.0
	f.run(after+time.Millisecond, map[time.Duration]func(){after: func() { used = heap() - before }})
	runtime.KeepAlive(f)
	return used / n
}

func engineIdle(tb testing.TB) float64 { return ofEngine(tb, 24*time.Hour, time.Second) }

func engineLive(tb testing.TB) float64 { return ofEngine(tb, time.Second, 20*time.Second) }

// ofMetrics is what the metrics of a target take after some probes.
func ofMetrics(tb testing.TB, kind probe.Kind, probes int) float64 {
	const n = 2000
	buckets := defaultBuckets(tb)
	rng := rand.New(rand.NewPCG(5, 6))
	before := heap()
	m := metrics.New(metrics.Options{})
	for i := range n {
		t, err := m.AddTarget(metrics.Labels{
			Job: "edge", Module: "half_open", Target: fmt.Sprintf("198.18.%d.%d:443", i/256, i%256), Extra: map[string]string{"team": "core"},
		}, metrics.TargetOptions{Kind: kind, Buckets: buckets})
		if err != nil {
			tb.Fatal(err)
		}
		median := 100e-6 * math.Exp2(rng.Float64()*10)
		for range probes {
			took := func() time.Duration { return time.Duration(1e9 * median * math.Exp2(rng.NormFloat64()*0.6)) }
			t.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: took()})
			if kind == probe.ActiveClose {
				t.Observe(&probe.Observation{Kind: probe.FINACKRTT, Duration: took()})
				t.Observe(&probe.Observation{Kind: probe.CloseWaitTime, Duration: took()})
				t.Observe(&probe.Observation{Kind: probe.Teardown, Form: probe.FourWay, Duration: took()})
			}
			t.Observe(&probe.Observation{Kind: probe.Verdict})
		}
	}
	used := heap() - before
	runtime.KeepAlive(m)
	return used / n
}

// ofRecorder is what a target's last probes take, of which one in failing, if that is
// not 0, is not answered.
func ofRecorder(failing int) float64 {
	const n = 500
	tuple := probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.19.0.2:443")}
	before := heap()
	all := make([]recorder.Recorder, n)
	var tr probe.Transcript
	for i := range all {
		for k := range recorder.MaxSamples {
			converse(&tr, tuple, uint64(k), failing == 0 || k%failing != 0)
			all[i].Settled(&tr)
			all[i].Record(&tr)
		}
	}
	used := heap() - before
	runtime.KeepAlive(all)
	return used / n
}

// converse has a transcript tell of a probe that is answered or not. As in a real network no two begin and
// are answered quite alike, which samples are written by.
func converse(tr *probe.Transcript, tuple probe.FourTuple, number uint64, answered bool) {
	c := probe.New(probe.Params{Kind: probe.HalfOpen, Timeout: timeout, Linger: 4 * time.Second})
	uneven := rand.New(rand.NewPCG(number, 7))
	now := probe.Instant(number)*1e9 + probe.Instant(uneven.IntN(200_000))
	tr.Reset(tuple, probe.HalfOpen)
	tr.Number = number
	step := func(ev probe.Event) {
		var out probe.Output
		c, out = probe.Step(c, now, ev)
		tr.Add(now, &ev, &c, &out)
	}
	stamp := func() probe.Stamp { return probe.Stamp{Wall: int64(now), Clock: 1} }
	syn := probe.Segment{Flags: probe.SYN, Seq: 100}
	step(probe.Event{Kind: probe.Open, Segment: syn})
	step(probe.Event{Kind: probe.SegmentSent, Segment: syn, Stamp: stamp()})
	if !answered {
		now = now.Add(timeout)
		step(probe.Event{Kind: probe.UserTimeout})
		return
	}
	now = now.Add(10*time.Millisecond + time.Duration(uneven.IntN(1_000_000)))
	step(probe.Event{Kind: probe.SegmentArrives, Stamp: stamp(), Segment: probe.Segment{
		Flags: probe.SYN | probe.ACK, Seq: 7, Ack: 101, TTL: 60, Options: probe.Options{Set: probe.OptMSS, MSS: 1460},
	}})
	step(probe.Event{Kind: probe.SegmentSent, Stamp: stamp(), Segment: probe.Segment{Flags: probe.RST, Seq: 101}})
}

// whole is what the daemon keeps of a target after some probes at an interval. As in a real network
// none begins or takes just as long as the one before, which samples are written by.
func whole(tb testing.TB, interval time.Duration, probes int) float64 {
	const n = 300
	network := nowhere(tb, n)
	network.uneven = true
	before := heap()
	f := newFleet(tb, network, interval, time.Millisecond)
	used := 0.0
	after := time.Duration(probes)*interval + 2*time.Second
	f.run(after+time.Millisecond, map[time.Duration]func(){after: func() { used = heap() - before }})
	runtime.KeepAlive(f)
	return used / n
}

// defaultBuckets are those of a module that names none.
func defaultBuckets(tb testing.TB) []float64 {
	return newFleet(tb, nowhere(tb, 1), time.Hour, 0).config.Targets()[0].Module.Buckets
}
