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
	fits    atomic.Bool   // the targets ask for no more than the limit

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
// share. sent is what it has sent in the last limitSpan, and owed what is to leave yet, it
// does not know when: that it keeps until it knows.
func (b *budget) claim(i int, now probe.Instant, sent, owed int) (share int, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held, want := b.held[i], b.want[i]
	if want < held {
		kept := max(want, min(owed, held))
		// What it has sent beyond that is nobody's until it is forgotten.
		if beyond := min(sent+owed, held) - kept; beyond > 0 {
			b.returned = append(b.returned, sending{now.Add(limitSpan), beyond})
		}
		b.held[i] = kept
		return want, kept == want
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
		share, whole := s.budget.claim(s.seat, s.now, s.window.total, s.taken())
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

// settledShare reports whether the limit is the shard's whole share.
func (s *Shard) settledShare() bool {
	return s.budget == nil || !s.claiming && s.budget.version.Load() == s.claimed
}

// most is how many packets any second may have, for a probe of packets to go. A share
// is whole packets: where the targets of all shards fit into the limit, one that asks
// for a part of a packet more than its share uses that up.
func (s *Shard) most(packets int) int {
	d, all := s.demand, demand(s.limits.Global)*packetPerSecond
	if s.budget != nil && s.budget.fits.Load() && s.settledShare() && d < all+packetPerSecond {
		d = min(d, all)
	}
	return d.most(s.limits.Global, packets, globalSlack)
}

// share divides the limit: each shard gets what its targets ask for and room for its
// largest probe, and of the rest a part by what they ask for. Where that is too much
// for the limit all get less, but for the room for the largest probe: if that alone is
// too much, and only then, the shares are more than the limit.
func (g *Group) share() {
	if g.budget == nil {
		return
	}
	n := len(g.shards)
	want, least := make([]int, n), make([]int, n)
	var asked demand
	needed, bound := 0, 0
	for i, d := range g.demands {
		asked += d
		least[i] = max(min(g.largest[i], g.limits.Global), 0)
		want[i] = max(int((d+packetPerSecond-1)/packetPerSecond), least[i])
		needed += want[i]
		bound += least[i]
	}
	g.budget.fits.Store(asked <= demand(g.limits.Global)*packetPerSecond)
	if rest := g.limits.Global - needed; rest >= 0 {
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
	} else {
		room := max(g.limits.Global-bound, 0)
		beyond, given := 0, 0
		for i := range want {
			beyond += want[i] - least[i]
			upTo := int(int64(room) * int64(beyond) / int64(max(needed-bound, 1)))
			want[i] = least[i] + upTo - given
			given = upTo
		}
	}
	g.budget.set(g.limits.Global, want)
	for _, s := range g.shards {
		s.net.Wake()
	}
}
