package targets

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A maker is an Engine that makes the probes of targets with a count, each after a
// second, as failures to open.
type maker struct {
	mu    sync.Mutex
	made  []engine.Target
	gone  []*engine.Target
	never bool // makes none
}

func (m *maker) Update(add, remove []*engine.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = append(m.gone, remove...)
	for _, e := range add {
		if e.Count == 0 || m.never {
			continue
		}
		m.made = append(m.made, *e)
		go func() {
			time.Sleep(time.Second)
			o := probe.Observation{Kind: probe.Verdict, Reason: probe.Timeout}
			var t probe.Transcript
			t.Reset(probe.FourTuple{Remote: e.Remote}, e.Params.Kind)
			t.NotOpened(1, &o)
			e.Sink.Observe(&o)
			e.Recorder.Settled(&t)
			e.Recorder.Record(&t)
		}()
	}
}

// making runs a test on a roster with a maker, in a bubble.
func making(t *testing.T, test func(w *world, m *maker)) {
	synctest.Test(t, func(t *testing.T) {
		w, m := newWorld(t), new(maker)
		w.Roster.engine = m
		test(w, m)
	})
}

func one(t testing.TB, address string) *config.Target {
	t.Helper()
	target, err := parse(t, "modules: {m: {probe: half_open, ip_protocol: ip4, flows: 4}}\njobs: []").One("m", address)
	if err != nil {
		t.Fatal(err)
	}
	return &target
}

// anywhere lets whoever asks have anything probed.
func anywhere(netip.Addr) error { return nil }

// Once makes one probe of a target that nobody has configured.
func TestOnce(t *testing.T) {
	for _, tt := range []struct{ what, address, remote string }{
		{"an address", "198.18.0.9:80", "198.18.0.9:80"},
		{"a name", "db.test:80", "198.18.0.1:80"},
		{"a name that does not exist", "none.test:80", "invalid AddrPort"},
		{"a name without such addresses", "six.test:80", "invalid AddrPort"},
		{"a name with one answer of two", "half.test:80", "198.18.0.3:80"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			making(t, func(w *world, m *maker) {
				w.dns.set("db.test", "198.18.0.1", "198.18.0.2")
				w.dns.set("six.test", "2001:db8::1")
				w.dns.reply("half.test", reply{err: &half{[]netip.Addr{netip.MustParseAddr("198.18.0.3")}, "ip6", errServer}})
				tr, err := w.Once(w.Context(), one(w, tt.address), anywhere)
				if err != nil {
					w.Fatal(err)
				}
				if r, _, ok := tr.Settled(); !ok || r != probe.Timeout || tr.Tuple.Remote.String() != tt.remote {
					t.Errorf("%v of %v", r, tr.Tuple.Remote)
				}
				if len(m.made) != 1 || m.made[0].Count != 1 || m.made[0].Flows > 1 || len(m.gone) != 1 {
					t.Errorf("made %+v, removed %d", m.made, len(m.gone))
				}
				if w.series() != "" {
					t.Errorf("it has series: %s", w.series())
				}
			})
		})
	}
}

// Without a verdict there is an error, and the target leaves the engine.
func TestOnceFails(t *testing.T) {
	making(t, func(w *world, m *maker) {
		w.dns.reply("db.test", reply{err: errServer})
		if _, err := w.Once(w.Context(), one(w, "db.test:80"), anywhere); !errors.Is(err, errServer) {
			t.Errorf("a failed look-up: %v", err)
		}
		m.never = true
		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		defer cancel()
		if _, err := w.Once(ctx, one(w, "198.18.0.1:80"), anywhere); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no probe is made: %v", err)
		}
		if len(m.made) != 0 || len(m.gone) != 1 {
			t.Errorf("made %d, removed %d", len(m.made), len(m.gone))
		}
	})
}

// Now makes one more probe of a configured target, and books it.
func TestNow(t *testing.T) {
	making(t, func(w *world, m *maker) {
		w.load(`jobs: [{name: j, module: half_open, targets: ["198.18.0.1:80"]}]`)
		v := w.Views()[0]
		if _, err := w.Now(w.Context(), &v); err != nil {
			w.Fatal(err)
		}
		if s := v.Metrics.Summary(); s.Probes != 1 || s.Failed() != 1 || s.Failures[probe.Timeout] != 1 || s.Success {
			t.Errorf("booked %+v", s)
		}
		if all := v.Recorder.Failed(); len(all) != 1 {
			t.Errorf("%d transcripts", len(all))
		}
		if len(m.made) != 1 || m.made[0].Remote.String() != "198.18.0.1:80" {
			t.Errorf("made %+v", m.made)
		}
	})
}

// Views are in the configuration's order, and an ID finds each.
func TestViews(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "198.18.0.2", "198.18.0.1")
		w.dns.reply("slow.test", reply{delay: time.Minute})
		w.load(`
modules: {m: {probe: half_open, resolve: all}}
jobs:
- {name: z, module: m, targets: ["db.test:80", "slow.test:80"]}
- {name: a, module: active_close, targets: ["198.18.0.3:80"], labels: {team: core}}
`)
		w.settle()
		var got []string
		for _, v := range w.Views() {
			got = append(got, v.Target.Job+" "+v.Target.Address+" "+v.IP+" "+v.Remote.String())
			same, ok := w.View(v.ID)
			if !ok || same.Metrics != v.Metrics || same.Recorder != v.Recorder || len(v.ID) != 16 {
				t.Errorf("ID %q finds %+v", v.ID, same)
			}
		}
		want := []string{"z db.test:80 198.18.0.1 198.18.0.1:80", "z db.test:80 198.18.0.2 198.18.0.2:80", "a 198.18.0.3:80  198.18.0.3:80"}
		if !slices.Equal(got, want) {
			t.Errorf("views %q, want %q", got, want)
		}
		if _, ok := w.View("0000000000000000"); ok {
			t.Error("an ID of nobody finds something")
		}
		was := w.Views()[2]
		w.load(`jobs: [{name: a, module: active_close, interval: 10s, targets: ["198.18.0.3:80"], labels: {team: core}}]`)
		if v := w.Views()[0]; v.ID != was.ID || v.Recorder != was.Recorder || v.Interval != 10*time.Second {
			t.Errorf("after a reload %+v, before %+v", v, was)
		}
	})
}
