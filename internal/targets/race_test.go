package targets

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// Reloads, look-ups, scrapes and observations at once, for the race detector;
// in the end what is there is what the last configuration asks for.
func TestConcurrency(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { w.Run(ctx) })
	others := func(do func(i int)) {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				do(i)
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	configs := []string{manyNames(0, 50), manyNames(25, 75), oneName("resolve: all"), threeTargets}
	others(func(int) {
		if err := w.metrics.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
	})
	others(func(int) {
		for _, x := range w.engine.targets() {
			x.Sink.Observe(&probe.Observation{Kind: probe.Verdict})
		}
	})
	others(func(i int) {
		w.dns.set("db.test", []string{"198.18.0.1", "198.18.0.2", "198.18.0.3"}[i%3], "198.18.0.4")
	})
	for k := range 2 {
		all.Go(func() {
			for i := range 200 {
				if err := w.put(parse(t, configs[(i+k)%len(configs)])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// Answers come faster than Run's interval allows.
	others(func(int) {
		for _, n := range w.known() {
			addrs, err := w.dns.LookupNetIP(ctx, n.network, n.host)
			w.answer(n, addrs, err)
		}
	})
	time.Sleep(time.Second)
	cancel()
	all.Wait()

	w.load(strings.Replace(threeTargets, "db.test", "198.18.0.9", 1))
	w.wantAddresses("198.18.0.1:80 198.18.0.9:80 [2001:db8::1]:80")
	w.wantIPs("", "", "")
}

// known are the names in force.
func (r *Roster) known() (all []*name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.names {
		all = append(all, n)
	}
	return all
}
