package host_test

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestAccuracyOfTwoThousandClosingTargets holds a whole conversation a second with
// each of 2,000 targets for a minute: nothing may be skipped, dropped or late, and
// neither host has a socket left of it.
func TestAccuracyOfTwoThousandClosingTargets(t *testing.T) {
	const n, seconds = 2000, 60
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/18")
	b.Serve("tcp4", "0.0.0.0:80", readAll)
	m, o := metrics.New(metrics.Options{}), newSelf()
	o.delays = make([]time.Duration, 0, 2*seconds*n)
	var probes, bad int // the shard's until it has ended
	var targets []*engine.Target
	for i, addr := 0, netip.MustParseAddr("198.18.64.1"); i < n; i, addr = i+1, addr.Next() {
		remote := netip.AddrPortFrom(addr, 80)
		mt, err := m.AddTarget(metrics.Labels{Job: "load", Target: remote.String(), Module: "active_close"}, metrics.TargetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		x := closing(uint64(i), remote, probe.Params{Kind: probe.ActiveClose, Timeout: 900 * time.Millisecond}, nil)
		x.Interval, x.Sink, x.Recorder = time.Second, tally{mt, &probes, &bad}, nil
		targets = append(targets, x)
	}
	before := lab.SS(a)
	r := newRig(t, a, o, engine.Limits{Global: 20000, PerAddress: 200})
	r.shard.Update(targets, nil)
	runtime.GC()
	cpu, _ := usage(t)
	began := time.Now()
	time.Sleep(seconds * time.Second)
	after, resident := usage(t)
	used, took := after-cpu, time.Since(began)
	r.rest(targets)
	await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	time.Sleep(100 * time.Millisecond) // for the peer's kernel
	if open := left(b); len(open) > 0 {
		t.Errorf("the peer is left with %d sockets: %v", len(open), open[:min(5, len(open))])
	}
	if waits := lab.SS(b, "TIME-WAIT"); len(waits) > 0 { // we closed first
		t.Errorf("the peer has %d sockets in TIME-WAIT", len(waits))
	}
	if open := left(a); len(open) > 0 {
		t.Errorf("the probing host is left with %v", open)
	}
	drops := r.shard.Stats.TapDrops.Load()
	r.end()
	if now := lab.SS(a); len(now) != len(before) {
		t.Errorf("sockets of the probing host: %v, before %v", now, before)
	}
	t.Logf("%d targets at 1 s for %.0f s: %d conversations, %.1f µs of CPU each, the peer's application included, %.0f MiB resident at most, schedule delay p50 %v p99 %v max %v",
		n, took.Seconds(), probes, float64(used.Microseconds())/float64(probes), resident, o.delay(0.5), o.delay(0.99), o.delay(1))
	if len(o.skipped) > 0 {
		t.Errorf("skipped: %v", o.skipped)
	}
	if drops > 0 {
		t.Errorf("the tap dropped %d frames", drops)
	}
	if bad > 0 {
		t.Errorf("%d observations that a silent path and good peers don't make", bad)
	}
	if least := n * (seconds - 1); probes < least {
		t.Errorf("%d conversations, expected %d or more", probes, least)
	}
	// A loop that can't keep up is late for each. How late the latest are is the machine's.
	if late := o.delay(0.5); late > 25*time.Millisecond {
		t.Errorf("schedule delay p50 %v, allowed 25ms", late)
	}
}
