package host_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A reactionBook keeps reactions and nothing else, of all targets.
type reactionBook struct {
	mu  sync.Mutex
	all []time.Duration
	bad int
}

func (b *reactionBook) Observe(o *probe.Observation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case o.Kind == probe.Reaction:
		b.all = append(b.all, o.Duration)
	case o.Kind == probe.Verdict && o.Reason != probe.OK, o.Kind == probe.Discarded:
		b.bad++
	}
}

// BenchmarkReaction opens and closes connections at a rate and reports how long the
// peer's SYN-ACK, and what else wants an answer from a guarded port, waits for it: from
// the tap's stamp of the one to that of the other, which are a capture's (TestAccuracy).
// The peer, a Go program that accepts and closes, is on the same processors.
func BenchmarkReaction(b *testing.B) {
	for _, rate := range []int{1000, 10_000} {
		for _, how := range []string{"raw", "packet"} {
			b.Run(fmt.Sprintf("rate=%d/%s", rate, how), func(b *testing.B) {
				for range b.N {
					benchmarkReaction(b, rate, how == "packet")
				}
			})
		}
	}
}

func benchmarkReaction(b *testing.B, rate int, direct bool) {
	const seconds = 8
	here, there := lab.Pair(b)
	there.AnyIP("198.18.64.0/18")
	there.Serve("tcp4", "0.0.0.0:80", readAll)
	books := &reactionBook{all: make([]time.Duration, 0, 4*seconds*rate)}
	var targets []*engine.Target
	for i, addr := 0, netip.MustParseAddr("198.18.64.1"); i < rate; i, addr = i+1, addr.Next() {
		x := closing(uint64(i), netip.AddrPortFrom(addr, 80), probe.Params{Kind: probe.ActiveClose, Timeout: 900 * time.Millisecond}, nil)
		x.Interval, x.Sink, x.Recorder, x.Direct = time.Second, books, nil, direct
		targets = append(targets, x)
	}
	o := newSelf()
	r := newRig(b, here, o, engine.Limits{Global: 1e7, PerAddress: 1e6})
	r.shard.Update(targets, nil)
	time.Sleep(3 * time.Second)
	books.mu.Lock()
	books.all = books.all[:0]
	books.mu.Unlock()
	before, _ := usage(b)
	time.Sleep(seconds * time.Second)
	after, _ := usage(b)
	books.mu.Lock()
	all := slices.Clone(books.all)
	books.mu.Unlock()
	r.end()
	slices.Sort(all)
	p := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1e3 }
	b.ReportMetric(p(0.5), "p50-µs")
	b.ReportMetric(p(0.99), "p99-µs")
	b.ReportMetric(p(0.999), "p99.9-µs")
	b.ReportMetric(float64(len(all))/seconds, "reactions/s")
	b.ReportMetric(100*(after-before).Seconds()/seconds, "cpu-%")
	b.ReportMetric(float64(books.bad), "bad")
	b.ReportMetric(0, "ns/op")
}
