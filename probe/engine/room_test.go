package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// takesLittle is a peer that takes segments of so many octets only, in any order, and closes
// when we do.
func takesLittle(mss uint16) peerFunc {
	next := make(map[uint16]probe.Seq)
	type at struct {
		port uint16
		seq  probe.Seq
	}
	ahead := make(map[at]probe.Segment)
	return func(s *sim, p *wire.Packet) {
		seg := &p.Segment
		switch f := seg.Flags; {
		case f == probe.SYN:
			next[p.SrcPort] = seg.Seq.Add(1)
			s.reply(p, time.Millisecond, &probe.Segment{
				Flags: probe.SYN | probe.ACK, Seq: isn(p), Ack: seg.Seq.Add(1), Window: 65535,
				Options: probe.Options{Set: probe.OptMSS, MSS: mss},
			})
		case f.Has(probe.RST), seg.SegLen() == 0:
		default:
			answer := probe.Segment{Flags: probe.ACK, Seq: seg.Ack, Window: 65535}
			ahead[at{p.SrcPort, seg.Seq}] = *seg
			for x, ok := ahead[at{p.SrcPort, next[p.SrcPort]}]; ok; x, ok = ahead[at{p.SrcPort, next[p.SrcPort]}] {
				delete(ahead, at{p.SrcPort, x.Seq})
				next[p.SrcPort] = x.End()
				answer.Flags |= x.Flags & probe.FIN
			}
			answer.Ack = next[p.SrcPort]
			s.reply(p, time.Millisecond, &answer)
		}
	}
}

// streams is a peer that sends for as long as it is acknowledged, window by window.
func streams(rtt time.Duration) peerFunc {
	sent := make(map[uint16]probe.Seq)
	return func(s *sim, p *wire.Packet) {
		seg := &p.Segment
		switch f := seg.Flags; {
		case f == probe.SYN:
			listening(rtt)(s, p)
			sent[p.SrcPort] = isn(p).Add(1)
		case f.Has(probe.RST):
		default:
			for n := 0; sent[p.SrcPort].Less(seg.Ack.Add(20_000)) && n < 20; n++ {
				s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: sent[p.SrcPort], Ack: seg.End(), Window: 65535, Len: 1000})
				sent[p.SrcPort] = sent[p.SrcPort].Add(1000)
			}
		}
	}
}

func sends16K(t *Target) {
	activeClose(t)
	t.Params.Send = 16 << 10
	t.Send = string(make([]byte, t.Params.Send))
}

// How many segments of ours a connection has is the peer's to say, by the size that it
// takes and by what it sends. No second has more than the limits for that, and what
// becomes of such a connection is no failure of the peer's.
func TestLimitsOfGreedyPeers(t *testing.T) {
	for name, greedy := range map[string]struct {
		kind func(*Target)
		peer func() peerFunc
	}{
		"small segments": {sends16K, func() peerFunc { return takesLittle(48) }},
		"streams":        {passiveClose, func() peerFunc { return streams(time.Millisecond) }},
	} {
		for _, limits := range []Limits{{Global: 100, PerAddress: 50}, {Global: 60, PerAddress: 24}, {Global: 300, PerAddress: 200}} {
			t.Run(fmt.Sprintf("%s/%d,%d", name, limits.Global, limits.PerAddress), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *Config) { c.Limits = limits })
				w.churn = true
				log := w.logWire()
				w.booksHold(log)
				var all []*ledger
				for i := range 6 {
					x, l := w.target(uint64(i), fmt.Sprintf("198.19.0.%d:%d", 1+i%2, 1000+i), greedy.kind)
					w.peers[x.Remote] = greedy.peer()
					all = append(all, l)
					w.add(x)
				}
				last := 0 // before our own end resets all
				w.after(29*time.Second, func() { last = len(log.all) })
				w.run(30 * time.Second)
				log.all = log.all[:last]
				log.within(t, limits, 2, 29, 0)
				settled, failed := 0, 0
				for _, l := range all {
					settled += l.settled()
					failed += sum(l.verdicts[1:]) - l.verdicts[probe.PeerNeverClosed]
				}
				if settled < 3 || failed > 0 {
					t.Errorf("%d probes are settled, %d of them failures", settled, failed)
				}
			})
		}
	}
}

// closesEvery is a peer that closes all that was opened at each of certain moments.
func closesEvery(d time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		seg := &p.Segment
		switch f := seg.Flags; {
		case f == probe.SYN:
			listening(time.Millisecond)(s, p)
		case f.Has(probe.FIN):
			s.reply(p, time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: seg.Ack, Ack: seg.End(), Window: 65535})
		case seg.Len > 0:
			s.reply(p, time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: seg.Ack, Ack: seg.End(), Window: 65535})
			s.reply(p, d-time.Duration(s.now)%d, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: seg.Ack, Ack: seg.End(), Window: 65535})
		}
	}
}

// Peers may hold hundreds of connections and close them all at one moment, in the midst of
// a schedule that asks for more than there is: no second has more than the limits, and each
// is closed in its turn, which is a good verdict.
func TestLimitsOfHoarders(t *testing.T) {
	for _, asked := range []int{0, 20, 60} { // half_open a second, beside
		t.Run(fmt.Sprint(asked), func(t *testing.T) {
			t.Parallel()
			limits := Limits{Global: 1000, PerAddress: 50}
			w := newWorld(t, func(c *Config) { c.Limits = limits })
			w.churn = true
			w.peer = listening(time.Millisecond)
			log := w.logWire()
			var all []*ledger
			for i := range 100 {
				x, l := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), passiveClose)
				w.peers[x.Remote] = closesEvery(30 * time.Second)
				x.Params.Timeout, x.Interval = time.Minute, 30*time.Second
				w.add(x)
				all = append(all, l)
			}
			for i := range asked {
				x, _ := w.target(uint64(1000+i), fmt.Sprintf("198.19.0.1:%d", 2000+i), nil)
				w.add(x)
			}
			w.run(200 * time.Second)
			log.within(t, limits, 1, 200, 0)
			good, settled := 0, 0
			for _, l := range all {
				good += l.verdicts[probe.OK]
				settled += l.settled() - l.discards[probe.DiscardShutdown]
			}
			if good < 15 || good < settled {
				t.Errorf("%d good of %d", good, settled)
			}
		})
	}
}

// All that the peers of one address close at one moment waits for the limit of that address,
// for minutes, and nobody else's probes for all of it.
func TestHoardersHoldUpNobodyElse(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 100, PerAddress: 20} })
	w.churn = true
	w.peer = listening(time.Millisecond)
	for i := range 900 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), passiveClose)
		w.peers[x.Remote] = closesEvery(500 * time.Second)
		x.Params.Timeout, x.Interval = time.Hour, 1000*time.Second
		w.add(x)
	}
	other, l := w.target(9999, "198.19.0.2:80", nil)
	w.add(other)
	most, without := 0, 0
	before := 0
	for at := time.Second; at < 700*time.Second; at += time.Second {
		w.after(at, func() {
			if l.settled() == before {
				without++
			}
			before = l.settled()
			for _, a := range w.shard.peers.byAddress {
				most = max(most, int(a.wanted))
			}
			w.tallyReserved()
		})
	}
	for _, change := range []struct {
		at         time.Duration
		perAddress int
	}{{660 * time.Second, 10}, {661 * time.Second, 30}} { // while they wait
		w.after(change.at, func() { w.shard.SetLimits(Limits{Global: 100, PerAddress: change.perAddress}) })
	}
	w.run(700 * time.Second)
	if most < 200 || without > 2 || w.skips[SkipRateLimit] > 0 {
		t.Errorf("%d waited; the other address had no probe in %d seconds, skips %v", most, without, w.skips)
	}
}

// What a reload takes away is reset as the new limits have room, and all of it.
func TestRemovalKeepsTheLimits(t *testing.T) {
	limits := Limits{Global: 60, PerAddress: 24}
	everything := &forbidden{}
	for i := range 4 {
		(*everything)[netip.AddrFrom4([4]byte{198, 19, 0, byte(1 + i)})] = true
	}
	for name, take := range map[string]func(w *world, all []*Target){
		"removed": func(w *world, all []*Target) {
			w.shard.Update(nil, all)
			w.shard.SetLimits(limits)
		},
		"denied": func(w *world, _ []*Target) {
			w.shard.SetLimits(Limits{Global: limits.Global, PerAddress: limits.PerAddress, Rules: everything})
		},
		"removed, then denied": func(w *world, all []*Target) {
			w.shard.Update(nil, all)
			w.shard.SetLimits(Limits{Global: limits.Global, PerAddress: limits.PerAddress, Rules: everything})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 600, PerAddress: 240} })
			w.churn = true
			w.peer = stays(10 * time.Millisecond)
			log := w.logWire()
			resets, logs := make(map[probe.FourTuple]bool), w.onWire
			w.onWire = func(at probe.Instant, p *wire.Packet) {
				if logs(at, p); p.Segment.Flags == probe.RST {
					resets[probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}] = true
				}
			}
			var all []*Target
			taken := false
			for i := range 200 {
				x, l := w.target(uint64(i), fmt.Sprintf("198.19.0.%d:%d", 1+i%4, 1000+i), passiveClose)
				l.onEach = func(o *probe.Observation) {
					if taken && o.Kind == probe.Discarded { // what is discarded from then on never left
						w.sourceless++
					}
				}
				x.Params.Timeout, x.Interval = time.Hour, time.Minute
				all = append(all, x)
			}
			w.add(all...)
			open, since := 0, probe.Instant(0)
			w.after(90*time.Second, func() {
				open, since = w.shard.table.open, w.now
				take(w, all)
			})
			w.after(91*time.Second, func() { taken = true })
			w.run(180 * time.Second)
			log.all = slices.DeleteFunc(log.all, func(s sent) bool { return s.at < since })
			log.within(t, limits, 4, 90, 0)
			if open < 100 || len(resets) < open || w.shard.table.open > 0 {
				t.Errorf("%d were open, %d reset, %d are open", open, len(resets), w.shard.table.open)
			}
		})
	}
}

// Under a low limit a peer that takes small segments gets all that there is to send, a segment
// or two for each that goes out of the second.
func TestDataKeptBackGoesOn(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 60, PerAddress: 60} })
	x, l := w.target(1, "198.19.0.1:80", func(x *Target) {
		sends16K(x)
		x.Params.Send = 6 << 10
		x.Send = x.Send[:x.Params.Send]
		x.Interval, x.Params.Timeout = 20*time.Second, 15*time.Second
	})
	w.peers[x.Remote] = takesLittle(48)
	w.add(x)
	w.run(60 * time.Second)
	if n := l.verdicts[probe.OK]; n < 2 || n < l.settled()-l.discards[probe.DiscardShutdown] {
		t.Errorf("%d good, verdicts %v, discards %v", n, l.verdicts, l.discards)
	}
}

// Where there is room, none of that keeps a probe from its figures.
func TestSmallSegmentsWhereThereIsRoom(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 200} })
	x, l := w.target(1, "198.19.0.1:80", sends16K)
	w.peers[x.Remote] = takesLittle(536)
	figures := 0
	l.onEach = func(o *probe.Observation) {
		if o.Kind == probe.Teardown && o.Duration >= 0 {
			figures++
		}
	}
	w.add(x)
	w.run(20 * time.Second)
	if n := l.verdicts[probe.OK]; n < 18 || figures < n || l.settled() > n {
		t.Errorf("%d good of %d, %d teardowns measured", n, l.settled(), figures)
	}
}

// Under a limit that is nearly used up, what went again to a peer that answers nothing may
// have found no room. All has left once, so that its silence is its own.
func TestNoRoomExcusesNoSilence(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.churn = true
	w.peer = listening(5 * time.Millisecond)
	x, l := w.target(999, "198.19.0.1:99", passiveClose)
	w.add(x)
	for i := range 97 {
		y, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
		w.add(y)
	}
	w.run(120 * time.Second)
	if n := l.discards[probe.DiscardStalled] + l.discards[probe.DiscardSendError]; n > 0 || l.verdicts[probe.Timeout] < 30 {
		t.Errorf("%d timeouts, %d excused", l.verdicts[probe.Timeout], n)
	}
}

// Prompts beside a FIN that find no room are sent by nobody later, and SYNs don't make way for them.
func TestPromptsTakeNoRoom(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 20} })
	w.churn = true
	w.peer = stays(time.Millisecond)
	for i := range 12 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), func(x *Target) {
			activeClose(x)
			x.Params.Hold, x.Params.Timeout, x.Interval = 9*time.Second, 120*time.Second, 600*time.Second
			x.Params.Prompt = true
		})
		w.add(x)
		w.after(time.Millisecond, func() { // they begin one after the other
			e := w.shard.targets[x]
			e.prompt, e.slot = true, w.now.Add(time.Duration(i)*400*time.Millisecond)
			w.shard.schedule.filter(func(k int32) bool { return k != e.index })
			w.shard.plan(e, e.slot)
		})
	}
	good := 0
	for i := range 12 {
		x, l := w.target(uint64(1000+i), fmt.Sprintf("198.19.0.1:%d", 2000+i), nil)
		x.Interval = 1100 * time.Millisecond
		w.after(8500*time.Millisecond, func() { w.add(x) }) // when the connections are there
		w.after(60*time.Second, func() { good -= l.verdicts[probe.OK] })
		w.after(120*time.Second, func() { good += l.verdicts[probe.OK] })
	}
	for at := 10 * time.Second; at <= 130*time.Second; at += time.Second {
		w.after(at, w.tallyReserved)
	}
	w.run(130 * time.Second)
	if asked := 12 * 600 / 11; good < asked*85/100 {
		t.Errorf("%d of %d probes in a minute", good, asked)
	}
}

// A peer that answers for its TIME-WAITs all at one moment, again and again, has no more of us
// than the limits allow.
func TestTimeWaitKeepsTheLimits(t *testing.T) {
	limits := Limits{Global: 20000, PerAddress: 200}
	w := newWorld(t, func(c *Config) { c.Limits = limits })
	w.churn = true
	log := w.logWire()
	for i := range 90 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), func(x *Target) {
			timeWait(x)
			x.Params.Linger, x.Interval = 4*time.Second, 4*time.Second
		})
		touched, closing := make(map[uint16]bool), closesFirst(time.Millisecond)
		w.peers[x.Remote] = func(s *sim, p *wire.Packet) {
			seg := &p.Segment
			if seg.Flags == probe.SYN && touched[p.SrcPort] {
				syn, together := *p, 4*time.Second-time.Duration(s.now)%(4*time.Second)
				for k := range 12 {
					at := time.Millisecond
					if k > 0 {
						at = together + time.Duration(k)*5*time.Millisecond
					}
					s.reply(&syn, at, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(p), Ack: seg.Seq.Add(1), Window: 65535})
				}
				delete(touched, p.SrcPort)
				return
			}
			touched[p.SrcPort] = touched[p.SrcPort] || seg.Flags == probe.SYN
			closing(s, p)
		}
		w.add(x)
	}
	w.goOn(60 * time.Second)
	log.within(t, limits, 1, 60, 0)
}

// serves is a server of so many octets, which sends as fast as a window of 64 kB is acknowledged.
func serves(size uint32, rtt time.Duration) peerFunc {
	const window, mss = 64240, 1448
	type answer struct{ first, next probe.Seq }
	answers := make(map[uint16]*answer)
	return func(s *sim, p *wire.Packet) {
		seg := &p.Segment
		switch f := seg.Flags; {
		case f == probe.SYN:
			listening(rtt)(s, p)
			answers[p.SrcPort] = &answer{isn(p).Add(1), isn(p).Add(1)}
		case f.Has(probe.RST):
		case f.Has(probe.FIN):
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: seg.Ack, Ack: seg.End(), Window: 65535})
		default:
			a := answers[p.SrcPort]
			if seg.Len == 0 && a.next == a.first {
				return // the handshake's ACK
			}
			end := a.first.Add(size)
			for at := rtt; a.next.Less(end) && a.next.Add(mss).LessEq(seg.Ack.Add(window)); at += 12 * time.Microsecond {
				n, flags := min(mss, uint32(end.Sub(a.next))), probe.ACK
				if a.next.Add(n) == end {
					flags |= probe.FIN
				}
				s.reply(p, at, &probe.Segment{Flags: flags, Seq: a.next, Ack: seg.End(), Window: 65535, Len: n})
				a.next = a.next.Add(n)
			}
		}
	}
}

// A large answer, whose acknowledgements are more than the limit has, comes to its end, and takes
// nobody else's room: it is acknowledged less often once one has waited.
func TestDownloadsUnderTheLimits(t *testing.T) {
	for _, mega := range []uint32{1, 5, 10, 20} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
		w.churn = true
		x, l := w.target(1, "198.19.0.1:80", func(x *Target) {
			passiveClose(x)
			x.Params.Timeout, x.Interval = 5*time.Second, 15*time.Second
		})
		beside, b := w.target(2, "198.19.0.1:443", nil)
		w.peers[x.Remote], w.peers[beside.Remote] = serves(mega<<20, 200*time.Microsecond), listening(time.Millisecond)
		w.add(x, beside)
		w.run(60 * time.Second)
		if l.verdicts[probe.OK] < 3 || l.settled() > l.verdicts[probe.OK]+l.discards[probe.DiscardShutdown] || w.skips[SkipRateLimit] > 0 {
			t.Errorf("%d MiB: verdicts %v, discards %v; beside it %v, skips %v", mega, l.verdicts, l.discards, b.verdicts, w.skips)
		}
	}
}
