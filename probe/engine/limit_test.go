package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A wireLog has what left the host, in order.
type wireLog struct {
	all []sent
}

type sent struct {
	at  probe.Instant
	syn bool
	to  addr
}

func (w *world) logWire() *wireLog {
	l := new(wireLog)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		l.all = append(l.all, sent{at, p.Segment.Flags.Has(probe.SYN), p.Dst})
	}
	return l
}

// most is the most packets of any span, wherever it begins, that count selects.
func (l *wireLog) most(span time.Duration, weigh func(*sent) int) (most int) {
	total, tail := 0, 0
	for i := range l.all {
		total += weigh(&l.all[i])
		for l.all[tail].at.Add(span) <= l.all[i].at {
			total -= weigh(&l.all[tail])
			tail++
		}
		most = max(most, total)
	}
	return most
}

// syns counts a SYN with the RST that it leads to, whenever that goes.
func syns(s *sent) int {
	if s.syn {
		return 2
	}
	return 0
}

func packets(*sent) int { return 1 }

// held checks that no second has more than limit. The RSTs of a second's SYNs
// may come in the next.
func (l *wireLog) held(t *testing.T, what string, limit int, to addr) {
	t.Helper()
	count := func(weigh func(*sent) int) func(*sent) int {
		return func(s *sent) int {
			if to.IsValid() && s.to != to {
				return 0
			}
			return weigh(s)
		}
	}
	if n := l.most(time.Second, count(syns)); n > limit {
		t.Errorf("%s: %d packets in a second, the limit is %d", what, n, limit)
	}
	if n := l.most(time.Second, count(packets)); n > limit+2 {
		t.Errorf("%s: %d SYNs and RSTs in a second, the limit is %d", what, n, limit)
	}
}

// Far more is due than may be sent, and the loop stalls, and sends slowly.
func TestGlobalLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 1 << 30} })
	w.peer = listening(10 * time.Millisecond)
	log := w.logWire()
	w.add(w.targets(2000, nil)...)
	for i := range 5 {
		w.after(time.Duration(i)*3*time.Second+700*time.Millisecond, func() { w.stallFor(1300 * time.Millisecond) })
	}
	w.refuse = func(*Packet) bool { // a slow send, as when preempted
		if w.rng.IntN(100) == 0 {
			w.advance(20*time.Millisecond, false)
		}
		return false
	}
	w.run(20 * time.Second)
	log.held(t, "global", 1000, addr{})
	if w.queued < 13.5*500 || w.queued > 10100 {
		t.Errorf("%d probes in 20 s of which it stalled 6.5, room for 10,000", w.queued)
	}
	if w.skips[SkipRateLimit] < 25000 || w.skips[SkipNoPort] != 0 {
		t.Errorf("skipped %v", w.skips)
	}
}

// Many targets on one address, some on another, by names that come and go.
func TestAddressLimit(t *testing.T) {
	for _, limit := range []int{2, 3, 10, 200} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: limit} })
			w.churn = true
			w.peer = listening(10 * time.Millisecond)
			log := w.logWire()
			var all []*Target
			for i := range 500 {
				x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
				all = append(all, x)
			}
			calm, quiet := w.target(1000, "198.19.0.2:80", nil)
			w.add(append(all, calm)...)
			for i := range 100 {
				w.after(time.Duration(i+1)*150*time.Millisecond, func() { // they go, and others come
					k := w.rng.IntN(len(all))
					next := *all[k]
					next.ID += 10000
					w.shard.Update(nil, []*Target{all[k]})
					w.shard.Update([]*Target{&next}, nil)
					all[k] = &next
				})
			}
			w.after(8*time.Second, func() { w.stallFor(1500 * time.Millisecond) })
			w.run(20 * time.Second)
			log.held(t, "per address", limit, all[0].Remote.Addr())
			room := limit / 2 * 20
			if n := w.queued - quiet.settled(); n < room*8/10 || n > room*102/100 {
				t.Errorf("%d probes in 20 s, room for %d", n, room)
			}
			if n := quiet.verdicts[probe.OK]; n < 18 {
				t.Errorf("%d probes to an address at peace", n)
			}
		})
	}
}

// Below two packets no probe may go.
func TestLimitsThatLetNothingOut(t *testing.T) {
	for _, l := range []Limits{{}, {Global: 1, PerAddress: 1}, {Global: 100, PerAddress: 1}, {Global: 1, PerAddress: 100}, {Global: -5, PerAddress: -5}} {
		w := newWorld(t, func(c *Config) { c.Limits = l })
		w.add(w.targets(10, nil)...)
		w.run(10 * time.Second)
		if w.queued != 0 || w.skips[SkipRateLimit] < 80 || sum(w.skips[:]) != w.skips[SkipRateLimit] {
			t.Errorf("%+v: %d sent, skipped %v", l, w.queued, w.skips)
		}
	}
}

// Two thousand targets at 1 s make just the 4,000 packets per second that are
// allowed: nothing is skipped, and what a hiccup delayed is made good.
func TestLimitUsedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 4000, PerAddress: 200} })
	w.peer = listening(10 * time.Millisecond)
	log := w.logWire()
	w.add(w.targets(2000, nil)...)
	for i := range 10 {
		w.after(time.Duration(2+i)*time.Second+time.Duration(i)*70*time.Millisecond, func() { w.stallFor(30 * time.Millisecond) })
	}
	calm := 0
	w.after(40*time.Second, func() { calm = len(w.delays) })
	w.run(45 * time.Second)
	log.held(t, "global", 4202, addr{}) // five percent and a probe to catch up with
	if n := sum(w.skips[:]); n != 0 {
		t.Errorf("skipped %v", w.skips)
	}
	var most time.Duration
	for _, d := range w.delays[:calm] {
		most = max(most, d)
	}
	if most > 150*time.Millisecond {
		t.Errorf("ten hiccups of 30 ms delay a probe by %v", most)
	}
	w.delays = w.delays[calm:]
	w.delaysBelow(2 * time.Millisecond)
}

// The same on one address: a hundred targets at 1 s, 200 packets per second. Not
// even the time that sending takes may add up.
func TestAddressLimitUsedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.peer = listening(10 * time.Millisecond)
	log := w.logWire()
	for i := range 100 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
		w.add(x)
	}
	for i := range 10 {
		w.after(time.Duration(2+i)*time.Second+time.Duration(i)*70*time.Millisecond, func() { w.stallFor(30 * time.Millisecond) })
	}
	calm := 0
	w.after(200*time.Second, func() { calm = len(w.delays) })
	w.run(10 * time.Minute)
	log.held(t, "per address", 204, netip.MustParseAddr("198.19.0.1")) // one percent and a probe to catch up with
	if n := sum(w.skips[:]); n != 0 {
		t.Errorf("skipped %v", w.skips)
	}
	w.delays = w.delays[calm:]
	w.delaysBelow(10 * time.Millisecond)
}

// A lower limit holds as soon as the second has gone in which the old one was
// used.
func TestSetLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 1000} })
	w.peer = listening(time.Millisecond)
	log := w.logWire()
	w.add(w.targets(1000, nil)...)
	w.after(5*time.Second, func() { w.shard.SetLimits(Limits{Global: 100, PerAddress: 100}); log.all = nil })
	w.after(10*time.Second, func() {
		log.held(t, "lowered", 100, addr{})
		if n := len(log.all); n < 350 || n > 500 {
			t.Errorf("%d packets in 5 s", n)
		}
		w.shard.SetLimits(Limits{Global: 400, PerAddress: 400})
		log.all = nil
	})
	w.run(15 * time.Second)
	log.held(t, "raised", 400, addr{})
	if n := len(log.all); n < 1800 {
		t.Errorf("%d packets in 5 s", n)
	}
}

// Waiting for the limit of one address costs little, however many wait.
func TestWaitingIsCheap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.peer = listening(time.Millisecond)
	for i := range 5000 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
		w.add(x)
	}
	w.shard.read()
	w.obey()
	for end := w.now.Add(10 * time.Second); w.now < end; {
		w.Wait(w.shard.turn(true), false)
	}
	w.fewComeBack()
}

// fewComeBack checks that not all of 5,000 targets that wait for room come back at once.
func (w *world) fewComeBack() {
	w.tb.Helper()
	due := 0
	w.shard.schedule.each(func(at probe.Instant, _ int32) {
		if at < w.now.Add(100*time.Millisecond) {
			due++
		}
	})
	if due > 1000 {
		w.tb.Errorf("%d of 5000 targets come back within 100 ms, room is for 10", due)
	}
}

// The window against a plain list of what was sent.
func TestWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		var w window
		type past struct {
			at probe.Instant
			n  int
		}
		var log []past
		within := func(now probe.Instant, span time.Duration) (n int) {
			for _, p := range log {
				if p.at.Add(span) > now {
					n += p.n
				}
			}
			return n
		}
		fits := func(now probe.Instant, limit int) bool { return within(now, limitSpan)+2 <= limit }
		limit := 2 + r.IntN(50)
		now := probe.Instant(1e9)
		for range 2000 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Millisecond)
			at := w.room(now, 2, limit)
			if (at == now) != fits(now, limit) {
				t.Fatalf("room at %v, now %v", at, now)
			}
			if at > now && (fits(at-1, limit) || !fits(at, limit)) {
				t.Fatalf("room in %v is not the first", at.Sub(now))
			}
			if at == now {
				w.add(now, 2)
				log = append(log, past{now, 2})
				if r.IntN(4) == 0 {
					late := now.Add(time.Duration(r.IntN(5)) * time.Millisecond)
					w.left(late)
					for i := range log {
						if log[i].at == now {
							log[i].at = late
						}
					}
					now = late
				}
			}
		}
		if !w.idle(now.Add(limitSpan)) || w.total != 0 {
			t.Fatalf("%+v after a second of silence", w)
		}
		if len(w.sent) > 64 {
			t.Errorf("a log of %d entries for a limit of %d", len(w.sent), limit)
		}
	}
}

// A probe of more packets than the limit is skipped, and holds up no other.
func TestProbeAboveTheLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 10, PerAddress: 100} })
	w.peer = listening(10 * time.Millisecond)
	large, _ := w.target(99, "198.19.1.1:443", func(x *Target) {
		activeClose(x)
		x.Params.Send = 10 * 1460
		x.Send = string(make([]byte, x.Params.Send))
	})
	w.add(append(w.targets(3, nil), large)...)
	w.run(20 * time.Second)
	if w.queued != 60 || w.skips[SkipRateLimit] != 20 || sum(w.skips[:]) != 20 {
		t.Errorf("%d probes went, skipped %v", w.queued, w.skips)
	}
	w.delaysBelow(20 * time.Millisecond)
}
