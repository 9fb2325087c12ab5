package recorder_test

import (
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

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

// BenchmarkSettled is what recording one probe costs, of one target and of so many that
// none is in the processor's cache.
func BenchmarkSettled(b *testing.B) {
	for _, n := range []int{1, 20000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			all := make([]recorder.Recorder, n)
			h := answered(1, 1460)
			i, cpu := 0, spent()
			b.ReportAllocs()
			for b.Loop() {
				r := &all[i%n]
				i++
				h.tr.Number++
				h.tr.Offset += 1e9 / int64(n)
				r.Settled(&h.tr)
			}
			b.ReportMetric(float64(spent()-cpu)/float64(b.N), "cpu-ns/op")
		})
	}
}

// spent is the processor time of this process: others on the machine don't count.
func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
