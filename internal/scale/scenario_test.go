package scale

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// A scenario is how many targets are probed, how, and for how long.
type scenario struct {
	targets    int
	shards     int // the targets are divided among
	perAddress int // ports of one address that are targets
	interval   time.Duration
	span       time.Duration   // of virtual time, once all targets are in the schedule
	settle     time.Duration   // after which memory must have come to rest
	rtts       []time.Duration // the peers', in equal shares; one beyond the timeout is the last
	limits     engine.Limits
	alike      bool          // all peers answer
	crowded    bool          // addresses are watched, each for its limit
	bound      time.Duration // how far a probe may be from its slot
}

// usual are round trips from next door to the antipodes, and one after the timeout.
var usual = []time.Duration{
	150 * time.Microsecond, 900 * time.Microsecond, 4 * time.Millisecond, 15 * time.Millisecond,
	40 * time.Millisecond, 90 * time.Millisecond, 250 * time.Millisecond, 1100 * time.Millisecond,
}

// byDefault are the limits of the configuration's defaults.
var byDefault = engine.Limits{Global: 20000, PerAddress: 200}

// A sample is how things stand at a moment.
type sample struct {
	heap    uint64 // octets, collected
	mallocs uint64
	probes  uint64
	cpu     time.Duration // of the process
	wall    time.Time
}

// An outcome is what a scenario came to.
type outcome struct {
	scenario
	worlds          []*world
	empty           sample // before there were targets
	settled, ending sample // after settle, and at the end of span
}

// A world is one shard and its network.
type world struct {
	*peers
	network *network
	shard   *engine.Shard
	began   probe.Instant // when all targets were in the schedule
	ended   probe.Instant
}

// play has a scenario happen, and holds the books against each other.
func play(tb testing.TB, s scenario) *outcome {
	tb.Helper()
	o := &outcome{scenario: s}
	part := func(k int) int { return k * s.targets / s.shards / s.perAddress * s.perAddress }
	for k := range s.shards {
		first, next := part(k), part(k+1)
		if k == s.shards-1 {
			next = s.targets
		}
		w := &world{peers: newPeers(tb, &s, first, next-first)}
		w.network = newNetwork(w.peers, s.rtts)
		o.worlds = append(o.worlds, w)
	}
	o.empty = o.sample()
	first := 0
	for _, w := range o.worlds {
		w.shard = engine.New(engine.Config{
			Network: w.network, Observer: w.peers, Reserved: reserved, Guarded: engine.Ports{First: 61128, Last: 61255},
			Limits: s.limits, Seed: make([]byte, 20), Drain: 3 * time.Second,
		})
		ts := make([]*engine.Target, len(w.subjects))
		for i := range ts {
			ts[i] = w.subjects[i].target(first)
		}
		first += len(ts)
		w.shard.Update(ts, nil)
	}
	settled := newMeeting(s.shards, func() { o.settled = o.sample() })
	ending := newMeeting(s.shards, func() { o.ending = o.sample() })
	var all sync.WaitGroup
	for _, w := range o.worlds {
		all.Go(func() { w.run(&s, settled.attend, ending.attend) })
	}
	all.Wait()
	for _, w := range o.worlds {
		w.audit()
	}
	return o
}

// run is the shard's loop from its beginning to its end.
func (w *world) run(s *scenario, settled, ending func()) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The list is taken in by pieces, between which probes go.
	var taken func()
	taken = func() {
		if int(w.shard.Stats.Targets.Load()) < len(w.subjects) {
			w.network.at(w.network.now.Add(10*time.Millisecond), taken)
			return
		}
		w.began = w.network.now
		w.network.at(w.began.Add(s.settle), settled)
		w.network.at(w.began.Add(s.span), func() {
			w.ended = w.network.now
			cancel()
			w.network.Wake()
			ending()
		})
	}
	w.network.at(w.network.now, taken)
	w.shard.Run(ctx)
}

// audit holds the books against each other.
func (w *world) audit() {
	if n := sumOf(w.skips[:]); n > 0 {
		w.errorf("%d probes were skipped: %v", n, w.skips)
	}
	if w.verdicts != w.probes || w.transcripts != w.probes {
		w.errorf("%d probes have %d verdicts and %d transcripts", w.probes, w.verdicts, w.transcripts)
	}
	if n := w.lateAnswers - w.lateSeen; n > uint64(w.network.n) { // what lies in the ring was not read before the end
		w.errorf("%d answers came late, and %d were seen", w.lateAnswers, w.lateSeen)
	}
	if n := w.shard.Stats.StampFallbacks.Load(); n != w.network.ownStamps {
		w.errorf("%d stamps were the tap's own, and %d were counted", w.network.ownStamps, n)
	}
	for i := range w.subjects {
		x := &w.subjects[i]
		// Where the last slot lies at the very end, it may be in or out.
		late := w.ended.Sub(x.first) - time.Duration(x.probes-1)*w.interval
		if x.probes == 0 || x.first.Sub(w.began) > w.interval+w.bound || late < -w.bound || late > w.interval+w.bound {
			w.errorf("target %d had %d probes, the first %v after the beginning", i, x.probes, x.first.Sub(w.began))
		}
		if x.verdicts != x.probes || x.open {
			w.errorf("target %d had %d verdicts of %d probes", i, x.verdicts, x.probes)
		}
	}
	if want := min(time.Duration(nPorts)*w.interval-w.bound-grain, w.ended.Sub(epoch)); w.reuse < want {
		w.errorf("a four-tuple was used again after %v, want %v", w.reuse, want)
	}
	if n := w.shard.Stats.Conversations.Load(); n != 0 {
		w.errorf("%d conversations are open at the end", n)
	}
	if w.errors > 10 {
		w.tb.Errorf("and %d more", w.errors-10)
	}
}

// sample measures. Nothing runs meanwhile.
func (o *outcome) sample() sample {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := sample{heap: m.HeapAlloc, mallocs: m.Mallocs, cpu: processTime(), wall: time.Now()}
	for _, w := range o.worlds {
		s.probes += w.probes
	}
	return s
}

// perTarget is the heap's octets a target at a moment, the simulation's own not
// included.
func (o *outcome) perTarget(at sample) float64 {
	return float64(int64(at.heap)-int64(o.empty.heap)) / float64(o.targets)
}

// allocations are those of each probe once memory has come to rest.
func (o *outcome) allocations() float64 {
	return float64(o.ending.mallocs-o.settled.mallocs) / float64(o.ending.probes-o.settled.probes)
}

// perProbe is the processor's time for each probe, the simulated network's included.
func (o *outcome) perProbe() time.Duration {
	return (o.ending.cpu - o.settled.cpu) / time.Duration(o.ending.probes-o.settled.probes)
}

// alone is the processor's time that the simulated network and the books take of
// each probe: the peers of the first shard are sent SYNs as the engine did, and nobody
// reads what comes.
func (o *outcome) alone() time.Duration {
	const n = 500_000
	w := o.worlds[0]
	w.blind = true
	syn := probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{
		Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale, MSS: 1460, WindowScale: 7,
	}}
	gap := o.interval / time.Duration(len(w.subjects))
	var segment []byte
	before := processTime()
	for i := range n {
		local, remote := w.tuple(int32(mix(uint64(i))%uint64(len(w.subjects))), reserved.First)
		segment = wire.AppendTCP(segment[:0], &probe.FourTuple{Local: local, Remote: remote}, &syn, nil)
		w.network.Queue(engine.Packet{Segment: segment, Src: local.Addr(), Dst: remote.Addr()})
		w.network.Flush(nil)
		w.network.Wait(gap, false)
		w.network.Receive(64, func(*engine.Frame) {})
	}
	return (processTime() - before) / n
}

// processTime is what this process has used of the processors.
func processTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// String tells what came of it.
func (o *outcome) String() string {
	var delays [1000]uint64
	var reasons [probe.NumReasons]uint64
	var longest time.Duration
	var peak uint64
	reuse := time.Duration(1 << 62)
	width := int32(0)
	for _, w := range o.worlds {
		for i, n := range w.delays {
			delays[i] += n
		}
		for r, n := range w.reasons {
			reasons[r] += n
		}
		longest, peak, reuse = max(longest, w.longest), peak+w.peak, min(reuse, w.reuse)
		for i := range w.subjects {
			width = max(width, w.subjects[i].most-w.subjects[i].least)
		}
	}
	text := fmt.Sprintf("%d targets at %v for %v: %d probes, %d a second at most", o.targets, o.interval, o.span, sumOf(reasons[:]), peak)
	for r, n := range reasons {
		if n > 0 {
			text += fmt.Sprintf(", %d %v", n, probe.Reason(r))
		}
	}
	text += fmt.Sprintf("\n%.1f s of ours, %v of processor a probe with its network, %.6f allocations",
		o.ending.wall.Sub(o.empty.wall).Seconds(), o.perProbe(), o.allocations())
	text += fmt.Sprintf("\n%.0f octets a target after %v, %.0f at the end", o.perTarget(o.settled), o.settle, o.perTarget(o.ending))
	text += fmt.Sprintf("\nschedule delay p50 %v, p99 %v, most %v; no two slots of a target were further than %v from the interval",
		quantile(delays[:], 0.5), quantile(delays[:], 0.99), longest, time.Duration(width))
	if reuse < 1<<62 {
		text += fmt.Sprintf("\na four-tuple came again after %v", reuse)
	}
	return text
}

// quantile is the upper end of the bucket of 10 µs that a quantile lies in.
func quantile(counts []uint64, q float64) time.Duration {
	want, n := uint64(q*float64(sumOf(counts))), uint64(0)
	for i, c := range counts {
		if n += c; n > want {
			return time.Duration(i+1) * 10 * time.Microsecond
		}
	}
	return time.Duration(len(counts)) * 10 * time.Microsecond
}

func sumOf(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// A meeting is where all shards wait until something is done, which the last of them
// to come does.
type meeting struct {
	mu      sync.Mutex
	missing int
	do      func()
	over    chan struct{}
}

func newMeeting(n int, do func()) *meeting {
	return &meeting{missing: n, do: do, over: make(chan struct{})}
}

func (m *meeting) attend() {
	m.mu.Lock()
	m.missing--
	last := m.missing == 0
	m.mu.Unlock()
	if last {
		m.do()
		close(m.over)
	}
	<-m.over
}
