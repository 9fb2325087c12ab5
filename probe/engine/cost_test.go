package engine

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
)

// A nobody listens and keeps nothing.
type nobody struct{}

func (nobody) Observe(*probe.Observation)  {}
func (nobody) Settled(*probe.Transcript)   {}
func (nobody) Record(*probe.Transcript)    {}
func (nobody) ScheduleDelay(time.Duration) {}
func (nobody) Skipped(SkipReason, int)     {}
func (nobody) Trouble(*Target, error)      {}
func (nobody) ClockStep(time.Duration)     {}

// steady is a world with n targets at 1 s that has run long enough to have all
// the memory that it needs.
func steady(tb testing.TB, n int) *world {
	w := newWorld(tb, func(c *Config) { c.Observer = nobody{}; c.Limits = Limits{Global: 1 << 20, PerAddress: 200} })
	w.onWait = nil // which allocates
	w.peer = listening(10 * time.Millisecond)
	w.add(w.targets(n, func(t *Target) { t.Sink, t.Recorder = nobody{}, nobody{} })...)
	w.turns(5 * time.Second)
	return w
}

func (w *world) turns(d time.Duration) {
	for end := w.now.Add(d); w.now < end; {
		w.Wait(w.shard.turn(true), false)
	}
}

// Probing allocates nothing, transcripts included. What is left is the growth
// of maps and rings, which ends.
func TestNoAllocation(t *testing.T) {
	for name, peer := range map[string]peerFunc{"answered": listening(10 * time.Millisecond), "refused": closed(10 * time.Millisecond), "silence": silent} {
		t.Run(name, func(t *testing.T) {
			w := steady(t, 2000)
			w.peer = peer
			w.turns(12 * time.Second)
			before := w.queued
			allocs := testing.AllocsPerRun(1, func() { w.turns(5 * time.Second) })
			if probes := (w.queued - before) / 2; allocs > float64(probes)/1000 {
				t.Errorf("%v allocations for %d probes", allocs, probes)
			}
		})
	}
}

// What each of half a million conversations takes, and each target, does not grow
// unnoticed. Two cache lines a conversation, and what tells its timers.
func TestOctets(t *testing.T) {
	for _, x := range []struct {
		what       string
		size, most uintptr
	}{
		{"a conversation's slot", unsafe.Sizeof(slot{}), 128},
		{"its alarm", unsafe.Sizeof(alarm{}), 24},
		{"its cell", unsafe.Sizeof(cell{}), 8},
		{"its compact form", unsafe.Sizeof(probe.Compact{}), 56},
		{"an entry", unsafe.Sizeof(entry{}), 288},
		{"a peer", unsafe.Sizeof(peer{}), 80},
		{"a target", unsafe.Sizeof(Target{}), 240},
		{"an address", unsafe.Sizeof(address{}), 144},
		{"a frame", unsafe.Sizeof(frame{}), 384},
	} {
		if x.size > x.most {
			t.Errorf("%s takes %d octets, %d are allowed", x.what, x.size, x.most)
		}
		t.Logf("%s: %d octets", x.what, x.size)
	}
}

// BenchmarkProbe is the processor time of one answered probe, the simulated
// network's share included: SYN, SYN-ACK and the kernel's RST.
func BenchmarkProbe(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := steady(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			first := w.queued
			for w.queued-first < b.N {
				w.Wait(w.shard.turn(true), false)
			}
		})
	}
}
