package targets

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe/engine"
)

// A fleet is what the daemon keeps of its targets: the configuration, the roster,
// the engine, the metrics and the recorders, wired as cmd/probed wires them.
type fleet struct {
	config  *config.Config
	roster  *Roster
	metrics *metrics.Metrics
	shard   *engine.Shard
	network *reflector
}

// apart is the interval of a fleet's targets: long, so that few conversations
// are open at a time. Those are not what is counted here.
const apart = 20 * time.Second

// newFleet has n half_open targets in the schedule, of which one in failing, if that
// is not 0, is not answered.
func newFleet(tb testing.TB, n, failing int) *fleet {
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "global: {interval: 20s, timeout: 900ms, limits: {packets_per_second: 1000000}}\njobs:\n- name: edge\n  module: half_open\n  labels: {team: core, site: fra2}\n  targets:\n")
	for i := range n {
		fmt.Fprintf(&yaml, "  - 198.18.%d.%d:%d\n", i>>8&0xff, i&0xff, 443+i>>16)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	f := &fleet{
		metrics: metrics.New(metrics.Options{}),
		network: &reflector{rtt: func() time.Duration {
			if failing > 0 && rng.IntN(failing) == 0 {
				return 0
			}
			return time.Duration(1e9 * 3e-3 * math.Exp2(rng.NormFloat64()*0.6))
		}},
	}
	var err error
	if f.config, err = config.Parse("test.yml", []byte(yaml.String())); err != nil {
		tb.Fatal(err)
	}
	f.shard = engine.New(engine.Config{
		Network: f.network, Observer: mute{f.metrics},
		Reserved: engine.Ports{First: 61000, Last: 61127}, Guarded: engine.Ports{First: 61128, Last: 61255},
		Limits: engine.Limits{Global: 1_000_000, PerAddress: 200},
	})
	f.roster = New(f.shard, f.metrics, &zone{}, slog.New(slog.DiscardHandler))
	if refused := f.roster.Apply(f.config.Targets(), time.Minute); refused != nil {
		tb.Fatal(refused)
	}
	return f
}

// run has time pass.
func (f *fleet) run(d time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f.network.until, f.network.stop = f.network.now.Add(d), cancel
	f.shard.Run(ctx)
}

// A mute observer complains of nothing.
type mute struct{ *metrics.Metrics }

func (m mute) Skipped(r engine.SkipReason, n int) { m.Metrics.Skipped(r.String(), n) }
func (mute) Trouble(*engine.Target, error)        {}
func (mute) ClockStep(time.Duration)              {}

// held is what is in use on the heap.
func held() (octets, objects int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.HeapObjects)
}

// Of a target that has not been probed the daemon keeps 2 KiB at most, and 6 KiB of one
// whose recorder is full, in few pieces: the collector goes through all of them.
func TestMemoryPerTarget(t *testing.T) {
	for _, tt := range []struct {
		state   string
		targets int
		passes  time.Duration // n targets are not taken in at once
		octets  int
		objects float64
	}{
		{"idle", 4000, time.Second, 2 << 10, 9},
		{"warm", 160, (recorder.MaxSamples + 4) * apart, 6 << 10, 16},
	} {
		few := tt.targets / 4
		octets, objects := kept(t, few, tt.passes)
		most, pieces := kept(t, tt.targets, tt.passes)
		each, apiece := (most-octets)/(tt.targets-few), float64(pieces-objects)/float64(tt.targets-few)
		if t.Logf("%s: %d octets a target, in %.1f objects", tt.state, each, apiece); each > tt.octets || apiece > tt.objects {
			t.Errorf("%s: %d octets a target, in %.1f objects; want at most %d in %v", tt.state, each, apiece, tt.octets, tt.objects)
		}
	}
}

// kept is what the daemon keeps of n targets after a time, and what it has anyway.
func kept(t *testing.T, n int, passes time.Duration) (octets, objects int) {
	before, pieces := held()
	f := newFleet(t, n, 0)
	f.run(passes)
	octets, objects = held()
	runtime.KeepAlive(f)
	return octets - before, objects - pieces
}

// BenchmarkMemory says what the daemon keeps of a target, room by room, of targets
// that have not been probed yet and of such whose recorders are full.
func BenchmarkMemory(b *testing.B) {
	const n = 1000
	rate := runtime.MemProfileRate
	defer func() { runtime.MemProfileRate = rate }()
	runtime.MemProfileRate = 1
	begin := rooms()
	f := newFleet(b, n, 0)
	f.run(time.Second) // n targets are not taken in at once
	idle := rooms()
	f.run((recorder.MaxSamples + 4) * apart)
	warm := rooms()
	for _, state := range []struct {
		name string
		in   map[string]use
	}{{"idle", idle}, {"warm", warm}} {
		var all use
		for _, room := range slices.Sorted(maps.Keys(state.in)) {
			u := state.in[room]
			u.octets -= begin[room].octets
			u.objects -= begin[room].objects
			all.octets += u.octets
			all.objects += u.objects
			if u.octets > n {
				fmt.Printf("%s %-60s %6d octets %5.1f objects a target\n", state.name, room, u.octets/n, float64(u.objects)/n)
			}
		}
		b.ReportMetric(float64(all.octets)/n, state.name+"-B/target")
		b.ReportMetric(float64(all.objects)/n, state.name+"-objects/target")
	}
	b.ReportMetric(0, "ns/op")
	runtime.KeepAlive(f)
}

type use struct{ octets, objects int64 }

// rooms is what is in use on the heap by the function of ours that asked for it.
func rooms() map[string]use {
	runtime.GC()
	runtime.GC()
	var records []runtime.MemProfileRecord
	for n, ok := 0, false; !ok; {
		records = make([]runtime.MemProfileRecord, n+100)
		n, ok = runtime.MemProfile(records, false)
		if ok {
			records = records[:n]
		}
	}
	all := make(map[string]use)
	for i := range records {
		r := &records[i]
		if r.InUseObjects() == 0 {
			continue
		}
		frames := runtime.CallersFrames(r.Stack())
		name := "others"
		for {
			frame, more := frames.Next()
			if rest, ours := strings.CutPrefix(frame.Function, "github.com/probed/probed/"); ours {
				name = rest
				break
			}
			if !more {
				break
			}
		}
		u := all[name]
		all[name] = use{u.octets + r.InUseBytes(), u.objects + r.InUseObjects()}
	}
	return all
}
