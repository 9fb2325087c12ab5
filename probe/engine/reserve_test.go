package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// bookEvery is every how many turns tallyReserved looks, and more rarely at many.
const bookEvery = 499

// tallyReserved holds what is reserved in all, and waits for room, against what conversations
// have, and what addresses have, those included that only a target which is gone still names.
func (w *world) tallyReserved() {
	w.tb.Helper()
	tb, s := w.tb, w.shard
	all, lent, wanted := 0, 0, 0
	of, lentOf, wantedOf := make(map[*address]int), make(map[*address]int), make(map[*address]int)
	for _, a := range s.peers.byAddress {
		of[a] = 0
	}
	for _, e := range s.entries {
		if e != nil && e.peer != nil {
			of[e.peer.address] += 0
		}
	}
	for i := range s.table.len() {
		sl := s.table.slot(i)
		if sl.target == free {
			continue
		}
		e, n := s.entries[sl.target], int(sl.reserved)
		if n > 0 && e.manner.booked == e.manner.packets && (n > 1 || !e.resetsUnseen) { // one is for a RST of our own
			tb.Errorf("%d reserved for a %v that needs no more than it has booked", n, e.manner.params.Kind)
		}
		if sl.whole != none {
			w := s.table.wholes.at(sl.whole)
			wantedOf[e.peer.address] += int(w.wanted)
			if w.wanted > 0 && w.Connected() && !w.Pending() {
				tb.Errorf("%d packets wait for room of a connection that has nothing to send", w.wanted)
			}
		}
		all += n
		of[e.peer.address] += n
		if e.counted {
			lent += n
			lentOf[e.peer.address] += n
		}
	}
	if s.reserved != all || s.lent.reserved != lent {
		tb.Fatalf("%d reserved and %d lent, conversations have %d and %d", s.reserved, s.lent.reserved, all, lent)
	}
	for _, n := range wantedOf {
		wanted += min(n, s.limits.PerAddress)
	}
	if s.wanted != wanted {
		tb.Fatalf("%d wait, of conversations %d", s.wanted, wanted)
	}
	for a, n := range of {
		if int(a.wanted) != wantedOf[a] {
			tb.Fatalf("%d wait at an address, of its conversations %d", a.wanted, wantedOf[a])
		}
		if int(a.reserved) != n {
			tb.Fatalf("%d reserved at an address, its conversations have %d", a.reserved, n)
		}
		if a.lent != nil && a.lent.reserved != lentOf[a] {
			tb.Fatalf("%d lent at an address, its conversations have %d", a.lent.reserved, lentOf[a])
		}
	}
}

// booksHold checks that what left in the last second is all booked, or still reserved.
func (w *world) booksHold(l *wireLog) {
	tail := 0
	before := w.onWait
	w.onWait = func() {
		before()
		for tail < len(l.all) && l.all[tail].at.Add(time.Second) <= w.now {
			tail++
		}
		s := w.shard
		s.window.forget(w.now)
		if n := len(l.all) - tail; n > s.window.total+s.reserved {
			w.tb.Errorf("%d packets in the last second, %d are booked and %d reserved", n, s.window.total, s.reserved)
			w.onWait = before
		}
	}
}

// late has a peer answer each segment later by less than most, by chance.
func late(most time.Duration, peer func(rtt time.Duration) peerFunc) func(rtt time.Duration) peerFunc {
	return func(rtt time.Duration) peerFunc {
		return func(s *sim, p *wire.Packet) { peer(rtt+time.Duration(s.rng.Int64N(int64(most))))(s, p) }
	}
}

func cookies(t *Target) { t.Params.DetectCookies, t.Params.Timeout = true, 3*time.Second }

func timeWait(t *Target) {
	passiveClose(t)
	t.Params.Kind, t.Params.Measure, t.Params.After = probe.TimeWaitProbe, probe.MeasureReuse, 300*time.Millisecond
}

// responds answers what is sent by data and, later, a FIN.
func responds(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		f := p.Segment.Flags
		switch {
		case f == probe.SYN:
			listening(rtt)(s, p)
		case f.Has(probe.FIN):
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535})
		case p.Segment.Len > 0:
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535, Len: 100})
			s.reply(p, rtt+20*time.Millisecond, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: p.Segment.Ack.Add(100), Ack: p.Segment.End(), Window: 65535})
		}
	}
}

// kinds are the targets that send more than a SYN and a RST, and their peers.
var kinds = []struct {
	name string
	kind func(*Target)
	peer func(rtt time.Duration) peerFunc
}{
	{"active_close", activeClose, closes},
	{"passive_close", passiveClose, closesFirst},
	{"data", passiveClose, responds},
	{"time_wait", timeWait, closesFirst},
	{"cookies", cookies, listening},
	{"all", nil, nil},
}

// crowd adds targets of a kind, or of all of them, on few addresses, at a port of each.
func (w *world) crowd(kind, addresses, ports int, peer func(func(time.Duration) peerFunc) peerFunc) {
	for a := range addresses {
		for i := range ports {
			k := kinds[kind]
			if k.kind == nil {
				k = kinds[(a+i)%(len(kinds)-1)]
			}
			x, _ := w.target(uint64(a*1000+i), fmt.Sprintf("198.19.0.%d:%d", 1+a, 1000+i), k.kind)
			w.peers[x.Remote] = peer(k.peer)
			w.add(x)
		}
	}
}

// within checks that no second of every segment that left, wherever it begins, has more than
// so many above a limit, and returns what there was room for in all seconds.
func (l *wireLog) within(t *testing.T, limits Limits, addresses, seconds, above int) (room int) {
	t.Helper()
	all, each := l.most(time.Second, packets), 0
	for a := range addresses {
		to := netip.AddrFrom4([4]byte{198, 19, 0, byte(1 + a)})
		each = max(each, l.most(time.Second, func(s *sent) int {
			if s.to == to {
				return 1
			}
			return 0
		}))
	}
	if all > limits.Global+above || each > limits.PerAddress+above {
		t.Errorf("%d packets in a second, %d to one address, the limits are %d and %d", all, each, limits.Global, limits.PerAddress)
	}
	room = min(limits.Global, limits.PerAddress*addresses) * seconds
	t.Logf("most %d and %d, on average %d %% of the limit", all, each, 100*len(l.all)/room)
	return room
}

// Whatever a conversation is to send it sends when its peer has done something. However
// late that is, no second has more than the limits.
func TestLimitsOfLatePeers(t *testing.T) {
	const addresses, ports = 4, 60
	for _, limits := range []Limits{{Global: 120, PerAddress: 40}, {Global: 1000, PerAddress: 17}, {Global: 31, PerAddress: 1000}} {
		for kind := range kinds {
			t.Run(fmt.Sprintf("%s/%d,%d", kinds[kind].name, limits.Global, limits.PerAddress), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *Config) { c.Limits = limits })
				log := w.logWire()
				w.booksHold(log)
				w.crowd(kind, addresses, ports, func(p func(time.Duration) peerFunc) peerFunc { return late(900*time.Millisecond, p)(time.Millisecond) })
				for i := range 5 {
					w.after(time.Duration(i)*7*time.Second+3*time.Second, func() { w.stallFor(time.Duration(w.rng.IntN(300)) * time.Millisecond) })
				}
				w.refuse = func(*Packet) bool { // a slow send, as when preempted
					if w.rng.IntN(200) == 0 {
						w.advance(20*time.Millisecond, false)
					}
					return false
				}
				w.goOn(40 * time.Second)
				w.queued = len(w.delays) // less the second SYNs
				w.audit()
				room := log.within(t, limits, addresses, 40, 0)
				if len(log.all) < room/5 || w.skips[SkipRateLimit] == 0 {
					t.Errorf("%d packets, room is for %d; skipped %v", len(log.all), room, w.skips)
				}
			})
		}
	}
}

// Where peers answer within 50 ms, what is reserved keeps little from being sent.
func TestReservedLetsThrough(t *testing.T) {
	const addresses, ports = 4, 60
	for _, limits := range []Limits{{Global: 120, PerAddress: 200}, {Global: 1000, PerAddress: 30}} {
		for kind := range kinds {
			t.Run(fmt.Sprintf("%s/%d,%d", kinds[kind].name, limits.Global, limits.PerAddress), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *Config) { c.Limits = limits })
				log := w.logWire()
				w.booksHold(log)
				w.crowd(kind, addresses, ports, func(p func(time.Duration) peerFunc) peerFunc { return p(50 * time.Millisecond) })
				w.goOn(40 * time.Second)
				w.queued = len(w.delays) // less the second SYNs
				w.audit()
				room := log.within(t, limits, addresses, 40, 0)
				if len(log.all) < room*60/100 {
					t.Errorf("%d packets, room is for %d", len(log.all), room)
				}
			})
		}
	}
}

// lossy has 5 % of what is sent to a peer not arrive there.
func lossy(peer peerFunc) peerFunc {
	return func(s *sim, p *wire.Packet) {
		if s.rng.IntN(20) > 0 {
			peer(s, p)
		}
	}
}

// What goes again because it was lost may be beyond what was reserved, and counts as it goes:
// with 5 % lost each way, next to nothing is above the limits.
func TestLimitsUnderLoss(t *testing.T) {
	const addresses, ports = 4, 60
	for _, limits := range []Limits{{Global: 120, PerAddress: 200}, {Global: 1000, PerAddress: 30}} {
		for kind := range kinds {
			for _, most := range []time.Duration{time.Millisecond, 900 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s/%d,%d/%v", kinds[kind].name, limits.Global, limits.PerAddress, most), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(c *Config) { c.Limits = limits })
					log := w.logWire()
					w.booksHold(log)
					w.impair = func() (int, time.Duration) { return min(1, w.rng.IntN(20)), 0 }
					w.crowd(kind, addresses, ports, func(p func(time.Duration) peerFunc) peerFunc {
						return lossy(late(most, p)(50 * time.Millisecond))
					})
					w.goOn(120 * time.Second)
					w.queued = len(w.delays) // less the second SYNs
					w.audit()
					room := log.within(t, limits, addresses, 120, 2)
					if len(log.all) < room/5 {
						t.Errorf("%d packets, room is for %d", len(log.all), room)
					}
				})
			}
		}
	}
}

// Peers that say no more than a SYN-ACK have our RSTs again and again: no second has more
// than the limits for that, that in which the loop ends or all is forbidden included.
func TestLimitsOfSilentPeers(t *testing.T) {
	const addresses, ports = 4, 100
	for name, end := range map[string]func(w *world){
		"stops": func(*world) {},
		"denies": func(w *world) {
			all := &forbidden{}
			for a := range addresses {
				(*all)[netip.AddrFrom4([4]byte{198, 19, 0, byte(1 + a)})] = true
			}
			w.shard.SetLimits(Limits{Global: 120, PerAddress: 40, Rules: all})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := Limits{Global: 120, PerAddress: 40}
			w := newWorld(t, func(c *Config) { c.Limits = limits })
			w.churn = true
			log := w.logWire()
			w.booksHold(log)
			w.crowd(0, addresses, ports, func(func(time.Duration) peerFunc) peerFunc { return listening(10 * time.Millisecond) })
			for _, l := range w.ledgers {
				l.target.Params.Timeout = 900 * time.Millisecond
			}
			w.after(60*time.Second, func() { end(w) })
			w.run(60*time.Second + 10*time.Millisecond)
			room := log.within(t, limits, addresses, 60, 2) // what is open is reset twice
			if again := float64(w.resets) / float64(w.syns); len(log.all) < room/2 || again < 6 {
				t.Errorf("%d packets, room is for %d; %.1f RSTs a conversation", len(log.all), room, again)
			}
		})
	}
}
