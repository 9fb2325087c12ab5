package metrics

import (
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// TestObserversAndScrapes runs two engine loops, scrapes of both formats,
// reloads that come and go, and checks the sums at the end. Its worth is under
// the race detector.
func TestObserversAndScrapes(t *testing.T) {
	const loops, targets, rounds = 2, 20, 300
	m := New(Options{Stats: func() Stats { return Stats{} }})
	var engines, scrapes sync.WaitGroup
	done := make(chan struct{})
	for loop := range loops {
		var own []*Target
		for i := range targets {
			own = append(own, mustAdd(t, m, Labels{Job: strconv.Itoa(loop), Target: strconv.Itoa(i)}, TargetOptions{
				Kind: probe.Kind(i % 5), Measure: probe.Measure(i % 3), Buckets: usualBuckets,
			}))
		}
		engines.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(loop), 1))
			for range rounds {
				for _, target := range own {
					for _, o := range answered(time.Duration(rng.Uint64() >> (20 + rng.UintN(20)))) {
						target.Observe(&o)
					}
					for _, o := range closed(time.Duration(rng.Uint64() >> (20 + rng.UintN(20)))) {
						target.Observe(&o)
					}
					target.Observe(&probe.Observation{Kind: probe.Rejected, Reject: probe.RejectBadACK})
				}
				m.ScheduleDelay(time.Microsecond)
				m.Skipped("late", 1)
			}
		})
	}
	for _, write := range []func(io.Writer) error{m.WriteText, m.WriteProtobuf} {
		scrapes.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := write(io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
	}
	scrapes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			target, err := m.AddTarget(Labels{Job: "reload", Target: strconv.Itoa(i % 3)}, TargetOptions{Buckets: usualBuckets})
			if err != nil {
				t.Error(err)
				return
			}
			if err := m.Reconfigure(target, TargetOptions{Kind: probe.Kind(i % 5), Flows: i, Buckets: []float64{1}}); err != nil {
				t.Error(err)
			}
			target.Observe(&probe.Observation{Kind: probe.Teardown, Form: probe.FourWay})
			m.ConfigReload(true, time.UnixMilli(int64(i)))
			m.RemoveTarget(target)
		}
	})
	engines.Wait()
	close(done)
	scrapes.Wait()

	for _, metric := range gathered(t, m, "probed_handshake_rtt_seconds").Metric {
		if n := metric.Histogram.GetSampleCount(); n != rounds {
			t.Errorf("%v: %d handshakes, want %d", metric.Label, n, rounds)
		}
	}
	if n := gathered(t, m, "probed_reaction_seconds").Metric[0].Histogram.GetSampleCount(); n != loops*targets*rounds {
		t.Errorf("%d reactions, want %d", n, loops*targets*rounds)
	}
	if n := gathered(t, m, "probed_probes_skipped_total").Metric[0].Counter.GetValue(); n != loops*rounds {
		t.Errorf("%v skipped, want %d", n, loops*rounds)
	}
}
