package host_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// BenchmarkPacing probes a host whose kernel runs on a core of its own and reports what
// bursts and the pauses between them do to the round trips themselves: by the stamps of
// the packets, as a capture has them. A burst that is too large measures its own queue.
// Run it with taskset -c 0, for the peer has the other core.
func BenchmarkPacing(b *testing.B) {
	for _, rate := range []int{1000, 10_000, 50_000, 100_000} {
		for _, p := range []struct {
			burst int
			gap   time.Duration
		}{{1, 20 * time.Microsecond}, {4, 50 * time.Microsecond}, {16, 50 * time.Microsecond}, {16, 200 * time.Microsecond}, {64, 50 * time.Microsecond}, {1000, 1}} {
			name := fmt.Sprintf("rate=%d/burst=%d/gap=%v", rate, p.burst, p.gap)
			if p.burst == 1000 {
				name = fmt.Sprintf("rate=%d/unpaced", rate)
			}
			b.Run(name, func(b *testing.B) {
				for range b.N {
					benchmarkPacing(b, rate, p.burst, p.gap)
				}
			})
		}
	}
}

// A timing is a sink that keeps round trips, of all targets of a shard.
type timing struct {
	rtts []time.Duration
	lost int
}

func (t *timing) Observe(o *probe.Observation) {
	switch {
	case o.Kind == probe.HandshakeRTT:
		t.rtts = append(t.rtts, o.Duration)
	case o.Kind == probe.Verdict && o.Reason != probe.OK, o.Kind == probe.Discarded:
		t.lost++
	}
}

func benchmarkPacing(b *testing.B, rate, burst int, gap time.Duration) {
	const seconds = 3
	here, there := lab.Pair(b)
	there.AnyIP("198.19.0.0/16")
	there.Backlog(netip.AddrPortFrom(netip.IPv4Unspecified(), 80), 65536)
	there.Sysctl("net.ipv4.tcp_max_syn_backlog", "262144")
	alone(b, there)
	sink := &timing{rtts: make([]time.Duration, 0, (seconds+3)*rate)}
	o := newSelf()
	o.delays = make([]time.Duration, 0, (seconds+3)*rate)
	r := newRigOf(b, here, engine.Config{Observer: o, Burst: burst, BurstGap: gap,
		Limits: engine.Limits{Global: 1 << 20, PerAddress: 1 << 20}})
	n := min(rate, 50_000)
	targets := make([]*engine.Target, n)
	for i := range targets {
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 80)
		targets[i] = target(uint64(i), remote, time.Duration(n)*time.Second/time.Duration(rate), 900*time.Millisecond, nil)
		targets[i].Sink, targets[i].Recorder = sink, nil
	}
	r.shard.Update(targets, nil)
	time.Sleep(2 * time.Second)
	before, _ := usage(b)
	began := time.Now()
	sent := r.shard.Stats.SegmentsReceived.Load()
	time.Sleep(seconds * time.Second)
	after, _ := usage(b)
	probes := r.shard.Stats.SegmentsReceived.Load() - sent
	took := time.Since(began)
	r.end()
	p := func(all []time.Duration, q float64) float64 {
		slices.Sort(all)
		return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1e3
	}
	b.ReportMetric(p(sink.rtts, 0.5), "rtt-p50-µs")
	b.ReportMetric(p(sink.rtts, 0.99), "rtt-p99-µs")
	b.ReportMetric(p(o.delays, 0.5), "delay-p50-µs")
	b.ReportMetric(p(o.delays, 0.99), "delay-p99-µs")
	b.ReportMetric(float64(probes)/took.Seconds(), "probes/s")
	b.ReportMetric(float64((after-before).Nanoseconds())/float64(probes)/1e3, "cpu-µs/probe")
	b.ReportMetric(float64(sink.lost), "lost")
	for reason, n := range o.skips() {
		b.ReportMetric(float64(n), "skipped-"+reason.String())
	}
}

// alone has the kernel take what arrives at a host on the last core, not on the one
// that sends it (RPS).
func alone(b *testing.B, h *lab.Host) {
	b.Helper()
	folder := b.TempDir()
	var err error
	h.Do(func() {
		// A mount of sysfs shows the network namespace of whoever made it.
		err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("sysfs", folder, "sysfs", 0, "")
		}
		if err == nil {
			err = os.WriteFile(folder+"/class/net/"+h.Iface()+"/queues/rx-0/rps_cpus", []byte("2"), 0)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
}
