package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A batch that takes long to leave is booked as leaving when it has.
func TestLimitsOfSlowSends(t *testing.T) {
	const limit = 40
	for k := range kinds[:len(kinds)-1] {
		t.Run(kinds[k].name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: limit, PerAddress: 1000} })
			w.crowd(k, 4, 60, func(p func(time.Duration) peerFunc) peerFunc { return p(200 * time.Millisecond) })
			log := w.logWire()
			w.booksHold(log)
			w.refuse = func(p *Packet) bool {
				if p.Segment[13]&byte(probe.SYN) == 0 {
					w.advance(15*time.Millisecond, false)
				}
				return false
			}
			w.turns(30 * time.Second)
			if most := log.most(time.Second, packets); most > limit || most < limit/3 {
				t.Errorf("%d packets in a second, the limit is %d", most, limit)
			}
		})
	}
}

// A peer that does not close keeps room from others for ten seconds and no longer, and
// what is sent later counts.
func TestReservedIsGivenBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 8} })
	w.peer = stays(10 * time.Millisecond)
	x, _ := w.target(1, "198.19.0.1:443", func(x *Target) {
		passiveClose(x)
		x.Interval, x.Params.Timeout = time.Hour, 20*time.Second
	})
	w.add(x)
	w.shard.read()
	w.obey()
	begun := w.shard.targets[x].slot.Sub(w.now)
	a := w.shard.targets[x].peer.address
	for at, want := range map[time.Duration]int32{
		5 * time.Millisecond:                      4, // all but the SYN
		time.Second:                               2, // ACK and data have gone
		resetsReservedFor - 100*time.Millisecond:  2,
		resetsReservedFor + 1100*time.Millisecond: 0,
	} {
		w.after(begun+at, func() {
			if a.reserved != want {
				t.Errorf("after %v room for %d packets is reserved, want %d", at, a.reserved, want)
			}
		})
	}
	w.after(begun+20*time.Second+100*time.Millisecond, func() {
		if a.window.forget(w.now); a.window.total != 1 {
			t.Errorf("%d packets of the last second, want the RST", a.window.total)
		}
	})
	w.run(begun + 22*time.Second)
}

// Those who are dead keep no room from others for as long as they are waited for.
func TestReservedForTheDead(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 200} })
	healthy := netip.MustParseAddr("198.19.0.200")
	w.peer = func(s *sim, p *wire.Packet) {
		if p.Dst == healthy {
			listening(10*time.Millisecond)(s, p)
		}
	}
	for i := range 150 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.%d:%d", 1+i%10, 1000+i), func(x *Target) {
			passiveClose(x)
			x.Interval, x.Params.Timeout = 4*time.Second, 10*time.Second
		})
		w.add(x)
	}
	all := 0
	for i := range 50 {
		x, l := w.target(uint64(1000+i), fmt.Sprintf("%v:%d", healthy, 1000+i), nil)
		w.add(x)
		w.after(60*time.Second, func() { all += l.verdicts[probe.OK] })
	}
	w.run(61 * time.Second)
	if all < 2900 || w.skips[SkipRateLimit] > 0 {
		t.Errorf("%d probes of 3000, %v skipped, beside peers that don't answer", all, w.skips)
	}
}

// What a conversation turns out not to need others have at once, of an address and of all.
func TestRoomGivenBackIsUsed(t *testing.T) {
	for name, l := range map[string]Limits{"address": {Global: 1000, PerAddress: 6}, "global": {Global: 6, PerAddress: 1000}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = l })
			w.peer = closes(100 * time.Millisecond)
			log := w.logWire()
			x, _ := w.target(1, "198.19.0.1:443", func(x *Target) { activeClose(x); x.Count, x.Interval = 1, time.Hour })
			w.add(x)
			var others []*Target
			for i := range 3 {
				y, _ := w.target(uint64(2+i), fmt.Sprintf("198.19.0.1:%d", 80+i), func(y *Target) { y.Interval = time.Hour })
				others = append(others, y)
			}
			w.add(others...)
			w.shard.read()
			w.obey()
			for _, e := range w.shard.targets { // due soon after the first
				if e.Target != x {
					e.slot = w.now.Add(10 * time.Millisecond)
					w.shard.plan(e, e.slot)
				}
			}
			w.turns(900 * time.Millisecond)
			var syns []probe.Instant
			for _, s := range log.all {
				if s.syn {
					syns = append(syns, s.at)
				}
			}
			// It opens, and sends its FIN, after 100 ms, and its last ACK after 200: 4 packets.
			if len(syns) != 2 || syns[1].Sub(syns[0]) < 200*time.Millisecond || syns[1].Sub(syns[0]) > 200*time.Millisecond+maxGap+50*time.Millisecond {
				t.Errorf("SYNs at %v", syns)
			}
		})
	}
}

// Waiting for room that is reserved costs little, however many wait.
func TestWaitingForReservedIsCheap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.peer = late(900*time.Millisecond, closes)(time.Millisecond)
	log := w.logWire()
	for i := range 5000 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), activeClose)
		w.add(x)
	}
	w.shard.read()
	w.obey()
	waits := w.waits
	w.turns(10 * time.Second)
	if turns := w.waits - waits; turns > 10*1500 {
		t.Errorf("%d turns in 10 s", turns)
	}
	w.fewComeBack()
	if n := len(log.all); n < 10*200*4/10 {
		t.Errorf("%d packets in 10 s", n)
	}
}

// Connections that are asked for beside the schedule, to peers that keep them, hold no
// room that is the schedule's.
func TestScheduleGoesBeforeReserved(t *testing.T) {
	for name, l := range map[string]Limits{"address": {Global: 20000, PerAddress: 60}, "global": {Global: 60, PerAddress: 1000}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = l })
			w.churn = true
			w.peer = stays(10 * time.Millisecond)
			log := w.logWire()
			for i := range 3 { // 30 packets a second
				x, _ := w.target(uint64(i), "198.19.0.1:80", func(x *Target) { x.Interval = 200 * time.Millisecond })
				w.add(x)
			}
			var asked []*ledger
			for i := range 64 {
				to := "198.19.0.1:443"
				if name == "global" {
					to = remote(100 + i).String()
				}
				for k := range 3 {
					x, of := w.target(uint64(1000+100*k+i), to, func(x *Target) {
						passiveClose(x)
						x.Count, x.Interval, x.Params.Timeout = 1, time.Minute, 30*time.Second
					})
					asked = append(asked, of)
					w.after(time.Duration(2+7*k)*time.Second, func() { w.add(x) })
				}
			}
			w.run(30 * time.Second)
			log.held(t, name, 60, addr{})
			if n := sum(w.skips[:]); n != 0 {
				t.Errorf("skipped %v", w.skips)
			}
			got := 0
			for _, of := range asked {
				got += of.settled()
			}
			if got < 10 {
				t.Errorf("%d probes for who asked", got)
			}
		})
	}
}

// Nor do those that are asked for take the schedule's place by what they send beyond what
// they have reserved, because their peers are silent.
func TestScheduleGoesBeforeTheSilent(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 60, PerAddress: 1000} })
	w.churn = true
	w.peer = listening(10 * time.Millisecond)
	for i := range 3 { // 30 packets a second
		x, _ := w.target(uint64(i), "198.19.0.1:80", func(x *Target) { x.Interval = 200 * time.Millisecond })
		w.add(x)
	}
	var asked []*ledger
	for i := range 192 {
		x, l := w.target(uint64(1000+i), remote(100+i).String(), func(x *Target) {
			activeClose(x)
			x.Count, x.Interval, x.Params.Timeout = 1, time.Minute, 3*time.Second
		})
		asked = append(asked, l)
		w.after(time.Duration(2+7*(i%3))*time.Second, func() { w.add(x) })
	}
	w.run(60 * time.Second)
	got := 0
	for _, l := range asked {
		got += l.settled()
	}
	if n := sum(w.skips[:]); n > 20 || got < 50 { // of 900; some 200 where what is beyond counts for the schedule alone
		t.Errorf("skipped %v, %d probes for who asked", w.skips, got)
	}
}

// Whatever becomes of conversations, what they have reserved is given back: targets come,
// go and change address, limits change, frames and neighbours are lost, ports are short.
func TestNothingStaysReserved(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) {
				c.Limits = Limits{Global: 300, PerAddress: 80}
				c.Reserved.Last, c.Guarded.Last = c.Reserved.First+15, c.Guarded.First+15
			})
			for range seed {
				w.rng.Uint64()
			}
			var all []*Target
			make := func(id uint64) *Target {
				k := kinds[w.rng.IntN(len(kinds)-1)]
				x, _ := w.target(id, fmt.Sprintf("198.19.0.%d:%d", 1+w.rng.IntN(5), 1000+w.rng.IntN(20)), k.kind)
				x.Flows = int32(w.rng.IntN(3))
				if w.rng.IntN(5) == 0 {
					x.Count = 1 + uint64(w.rng.IntN(3))
				}
				w.peers[x.Remote] = lossy(late(time.Duration(1+w.rng.Int64N(int64(4*time.Second))), k.peer)(time.Millisecond))
				return x
			}
			for i := range 100 {
				all = append(all, make(uint64(i)))
			}
			w.add(all...)
			w.held = func(p *wire.Packet) bool { // a neighbour that is not known now and then
				return p.Dst == netip.AddrFrom4([4]byte{198, 19, 0, 1}) && w.now/probe.Instant(3*time.Second)%3 == 0
			}
			w.refuse = func(*Packet) bool { return w.now/probe.Instant(time.Second)%8 == 0 } // the host sends nothing
			for i := range 400 {
				w.after(time.Duration(i)*100*time.Millisecond, func() {
					k := w.rng.IntN(len(all))
					next := make(all[k].ID)
					switch w.rng.IntN(8) {
					case 0:
						w.shard.Update(nil, []*Target{all[k]})
						w.shard.Update([]*Target{next}, nil)
					case 1:
						w.shard.SetLimits(Limits{Global: w.rng.IntN(400), PerAddress: w.rng.IntN(100)})
						return
					case 2:
						w.dropped++
						return
					case 3:
						w.stallFor(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
						return
					default:
						w.shard.Update([]*Target{next}, []*Target{all[k]})
					}
					all[k] = next
				})
			}
			most := 0
			tally := w.onWait
			w.onWait = func() {
				tally()
				most = max(most, w.shard.reserved)
			}
			w.goOn(45 * time.Second)
			w.tallyReserved()
			if w.shard.reserved != 0 || w.shard.lent.reserved != 0 {
				t.Errorf("room for %d packets is left, %d of them lent", w.shard.reserved, w.shard.lent.reserved)
			}
			if most < 50 || len(w.delays) < 200 {
				t.Errorf("room for %d packets at most, %d probes: nothing is shown", most, len(w.delays))
			}
		})
	}
}

// So is what one had that must leave its port to the next.
func TestPortTakenGivesBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerAddress, c.Guarded.Last = 1000, c.Guarded.First+1 })
	w.peer = stays(10 * time.Millisecond)
	x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
		timeWait(x)
		x.Params.Timeout = 300 * time.Millisecond
	})
	w.add(x)
	w.refuse = func(p *Packet) bool { return p.Segment[13]&byte(probe.RST) != 0 }
	w.turns(20 * time.Second)
	w.tallyReserved()
	if n := l.settled(); n < 8 {
		t.Errorf("%d probes, skipped %v: no port was taken", n, w.skips)
	}
}
