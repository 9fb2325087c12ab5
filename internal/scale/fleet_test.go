package scale

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A fleet is all that the daemon keeps of its targets, wired as cmd/probed does it, in a
// simulated network.
type fleet struct {
	network *network
	config  *config.Config
	metrics *metrics.Metrics
	roster  *targets.Roster
	shard   *engine.Shard
}

// wide are limits that no fleet comes near to.
var wide = engine.Limits{Global: 1_000_000, PerAddress: 200}

// nowhere is a network of n peers without books.
func nowhere(tb testing.TB, n int) *network {
	p := newPeers(tb, &scenario{perAddress: 1, rtts: usual[:6], limits: wide}, 0, n)
	p.blind = true
	return newNetwork(p, p.rtts)
}

// newFleet has all of a network's peers probed at an interval, each time by up to jitter later.
func newFleet(tb testing.TB, network *network, interval, jitter time.Duration) *fleet {
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "global: {interval: %v, jitter: %v, limits: {packets_per_second: 1000000}}\njobs:\n- name: edge\n  module: half_open\n  labels: {team: core}\n  targets:\n", interval, jitter)
	for i := range network.peers.subjects {
		_, remote := network.peers.tuple(int32(i), 0)
		fmt.Fprintf(&yaml, "  - %q\n", remote)
	}
	c, err := config.Parse("guard.yml", []byte(yaml.String()))
	if err != nil {
		tb.Fatal(err)
	}
	f := &fleet{network: network, config: c, metrics: metrics.New(metrics.Options{})}
	f.shard = engine.New(engine.Config{
		Network: f.network, Observer: observer{f.metrics}, Reserved: reserved, Guarded: engine.Ports{First: 61128, Last: 61255},
		Limits: wide, Seed: make([]byte, 20), Drain: time.Second,
	})
	f.roster = targets.New(f.shard, f.metrics, net.DefaultResolver, slog.New(slog.DiscardHandler))
	if errs := f.roster.Apply(c.Targets(), time.Minute); errs != nil {
		tb.Fatal(errs)
	}
	return f
}

// An observer books what concerns probed itself.
type observer struct{ *metrics.Metrics }

func (o observer) Skipped(r engine.SkipReason, n int) { o.Metrics.Skipped(r.String(), n) }
func (observer) Trouble(*engine.Target, error)        {}
func (observer) ClockStep(time.Duration)              {}
func (o observer) ScheduleDelay(d time.Duration)      { o.Metrics.ScheduleDelay(d) }

// run has time pass, and calls do at moments of it, counted from now.
func (f *fleet) run(d time.Duration, do map[time.Duration]func()) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for len(do) > 0 {
		next := time.Duration(math.MaxInt64)
		for at := range do {
			next = min(next, at)
		}
		f.network.at(f.network.now.Add(next), do[next])
		delete(do, next)
	}
	f.network.at(f.network.now.Add(d), func() {
		cancel()
		f.network.Wake()
	})
	f.shard.Run(ctx)
}

// An idler takes nothing in.
type idler struct{}

func (idler) Observe(*probe.Observation) {}
func (idler) Settled(*probe.Transcript)  {}
func (idler) Record(*probe.Transcript)   {}
