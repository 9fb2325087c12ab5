package engine

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Group is shards side by side, each with a loop, a network and source ports of its
// own, that act as one. A target is the shard's that its remote address falls to, so
// that what an address may be sent, and its four-tuples, are one shard's; the kernel
// gives a reply to the shard whose port it goes to.
type Group struct {
	shards  []*Shard
	budget  *budget // nil: there is one shard
	chorus  *chorus // nil: there is no heartbeat, or one shard
	numbers atomic.Uint64

	mu      sync.Mutex // one change at a time, lest shards get them in different orders
	limits  Limits
	demands []demand // by shard
	sizes   []sizes  // of the probes of each shard's targets
	largest []int    // packets of the largest of them
}

// A Part is what a shard of a Group has of its own.
type Part struct {
	Network           Network
	Reserved, Guarded Ports
}

// NewGroup returns a Group of a shard for each part. What cfg says of a part is not
// read. Its Observer, its Heartbeat and, for as long as conversations are open of a
// target whose remote address changed, Sinks and Recorders are called by several
// goroutines.
func NewGroup(cfg Config, parts []Part) *Group {
	n := len(parts)
	g := &Group{limits: cfg.Limits, demands: make([]demand, n), sizes: make([]sizes, n), largest: make([]int, n)}
	if n > 1 {
		g.budget = newBudget(n)
		cfg.Limits.Global = 0 // until it is claimed
		if cfg.Heartbeat != nil {
			g.chorus = &chorus{say: cfg.Heartbeat, silent: n, spoke: make([]bool, n)}
		}
	}
	for i, p := range parts {
		own := cfg
		own.Network, own.Reserved, own.Guarded = p.Network, p.Reserved, p.Guarded
		if g.chorus != nil {
			own.Heartbeat = func() { g.chorus.beat(i) }
		}
		s := New(own)
		g.sizes[i] = make(sizes)
		s.numbers = &g.numbers
		s.budget, s.seat = g.budget, i
		g.shards = append(g.shards, s)
	}
	g.share()
	return g
}

// Shards returns them, for who runs each by itself.
func (g *Group) Shards() []*Shard { return g.shards }

// Run runs all shards, and returns when all have returned.
func (g *Group) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range g.shards {
		all.Go(func() { s.Run(ctx) })
	}
	all.Wait()
}

// home is the place of the shard that a target is of.
func (g *Group) home(t *Target) int {
	if !t.Remote.IsValid() {
		return int(splitmix(t.ID) % uint64(len(g.shards)))
	}
	hi, lo := halves(t.Remote.Addr())
	return int(splitmix(splitmix(hi)^lo) % uint64(len(g.shards)))
}

// Update is Shard.Update. A target whose new address falls to another shard loses its
// place in the schedule by less than an interval; its conversations go on.
func (g *Group) Update(add, remove []*Target) {
	if len(g.shards) == 1 {
		g.shards[0].Update(add, remove)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	added, removed := make([][]*Target, len(g.shards)), make([][]*Target, len(g.shards))
	homes := make(map[uint64]int, len(add))
	for _, t := range add {
		i := g.home(t)
		homes[t.ID] = i
		added[i] = append(added[i], t)
		g.demands[i] += t.demands()
		g.sizes[i].add(t.Params.Packets())
	}
	moved := make(map[*Target]bool)
	for _, t := range remove {
		i := g.home(t)
		removed[i] = append(removed[i], t)
		g.demands[i] -= t.demands()
		g.sizes[i].remove(t.Params.Packets())
		if j, stays := homes[t.ID]; stays && i != j {
			moved[t] = true
		}
	}
	for i, z := range g.sizes {
		g.largest[i] = z.largest()
	}
	if !g.suffices() {
		g.share()
	}
	for i, s := range g.shards {
		if len(added[i])+len(removed[i]) == 0 {
			continue
		}
		c := changes(added[i], removed[i])
		for k := range c {
			c[k].moves = c[k].add == nil && moved[c[k].remove]
		}
		s.command(command{changes: c})
	}
}

// SetLimits is Shard.SetLimits.
func (g *Group) SetLimits(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	g.share()
	for _, s := range g.shards {
		s.SetLimits(l)
	}
}

// Totals are the sums of the shards' Stats.
type Totals struct {
	SegmentsSent, SegmentsReceived, StampFallbacks, TapDrops uint64
	Conversations, Targets                                   int
}

// Totals returns them, to any goroutine.
func (g *Group) Totals() (t Totals) {
	for _, s := range g.shards {
		t.SegmentsSent += s.Stats.SegmentsSent.Load()
		t.SegmentsReceived += s.Stats.SegmentsReceived.Load()
		t.StampFallbacks += s.Stats.StampFallbacks.Load()
		t.TapDrops += s.Stats.TapDrops.Load()
		t.Conversations += int(s.Stats.Conversations.Load())
		t.Targets += int(s.Stats.Targets.Load())
	}
	return t
}

// A chorus says that all loops are alive, once each of them has said it.
type chorus struct {
	say    func()
	mu     sync.Mutex
	spoke  []bool
	silent int
}

func (c *chorus) beat(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spoke[i] {
		return
	}
	c.spoke[i] = true
	if c.silent--; c.silent == 0 {
		c.silent = len(c.spoke)
		clear(c.spoke)
		c.say()
	}
}
