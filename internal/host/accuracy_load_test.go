package host_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A burden is what a machine or this process has to do besides. It goes on until ctx
// ends, and counts its rounds.
type burden struct {
	name string
	bear func(ctx context.Context, t *testing.T, a *lab.Host, s *engine.Shard, rounds *atomic.Int64)
}

// TestAccuracyUnderLoad compares round-trip times over a veth with a capture's while
// the processors are busy, the garbage collector runs all the time in this process,
// the metrics of 100,000 targets are scraped without a pause, and 10,000 targets are
// reloaded without a pause. docs/measurements.md has the figures of a machine that
// does nothing else; what is asserted here is what must hold on any: a bias of 1 µs and
// 2 µs at the 99th percentile, or what two captures lie apart, the best of three tries.
// Nothing of ours is booked as loss, in any of them.
func TestAccuracyUnderLoad(t *testing.T) {
	const perFamily, tries = 500, 3
	for _, b := range []burden{
		{"idle", func(context.Context, *testing.T, *lab.Host, *engine.Shard, *atomic.Int64) {}},
		{"both cores busy", spin},
		{"garbage", litter},
		{"scrapes of 100,000 targets", scrape},
		{"reloads of 10,000 targets", reload},
	} {
		t.Run(b.name, func(t *testing.T) {
			here, there := lab.Pair(t)
			serve(there)
			there.AnyIP("198.18.128.0/17")
			for range tries {
				each, apart := measureUnder(t, here, perFamily, b)
				median, p99 := max(time.Microsecond, apart.median*6/10), max(2*time.Microsecond, apart.p99*8/10)
				t.Logf("two captures are %v apart, p99 %v: allowed a bias of %v, p99 of the error %v", apart.median, apart.p99, median, p99)
				good := true
				for _, acc := range each {
					t.Log(acc)
					good = good && acc.median.Abs() <= median && acc.p99 <= p99
				}
				if good || t.Failed() {
					return
				}
			}
			t.Errorf("too far from the capture in %d tries", tries)
		})
	}
}

// measureUnder measures as measure does, under a burden.
func measureUnder(t *testing.T, a *lab.Host, n int, b burden) (each [2]accuracy, apart deviation) {
	t.Helper()
	books, own := [2]*ledger{newLedger(), newLedger()}, newSelf()
	var list []*engine.Target
	for i := range 20 {
		for family, text := range []string{fmt.Sprintf("198.18.64.%d:80", i+1), fmt.Sprintf("[2001:db8:1::%x]:80", i+1)} {
			list = append(list, target(uint64(2*i+family), netip.MustParseAddrPort(text), 100*time.Millisecond, time.Second, books[family]))
		}
	}
	beside := a.Capture(t, a.Iface(), "tcp")
	r := newRig(t, a, own, engine.Limits{Global: 1e6, PerAddress: 1e6})
	before := a.Capture(t, "any", "tcp")
	ctx, relieve := context.WithCancel(context.Background())
	var rounds atomic.Int64
	borne := make(chan struct{})
	go func() {
		defer close(borne)
		b.bear(ctx, t, a, r.shard, &rounds)
	}()
	await(t, 60*time.Second, "the burden", func() bool { return rounds.Load() > 0 || b.name == "idle" })
	r.shard.Update(list, nil)
	await(t, 60*time.Second, "all handshakes", func() bool { return books[0].settled() >= n && books[1].settled() >= n })
	r.rest(list)
	await(t, 5*time.Second, "the last answers", func() bool { return r.shard.Stats.Conversations.Load() < 40 })
	relieve()
	<-borne
	r.end()
	for family, l := range books {
		if l.verdicts[probe.OK]+l.discards[probe.DiscardShutdown] != l.settled() {
			t.Errorf("family %d: verdicts %v, discards %v", family, l.verdicts, l.discards)
		}
	}
	st := &r.shard.Stats
	t.Logf("%d rounds of it; schedule delay p50 %v, p99 %v, most %v; skipped %v; %d of %d segments received were not stamped by the kernel, %d frames dropped",
		rounds.Load(), own.delay(0.5), own.delay(0.99), own.delay(1), own.skips(), st.StampFallbacks.Load(), st.SegmentsReceived.Load(), st.TapDrops.Load())
	if got, received := st.StampFallbacks.Load(), st.SegmentsReceived.Load(); got != received {
		t.Errorf("over a veth the kernel stamps nothing that arrives: %d of %d received are counted", got, received)
	}
	theirs, others := captured(t, beside.Packets()), captured(t, before.Packets())
	var between []time.Duration
	for id, c := range theirs {
		if d, ok := c.synAck.Sub(others[id].synAck); ok && others[id].synAck.Wall != 0 {
			between = append(between, d)
		}
	}
	for family, l := range books {
		each[family] = compare(t, measured(l.transcripts), theirs)
	}
	return each, sumUp(between)
}

// spin keeps every processor busy.
func spin(ctx context.Context, t *testing.T, a *lab.Host, _ *engine.Shard, rounds *atomic.Int64) {
	for range runtime.NumCPU() {
		if err := a.Command(ctx, "sh", "-c", "while :; do :; done").Start(); err != nil {
			t.Error(err)
		}
	}
	rounds.Add(1)
	<-ctx.Done()
}

// litter has this process allocate as fast as it can, and the collector run whenever a
// tenth has come to what is in use.
func litter(ctx context.Context, _ *testing.T, _ *lab.Host, _ *engine.Shard, rounds *atomic.Int64) {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	type node struct {
		next *node
		_    [6]uint64
	}
	var kept [1 << 12]*node
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rounds.Add(1)
	for i := 0; ctx.Err() == nil; i++ {
		var list *node
		for range 100 {
			list = &node{next: list}
		}
		kept[i%len(kept)] = list
	}
	runtime.ReadMemStats(&after)
	rounds.Store(int64(after.NumGC - before.NumGC))
}

// scrape reads the metrics of 100,000 targets again and again, as Prometheus does.
func scrape(ctx context.Context, t *testing.T, _ *lab.Host, _ *engine.Shard, rounds *atomic.Int64) {
	m := metrics.New(metrics.Options{})
	for i := range 100_000 {
		x, err := m.AddTarget(metrics.Labels{Job: "edge", Module: "half_open", Target: fmt.Sprintf("198.18.%d.%d:%d", i>>8&0xff, i&0xff, i>>16)},
			metrics.TargetOptions{Kind: probe.HalfOpen, Buckets: []float64{0.001, 0.01, 0.1, 1}})
		if err != nil {
			t.Error(err)
			return
		}
		for k := range 10 {
			x.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: time.Millisecond << (k % 5)})
			x.Observe(&probe.Observation{Kind: probe.Verdict})
		}
	}
	server := httptest.NewServer(m.Handler(nil))
	defer server.Close()
	for ctx.Err() == nil {
		rounds.Add(1)
		resp, err := http.Get(server.URL) // gzip, as the client asks for by itself
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
	}
}

// reload puts one of two configurations in force, again and again, that differ in every
// one of 10,000 targets.
func reload(ctx context.Context, t *testing.T, _ *lab.Host, s *engine.Shard, rounds *atomic.Int64) {
	m := metrics.New(metrics.Options{})
	roster := targets.New(s, m, net.DefaultResolver, slog.New(slog.DiscardHandler))
	var list strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&list, "  - 198.18.%d.%d:80\n", 128+i>>8, i&0xff)
	}
	for round := 0; ctx.Err() == nil; round++ {
		text := fmt.Sprintf("modules: {m: {probe: half_open, ttl: %d}}\njobs:\n- name: many\n  module: m\n  interval: 10s\n  targets:\n%s", 60+round%2, list.String())
		c, err := config.Parse("reload.yml", []byte(text))
		if err != nil {
			t.Error(err)
			return
		}
		if errs := roster.Apply(c.Targets(), time.Minute); errs != nil {
			t.Error(errs)
			return
		}
		rounds.Add(1)
	}
	var text strings.Builder
	if err := m.WriteText(&text); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(text.String()) {
		if name, value, _ := strings.Cut(line, "} "); value != "0\n" && (strings.HasPrefix(name, "probed_probe_failures_total{") || strings.HasPrefix(name, "probed_probes_discarded_total{")) {
			t.Error(line)
		}
	}
}
