package probe_test

import (
	"testing"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

// TestStepAllocatesNothing plays every script's events, and asserts that Step
// leaves nothing to the garbage collector in any of them.
func TestStepAllocatesNothing(t *testing.T) {
	_, scripts := readScripts(t)
	for _, s := range scripts {
		events := s.Events(starts[0])
		if n := testing.AllocsPerRun(10, func() { playQuietly(s.Params, events) }); n != 0 {
			t.Errorf("%s: %v allocations", s.File, n)
		}
	}
}

func playQuietly(p probe.Params, events []script.Timed) (segments int) {
	c := probe.New(p)
	for i := range events {
		var out probe.Output
		c, out = probe.Step(c, events[i].At, events[i].Event)
		segments += len(out.Segments()) + len(out.Observations())
	}
	return segments
}

// BenchmarkStep is a whole answered conversation: OPEN, SYN seen, SYN-ACK, RST
// seen, TIME-WAIT TIMEOUT.
func BenchmarkStep(b *testing.B) {
	_, scripts := readScripts(b)
	for _, s := range scripts {
		if s.File != "testdata/script/syn_then_synack.script" {
			continue
		}
		events := s.Events(starts[0])
		b.ReportAllocs()
		for b.Loop() {
			playQuietly(s.Params, events)
		}
	}
}
