package engine

import (
	"sync"
	"sync/atomic"

	"github.com/probed/probed/probe"
)

// A budget shares the global limit out among the shards of a Group, so that no second
// has more packets than the limit, whatever shard sends them, also while shares change:
// a shard gets more only when others have let go of it, and what they sent before has
// been forgotten.
type budget struct {
	version atomic.Uint64 // rises when shares change

	mu       sync.Mutex
	limit    int
	want     []int     // the shares to come
	held     []int     // the shares in force
	returned []sending // parts of them that were let go of, and when others may have them
}

func newBudget(n int) *budget {
	return &budget{want: make([]int, n), held: make([]int, n)}
}

// set changes the shares that are to come.
func (b *budget) set(limit int, want []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = 0
	for _, w := range want {
		b.limit += w
	}
	b.limit = max(b.limit, limit)
	copy(b.want, want)
	b.version.Add(1)
}

// claim returns what a shard may send from now on, and whether that is its whole
// share. sent is what it has sent in the last limitSpan.
func (b *budget) claim(i int, now probe.Instant, sent int) (share int, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held, want := b.held[i], b.want[i]
	if want < held {
		// What it has sent beyond its new share is nobody's until it is forgotten.
		if beyond := min(sent, held) - want; beyond > 0 {
			b.returned = append(b.returned, sending{now.Add(limitSpan), beyond})
		}
		b.held[i] = want
		return want, true
	}
	left := b.limit
	for _, h := range b.held {
		left -= h
	}
	kept := b.returned[:0]
	for _, r := range b.returned {
		if r.at > now {
			kept = append(kept, r)
			left -= r.packets
		}
	}
	b.returned = kept
	b.held[i] += min(max(left, 0), want-held)
	return b.held[i], b.held[i] == want
}

// claim takes the shard's share of a Group's limit, where that has changed.
func (s *Shard) claim() {
	if s.budget == nil {
		return
	}
	if v := s.budget.version.Load(); v != s.claimed || s.claiming {
		s.claimed = v
		s.window.forget(s.now)
		share, whole := s.budget.claim(s.seat, s.now, s.window.total+s.unsent)
		s.limits.Global, s.claiming = share, !whole
	}
}

// suffices reports whether the shares have room for what the targets ask for, with
// something to spare.
func (g *Group) suffices() bool {
	for i, d := range g.demands {
		if w := g.budget.want[i]; d > demand(w)*packetPerSecond/10*9 || g.largest[i] > w {
			return false
		}
	}
	return true
}

// share divides the limit: each shard gets what its targets ask for and room for its
// largest probe, and of the rest a part by what they ask for. Where that is too much
// for the limit all get less. A share is whole packets, so that a limit of which the
// targets use all but a packet has one more for each shard.
func (g *Group) share() {
	if g.budget == nil {
		return
	}
	n := len(g.shards)
	want := make([]int, n)
	var asked demand
	needed := 0
	for i, d := range g.demands {
		asked += d
		want[i] = max(int((d+packetPerSecond-1)/packetPerSecond), g.largest[i])
		needed += want[i]
	}
	limit := demand(g.limits.Global) * packetPerSecond
	switch rest := g.limits.Global - needed; {
	case rest >= 0:
		// One that has nothing may be asked for a probe at any time.
		weight := func(i int) float64 { return float64(g.demands[i]) + float64(asked)/float64(4*n) + 1 }
		var all float64
		for i := range want {
			all += weight(i)
		}
		given := 0
		for i := range want {
			more := int(float64(rest) * weight(i) / all)
			want[i] += more
			given += more
		}
		want[0] += rest - given
	case asked > limit || -rest >= n:
		for i := range want {
			want[i] = int(float64(g.limits.Global) * float64(want[i]) / float64(needed))
		}
	}
	g.budget.set(g.limits.Global, want)
	for _, s := range g.shards {
		s.net.Wake()
	}
}
