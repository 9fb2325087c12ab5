package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// takesLittle is a peer that takes segments of so many octets only, in order, and closes
// when we do.
func takesLittle(mss uint16) peerFunc {
	next := make(map[uint16]probe.Seq)
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
			if seg.Seq == next[p.SrcPort] {
				next[p.SrcPort] = seg.End()
				answer.Flags |= f & probe.FIN
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
				w.run(30 * time.Second)
				log.within(t, limits, 2, 30, 0)
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
