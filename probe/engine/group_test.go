package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// Shares change all the time, each shard hears of it when it likes, and sends what its
// share and its window have room for: no second has more than the limit. What it has
// reserved it sends or gives back all at once.
func TestBudgetHoldsTheLimit(t *testing.T) {
	for _, reserves := range []int{0, 1, 4} {
		t.Run(fmt.Sprint(reserves), func(t *testing.T) { budgetHolds(t, reserves) })
	}
}

func budgetHolds(t *testing.T, reserves int) {
	const n, span, together = 3, 60 * time.Second, probe.Instant(3 * time.Second)
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		b := newBudget(n)
		limit := 100 + rng.IntN(1000)
		reshare := func() {
			cut := []int{0, rng.IntN(limit + 1), rng.IntN(limit + 1), limit}
			slices.Sort(cut)
			b.set(limit, []int{cut[1] - cut[0], cut[2] - cut[1], cut[3] - cut[2]})
		}
		reshare()
		var windows [n]window
		var shares [n]int
		var reserved [n][]probe.Instant // until when
		var log []probe.Instant
		for now := probe.Instant(1e9); now < probe.Instant(span); now += probe.Instant(rng.IntN(5e6)) {
			if rng.IntN(500) == 0 {
				reshare()
			}
			i := rng.IntN(n)
			if rng.IntN(10) == 0 {
				windows[i].forget(now)
				shares[i], _ = b.claim(i, now, windows[i].total, len(reserved[i]))
			}
			for packets := 1 + rng.IntN(4); windows[i].room(now, packets+reserves+len(reserved[i]), shares[i]) == now && rng.IntN(100) > 0; {
				windows[i].add(now, packets)
				for range packets {
					log = append(log, now)
				}
				until := now - now%together + together
				for range reserves {
					reserved[i] = append(reserved[i], until)
				}
			}
			reserved[i] = slices.DeleteFunc(reserved[i], func(at probe.Instant) bool {
				if at <= now && rng.IntN(10) > 0 { // else it is given back
					windows[i].add(now, 1)
					log = append(log, now)
				}
				return at <= now
			})
		}
		most, from := 0, 0
		for to := range log {
			for log[to].Sub(log[from]) >= time.Second {
				from++
			}
			most = max(most, to-from+1)
		}
		if most > limit || most < limit*9/10/(1+reserves) {
			t.Errorf("seed %d: %d packets in a second, the limit is %d", seed, most, limit)
		}
	}
}

// group returns one of n shards that do not run.
func group(n int, limits Limits) *Group {
	parts := make([]Part, n)
	for i := range parts {
		first := uint16(61000 + 100*i)
		parts[i] = Part{newSim(), Ports{first, first + 49}, Ports{first + 50, first + 99}}
	}
	return NewGroup(Config{Limits: limits}, parts)
}

// addresses returns a half_open target at each of n addresses, of two packets a second.
func addresses(n int) (all []*Target) {
	for i := range n {
		all = append(all, &Target{
			ID:       uint64(i),
			Remote:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 443),
			Params:   probe.Params{Kind: probe.HalfOpen},
			Interval: time.Second,
		})
	}
	return all
}

// The shares are the limit, and each has room for what the shard's targets ask for,
// whenever the limit has.
func TestGroupShares(t *testing.T) {
	for _, n := range []int{2, 3, 7} {
		for _, targets := range []int{0, 1, 10, 1000, 9990, 10_000, 12_000} {
			g := group(n, Limits{Global: 20_000, PerAddress: 200})
			all := addresses(targets)
			g.Update(all, nil)
			g.share()
			total := 0
			for i, w := range g.budget.want {
				total += w
				asked := int(g.demands[i] / packetPerSecond)
				if targets <= 10_000 && w < asked || w == 0 || w < 2 {
					t.Errorf("%d shards, %d targets: a share of %d, asked are %d", n, targets, w, asked)
				}
			}
			if total > 20_000 || total < 20_000-n {
				t.Errorf("%d shards, %d targets: shares %v", n, targets, g.budget.want)
			}
			g.Update(nil, all)
			for i, d := range g.demands {
				if d != 0 {
					t.Errorf("shard %d: %d is asked by no target", i, d)
				}
			}
		}
	}
}

// Targets of one address are one shard's, and addresses spread evenly; what changes
// its address moves, and its conversations are not ended.
func TestGroupSpreadsTargets(t *testing.T) {
	g := group(4, Limits{Global: 20_000})
	var counts [4]int
	for _, x := range addresses(4000) {
		counts[g.home(x)]++
		y := *x
		y.ID, y.Remote = x.ID+7, netip.AddrPortFrom(x.Remote.Addr().WithZone("eth0"), 80)
		if g.home(&y) != g.home(x) {
			t.Fatalf("%v and %v are not one shard's", x.Remote, y.Remote)
		}
	}
	if slices.Min(counts[:]) < 900 {
		t.Errorf("targets by shard: %v", counts)
	}
	all := addresses(100)
	g.Update(all, nil)
	for i, s := range g.shards {
		for _, c := range s.inbox[0].changes {
			if g.home(c.add) != i || c.remove != nil || c.moves {
				t.Errorf("shard %d: %+v", i, c)
			}
		}
		s.inbox = nil
	}
	// Another address, another interval, gone.
	x, y, z := *all[0], *all[1], all[2]
	for n := 0; g.home(&x) == g.home(all[0]); n++ {
		x.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 0, byte(n)}), 443)
	}
	y.Interval *= 2
	g.Update([]*Target{&x, &y}, []*Target{all[0], all[1], z})
	seen := make(map[string]int)
	for i, s := range g.shards {
		for _, cmd := range s.inbox {
			for _, c := range cmd.changes {
				name := func(t *Target) int {
					if t == nil {
						return -1
					}
					if g.home(t) != i {
						return -2
					}
					return int(t.ID)
				}
				seen[fmt.Sprint(name(c.add), " for ", name(c.remove), c.moves)]++
			}
		}
	}
	for _, want := range []string{"0 for -1 false", "-1 for 0 true", "1 for 1 false", "-1 for 2 false"} {
		if seen[want] != 1 || len(seen) != 4 {
			t.Errorf("%q is not among %v", want, seen)
		}
	}
}

// The heartbeat is that of all loops.
func TestChorus(t *testing.T) {
	said := 0
	c := &chorus{say: func() { said++ }, silent: 3, spoke: make([]bool, 3)}
	for _, i := range []int{0, 1, 0, 1, 1} {
		c.beat(i)
	}
	if said != 0 {
		t.Error("one loop is silent, and nobody notices")
	}
	c.beat(2)
	c.beat(2)
	c.beat(0)
	if said != 1 {
		t.Errorf("said %d times", said)
	}
	c.beat(1)
	if said != 2 {
		t.Errorf("said %d times", said)
	}
}

// Each shard's share has room for its largest probe, and all shares are no more than
// the limit unless that room is.
func TestGroupSharesHoldEachProbe(t *testing.T) {
	for _, tt := range []struct {
		limit          int
		demands        []demand // in tenths of a packet per second
		largest        []int
		total          int
		roomForDemands bool
	}{
		{200, []demand{1940, 5}, []int{2, 14}, 200, false},
		{200, []demand{3000, 5, 5}, []int{2, 14, 14}, 200, false},
		{20, []demand{95, 104}, []int{2, 2}, 20, false},
		{20, []demand{90, 101}, []int{2, 2}, 20, true},
		{20, []demand{5, 5}, []int{14, 14}, 28, true},
		{10, []demand{5, 5}, []int{14, 2}, 12, true},
		{100_000, []demand{500_005, 499_996}, []int{2, 2}, 100_000, false}, // whose product is more than 32 bits
	} {
		g := group(len(tt.demands), Limits{Global: tt.limit, PerAddress: 200})
		copy(g.largest, tt.largest)
		for i, d := range tt.demands {
			g.demands[i] = d * packetPerSecond / 10
		}
		g.share()
		total := 0
		for i, w := range g.budget.want {
			total += w
			if w < min(tt.largest[i], tt.limit) || tt.roomForDemands && demand(w)*packetPerSecond < g.demands[i] {
				t.Errorf("%+v: shares %v", tt, g.budget.want)
			}
		}
		if total != tt.total {
			t.Errorf("%+v: shares %v", tt, g.budget.want)
		}
	}
}

// A shard that asks for a part of a packet more than its share, because shares are whole
// packets, is not late for ever.
func TestRoundedShare(t *testing.T) {
	w := newWorld(t, nil)
	w.shard.budget = newBudget(1)
	w.shard.budget.set(19, []int{19})
	w.shard.budget.fits.Store(true)
	w.add(w.targets(39, func(x *Target) { x.Interval = 4 * time.Second })...)
	w.run(120 * time.Second)
	if late := slices.Max(w.delays); late > time.Second {
		t.Errorf("a probe was %v late", late)
	}
}
