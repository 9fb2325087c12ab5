package recorder_test

import (
	"runtime"
	"testing"

	"github.com/probed/probed/internal/recorder"
)

// BenchmarkMemory reports what a Recorder takes when it is full: of probes that are
// answered, and of such that fail now and then.
func BenchmarkMemory(b *testing.B) {
	for name, failing := range map[string]uint64{"answered": 0, "every tenth fails": 10} {
		b.Run(name, func(b *testing.B) {
			const targets = 1000
			var before, after runtime.MemStats
			all := make([]recorder.Recorder, targets)
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range all {
				for n := range uint64(recorder.MaxSamples) {
					h := answered(n, 1460)
					if failing > 0 && n%failing == 0 {
						h = silent(n)
					}
					all[i].Settled(&h.tr)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/targets, "B/target")
			b.ReportMetric(0, "ns/op")
			runtime.KeepAlive(all)
		})
	}
}

// BenchmarkSettled is what recording one probe costs.
func BenchmarkSettled(b *testing.B) {
	var r recorder.Recorder
	h := answered(1, 1460)
	b.ReportAllocs()
	for b.Loop() {
		h.tr.Number++
		r.Settled(&h.tr)
	}
}
