package metrics

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

func TestObserveDoesNotAllocate(t *testing.T) {
	m := New(Options{SkipReasons: []string{"overload"}})
	for _, w := range append(ways, way{name: "half_open"}) {
		target := mustAdd(t, m, Labels{Job: "edge", Target: "198.18.0.10:443", Module: w.name},
			TargetOptions{Kind: w.kind, Measure: w.measure, Buckets: usualBuckets})
		o := w.observed()
		for i := range o {
			target.Observe(&o[i])
		}
		m.ScheduleDelay(time.Microsecond)
		if n := testing.AllocsPerRun(1000, func() {
			for i := range o {
				target.Observe(&o[i])
			}
			target.ObserveAll(o)
			m.ScheduleDelay(time.Microsecond)
			m.Skipped("overload", 1)
		}); n != 0 {
			t.Errorf("%s: one probe's observations allocate %v times", w.name, n)
		}
	}
}

// TestHistogramAllocationsEnd feeds latencies over all octaves that a
// handshake can take: allocations stop once every bucket was reached.
func TestHistogramAllocationsEnd(t *testing.T) {
	h := newHistogram(mustBounds(usualBuckets))
	rng := rand.New(rand.NewPCG(1, 2))
	latency := func() time.Duration { return time.Duration(1000 << rng.IntN(23)) }
	for range 1000 {
		h.observe(latency())
	}
	if n := testing.AllocsPerRun(1000, func() { h.observe(latency()) }); n != 0 {
		t.Errorf("a warm histogram allocates %v times an observation", n)
	}
}

func TestObserveIgnoresWhatItDoesNotKnow(t *testing.T) {
	m := New(Options{})
	var target *Target
	for way := range 256 {
		target = mustAdd(t, m, Labels{Target: strconv.Itoa(way)},
			TargetOptions{Kind: probe.Kind(way), Measure: probe.Measure(way), Buckets: usualBuckets})
		for kind := range 256 {
			target.Observe(&probe.Observation{
				Kind: probe.ObservationKind(kind), Reason: 255, Discard: 255, Reject: 255,
				Form: 255, Side: 255, Answer: 255, Duration: -1,
			})
		}
	}
	target.Observe(&probe.Observation{Kind: probe.PeerSeen, Peer: probe.Fingerprint{WindowScale: 99, SYNCookies: 255}})
	if _, err := m.Gather(); err != nil {
		t.Error(err)
	}
}

func TestPeerChanges(t *testing.T) {
	base := probe.Fingerprint{TTL: 60, MSS: 1460, WindowScale: 7, SACK: true, Timestamps: true, Window: 65160}
	with := func(change func(*probe.Fingerprint)) probe.Fingerprint {
		p := base
		change(&p)
		return p
	}
	for _, c := range []struct {
		name string
		seen []probe.Fingerprint
		want [probe.NumTraits]uint64
	}{
		{"the first is no change", []probe.Fingerprint{base}, [probe.NumTraits]uint64{}},
		{"the window is noise", []probe.Fingerprint{base, with(func(p *probe.Fingerprint) { p.Window = 1 })}, [probe.NumTraits]uint64{}},
		{
			"another initial TTL over as many hops",
			[]probe.Fingerprint{base, with(func(p *probe.Fingerprint) { p.TTL = 124 })},
			[probe.NumTraits]uint64{},
		},
		{
			"hops, there and back",
			[]probe.Fingerprint{base, with(func(p *probe.Fingerprint) { p.TTL = 59 }), base},
			[probe.NumTraits]uint64{probe.TraitHops: 2},
		},
		{
			"each trait",
			[]probe.Fingerprint{base, {TTL: 50, MSS: 1400, WindowScale: -1, ECN: true}},
			[probe.NumTraits]uint64{probe.TraitHops: 1, probe.TraitMSS: 1, probe.TraitWindowScale: 1, probe.TraitSACK: 1, probe.TraitTimestamps: 1, probe.TraitECN: 1},
		},
		{
			"syn cookies: unknown is no change, and what was known last stays",
			[]probe.Fingerprint{
				base,
				with(func(p *probe.Fingerprint) { p.SYNCookies = probe.No }),
				base,
				with(func(p *probe.Fingerprint) { p.SYNCookies = probe.Yes }),
				base,
			},
			[probe.NumTraits]uint64{probe.TraitSYNCookies: 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var target Target
			for _, p := range c.seen {
				target.sees(&p)
			}
			var n counts
			target.load(&n)
			if n.changes != c.want {
				t.Errorf("changes %v, want %v", n.changes, c.want)
			}
		})
	}
}

func TestDuplicateTarget(t *testing.T) {
	m := New(Options{})
	l := Labels{Job: "edge", Target: "a:1", Module: "half_open", Extra: map[string]string{"team": "core"}}
	first := mustAdd(t, m, l, TargetOptions{Buckets: usualBuckets})
	if _, err := m.AddTarget(l, TargetOptions{Buckets: usualBuckets}); !errors.Is(err, ErrDuplicate) {
		t.Errorf("the second: %v, want ErrDuplicate", err)
	}
	m.RemoveTarget(first)
	second := mustAdd(t, m, l, TargetOptions{Buckets: usualBuckets})
	m.RemoveTarget(first) // gone already: must not take the second with it
	if got := m.snapshot().all; len(got) != 1 || got[0] != second {
		t.Errorf("targets %v, want the second alone", got)
	}
}

// answered is what one answered half_open probe gives.
func answered(rtt time.Duration) []probe.Observation {
	return []probe.Observation{
		{Kind: probe.HandshakeRTT, Duration: rtt},
		{Kind: probe.PeerSeen, Peer: probe.Fingerprint{
			TTL: 60, MSS: 1460, WindowScale: 7, SACK: true, Timestamps: true, SYNCookies: probe.No, Window: 65160,
		}},
		{Kind: probe.Reaction, Duration: 10 * time.Microsecond},
		{Kind: probe.Verdict, Reason: probe.OK},
	}
}

func mustAdd(t testing.TB, m *Metrics, l Labels, o TargetOptions) *Target {
	t.Helper()
	target, err := m.AddTarget(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// Observations that come together count as they do one by one.
func TestObserveAll(t *testing.T) {
	one, all := New(Options{}), New(Options{})
	for _, w := range append(ways, way{name: "half_open"}) {
		l := Labels{Job: "edge", Target: "198.18.0.10:443", Module: w.name}
		options := TargetOptions{Kind: w.kind, Measure: w.measure, Buckets: usualBuckets, Flows: 2}
		a, b := mustAdd(t, one, l, options), mustAdd(t, all, l, options)
		o := append(w.observed(), probe.Observation{Kind: probe.Verdict, Reason: probe.Timeout, Port: 61001},
			probe.Observation{Kind: probe.Reaction, Duration: time.Microsecond}, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardReload},
			probe.Observation{Kind: probe.Reaction, Duration: time.Second}, probe.Observation{Kind: probe.Rejected, Reject: probe.RejectNoACK},
			probe.Observation{Kind: probe.SYNACKLate}, probe.Observation{Kind: probe.SYNACKDuplicate})
		for i := range o {
			a.Observe(&o[i])
		}
		b.ObserveAll(o)
	}
	var want, got strings.Builder
	if err := errors.Join(one.WriteText(&want), all.WriteText(&got)); err != nil || got.String() != want.String() {
		t.Errorf("%v: got\n%s\nwant\n%s", err, &got, &want)
	}
}
