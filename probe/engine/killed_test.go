package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// lives runs a shard after the other at one peer, with a gap between them. What each says
// at its end is lost, as by kill -9; then ended, if there is one, is told.
func lives(t *testing.T, n int, d, gap time.Duration, peer *quietPeer, change func(*Target), ended func(life int)) (w *world, ledgers []*ledger) {
	var now probe.Instant
	for life := range n {
		w = newWorld(t, nil)
		if life > 0 {
			w.now = now.Add(gap)
			w.shard.born = w.now
		}
		w.peer = peer.answer
		x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
			activeClose(x)
			x.Interval, x.Params.Timeout, x.Params.Hold = 200*time.Millisecond, 5*time.Second, 2*time.Second
			if change != nil {
				change(x)
			}
		})
		w.add(x)
		peer.cut = false
		w.after(d, func() { peer.cut = true })
		w.goOn(d)
		now = w.now
		ledgers = append(ledgers, l)
		if ended != nil {
			ended(life)
		}
	}
	return w, ledgers
}

// A probed that is killed closes nothing. What its peers hold for that is no failure of
// theirs in the next life, which finds it when the four-tuples come round, and closes it.
func TestKilledBefore(t *testing.T) {
	for name, change := range map[string]func(*Target){
		"in turn": nil,
		"often": func(x *Target) { // beyond the ration of RSTs to what nobody believes
			x.Interval, x.Params.Hold = 50*time.Millisecond, time.Second
		},
		"passive_close": func(x *Target) {
			x.Params = probe.Params{Kind: probe.PassiveClose, Timeout: 3 * time.Second, Linger: 2 * time.Second}
		},
		"flows": func(x *Target) { x.Flows, x.Interval = 2, 3*time.Second },
		"later": nil,
	} {
		t.Run(name, func(t *testing.T) {
			peer, left := &quietPeer{held: make(map[[2]netip.AddrPort]opened)}, 0
			gap := time.Second
			if name == "later" { // than half of the numbers' round
				gap = 12 * time.Minute
			}
			w, ledgers := lives(t, 2, 40*time.Second, gap, peer, change, func(life int) {
				if life == 0 {
					left = len(peer.held)
				}
			})
			l := ledgers[1]
			discarded := l.discards[probe.DiscardSendError]
			if left == 0 || discarded != left || l.verdicts[probe.ChallengeACK] > 0 || sum(l.verdicts[:]) < 10 {
				t.Errorf("%d connections left by the first life; the second's verdicts are %v, discards %v", left, l.verdicts, l.discards)
			}
			for tuple, o := range peer.held {
				if age := w.now.Sub(o.since); age > 20*time.Second {
					t.Errorf("%v is still held, since %v", tuple, age)
				}
			}
			if n := len(w.troubles); n != left || n > 0 && w.troubles[0] != errBefore.Error() {
				t.Errorf("troubles %q", w.troubles)
			}
		})
	}
}

// A challenge ACK for another reason is a failure: of a peer that has no other answer, by
// the second round of the ports at the latest; where it acknowledges our SYN, or what was
// sent in this life, at once; and those who contradict each other are not heard.
func TestChallengedForOtherReasons(t *testing.T) {
	const round = 128
	for name, tt := range map[string]struct {
		ack      func(syn probe.Seq) []probe.Seq
		want     probe.Reason
		discards int // at most
	}{
		"whatever":      {func(probe.Seq) []probe.Seq { return []probe.Seq{12345} }, probe.ChallengeACK, round},
		"our SYN":       {func(s probe.Seq) []probe.Seq { return []probe.Seq{s.Add(1)} }, probe.ChallengeACK, 0},
		"our ISS":       {func(s probe.Seq) []probe.Seq { return []probe.Seq{s} }, probe.ChallengeACK, 0},
		"contradictory": {func(s probe.Seq) []probe.Seq { return []probe.Seq{s.Add(3 << 30), s.Add(7 << 29)} }, probe.Timeout, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = func(s *sim, p *wire.Packet) {
				if p.Segment.Flags == probe.SYN {
					for i, ack := range tt.ack(p.Segment.Seq) {
						s.reply(p, time.Duration(i+10)*time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: ack, Window: 65535})
					}
				}
			}
			x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
				activeClose(x)
				x.Interval, x.Params.Timeout = 200*time.Millisecond, 150*time.Millisecond
			})
			w.add(x)
			first := 0
			w.after(round*x.Interval+time.Second, func() { first = sum(l.discards[:]) })
			w.run(3 * round * x.Interval)
			if sum(l.verdicts[:]) != l.verdicts[tt.want] || l.verdicts[tt.want] < 2*round-1 {
				t.Errorf("verdicts %v", l.verdicts)
			}
			if n := sum(l.discards[:]); n > tt.discards || n != first {
				t.Errorf("%d discards, %d of them in the first round", n, first)
			}
		})
	}
}

// What the network lost of ours is the network's: a connection of this life, which its peer
// holds since our RSTs did not come to it, is a failure when the four-tuple comes round.
func TestChallengedForOurOwn(t *testing.T) {
	peer := &quietPeer{held: make(map[[2]netip.AddrPort]opened)}
	w := newWorld(t, nil)
	w.peer = peer.answer
	x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
		activeClose(x)
		x.Interval, x.Params.Timeout, x.Params.Hold = 200*time.Millisecond, 5*time.Second, 2*time.Second
	})
	w.add(x)
	w.after(5*time.Second, func() { peer.cut = true })
	w.after(20*time.Second, func() { peer.cut = false })
	w.run(60 * time.Second)
	if l.verdicts[probe.ChallengeACK] == 0 || sum(l.discards[:]) > 0 {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
}

// Nobody whom this life met when it was nine minutes old holds anything of a life before.
func TestChallengedByNewPeers(t *testing.T) {
	for _, flows := range []int{0, 2} {
		w := newWorld(t, nil)
		w.shard.born = w.now.Add(-issSpan)
		w.peer = func(s *sim, p *wire.Packet) {
			if p.Segment.Flags == probe.SYN {
				s.reply(p, 10*time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: 12345, Window: 65535})
			}
		}
		for i := range 8 {
			x, _ := w.target(uint64(1+i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 0, byte(1 + i)}), 443).String(), func(x *Target) {
				activeClose(x)
				x.Flows, x.Interval, x.Params.Timeout = int32(flows), 200*time.Millisecond, 150*time.Millisecond
			})
			w.add(x)
		}
		w.run(5 * time.Second)
		if all := w.total(); all.verdicts[probe.ChallengeACK] < 100 || all.discards[probe.DiscardSendError] > 0 {
			t.Errorf("%d flows: verdicts %v, discards %v", flows, all.verdicts, all.discards)
		}
	}
}

// So it is where a name gets another address in the next life: its four-tuples are new, too.
func TestKilledBeforeAtAnotherAddress(t *testing.T) {
	for _, flows := range []int{0, 2} {
		w := newWorld(t, nil)
		w.churn = true
		to := func(remote string) *Target {
			x, _ := w.target(1, remote, func(x *Target) {
				activeClose(x)
				x.Flows, x.Interval, x.Params.Timeout = int32(flows), 200*time.Millisecond, 150*time.Millisecond
			})
			return x
		}
		first, then := to("198.19.0.1:443"), to("198.19.0.2:443")
		w.peer = closes(10 * time.Millisecond)
		held := make(map[uint16]bool)
		w.peers[then.Remote] = func(s *sim, p *wire.Packet) { // each four-tuple was left open two seconds before we began
			if p.Segment.Flags == probe.SYN && !held[p.SrcPort] {
				held[p.SrcPort] = true
				tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: then.Remote}
				s.reply(p, 10*time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: w.shard.secret.iss(&tuple, w.shard.born.Add(-2*time.Second)).Add(1), Window: 65535})
				return
			}
			closes(10*time.Millisecond)(s, p)
		}
		w.add(first)
		w.after(3*time.Second, func() { w.shard.Update([]*Target{then}, []*Target{first}) })
		w.run(4 * time.Second)
		if all := w.total(); all.verdicts[probe.ChallengeACK] > 0 || all.discards[probe.DiscardSendError] < 2 {
			t.Errorf("%d flows: verdicts %v, discards %v", flows, all.verdicts, all.discards)
		}
	}
}
