package targets

import (
	"fmt"
	"testing"

	"github.com/probed/probed/internal/recorder"
)

// BenchmarkFleet is one answered probe as the daemon makes it, in a simulated network:
// the engine, with metrics and recorders that are full. What the network costs itself,
// half a microsecond or so, is among it.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newFleet(b, n, 0)
			f.run((recorder.MaxSamples + 4) * apart)
			b.ReportAllocs()
			b.ResetTimer()
			probes := 0
			for probes < b.N {
				f.run(apart)
				probes += n
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(probes), "ns/probe")
			b.ReportMetric(0, "ns/op")
		})
	}
}
