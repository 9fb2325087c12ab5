package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A synReceived is a peer that holds what it makes of a SYN as Linux does: in
// SYN-RECEIVED it sends its SYN-ACK again, answers another SYN by a challenge ACK, twice
// a second at most, and goes back to LISTEN by a RST or after 64 s.
type synReceived struct {
	held map[netip.AddrPort]*halfOpened
	dead bool
}

type halfOpened struct {
	irs, isn   probe.Seq
	challenged probe.Instant
	since      probe.Instant
}

func newSYNReceived() *synReceived { return &synReceived{held: make(map[netip.AddrPort]*halfOpened)} }

func (r *synReceived) answer(s *sim, p *wire.Packet) {
	const rtt = 10 * time.Millisecond
	if r.dead {
		return
	}
	from := netip.AddrPortFrom(p.Src, p.SrcPort)
	h := r.held[from]
	if h != nil && s.now.Sub(h.since) > 64*time.Second {
		delete(r.held, from)
		h = nil
	}
	switch q := p.Segment; {
	case q.Flags == probe.SYN && h == nil:
		h = &halfOpened{irs: q.Seq, isn: isn(p), since: s.now}
		r.held[from] = h
		again := *p
		for _, at := range []time.Duration{0, 1, 3, 7, 15, 31} {
			s.after(at*time.Second, func() {
				if r.held[from] == h {
					s.reply(&again, rtt, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: h.isn, Ack: h.irs.Add(1), Window: 65535})
				}
			})
		}
	case q.Flags == probe.SYN:
		if h.challenged == 0 || s.now.Sub(h.challenged) >= 500*time.Millisecond {
			h.challenged = s.now
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: h.isn.Add(1), Ack: h.irs.Add(1), Window: 65535})
		}
	case q.Flags.Has(probe.RST) && h != nil && q.Seq == h.irs.Add(1):
		delete(r.held, from)
	}
}

// keepsRSTs has the host let no RST out, its kernel's and ours, for as long as on says.
func (w *world) keepsRSTs(on bool) {
	w.noReset = on
	w.refuse = func(p *Packet) bool { return on && p.Segment[13]&byte(probe.RST) != 0 }
}

// A host lets RSTs out only now and then. What its peers hold for that is no failure of
// theirs, the next time that the four-tuple comes round; and once they leave again, the
// peers are left with nothing.
func TestHeldFourTuples(t *testing.T) {
	for name, change := range map[string]func(*Target){
		"in turn":       func(x *Target) { x.Interval = 50 * time.Millisecond },
		"flows":         func(x *Target) { x.Flows, x.Interval = 3, 500*time.Millisecond },
		"flows, often":  func(x *Target) { x.Flows, x.Interval = 2, 150*time.Millisecond },
		"guarded":       func(x *Target) { x.Interval, x.Params.ResetGrace = 50*time.Millisecond, 0 },
		"with a record": func(x *Target) { x.Interval, x.Recorder = 50*time.Millisecond, x.Sink.(*ledger) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			peer := newSYNReceived()
			w.peer = peer.answer
			x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
				x.Params.Timeout, x.Params.Linger = 400*time.Millisecond, 4*time.Second
				change(x)
			})
			w.add(x)
			for i := range 20 {
				at := time.Duration(i)*3800*time.Millisecond + time.Second
				w.after(at, func() { w.keepsRSTs(true) })
				w.after(at+3700*time.Millisecond, func() { w.keepsRSTs(false) })
			}
			good, left := 0, -1
			w.after(160*time.Second, func() { good = l.verdicts[probe.OK] })
			w.after(170*time.Second, func() {
				good = l.verdicts[probe.OK] - good
				left = 0
				for _, h := range peer.held {
					if age := w.now.Sub(h.since); time.Second < age && age < 64*time.Second {
						left++
					}
				}
			})
			w.run(171 * time.Second)
			if n := sum(l.verdicts[:]); n != l.verdicts[probe.OK] || n == 0 {
				t.Errorf("verdicts %v", l.verdicts)
			}
			if n := sum(l.discards[:]); n != l.discards[probe.DiscardSendError] || n == 0 {
				t.Errorf("discarded %v", l.discards)
			}
			if want := int(10 * time.Second / x.Interval); good < want-2 || left != 0 {
				t.Errorf("%d of %d good at the end, and the peer holds %d", good, want, left)
			}
		})
	}
}

// A host may let no RST out whenever a peer sends its SYN-ACK again, though it does in
// between: the peer is left with nothing before it gives the connection up by itself. So it is
// when the loop ends.
func TestHeldAreReset(t *testing.T) {
	for name, change := range map[string]func(*Target){
		"reserved": func(*Target) {},
		"guarded":  func(x *Target) { x.Params.ResetGrace = 0 },
		"cookies":  func(x *Target) { x.Params.DetectCookies = true },
	} {
		start := func(t *testing.T, every time.Duration) (*world, *synReceived) {
			w := newWorld(t, nil)
			peer := newSYNReceived()
			w.peer = peer.answer
			x, _ := w.target(1, "198.19.0.1:443", func(x *Target) {
				x.Interval, x.Params.Timeout, x.Params.Linger = every, 400*time.Millisecond, 2*time.Second
				change(x)
			})
			w.add(x)
			w.keepsRSTs(true)
			return w, peer
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, peer := start(t, time.Minute)
			left := -1
			w.onWire = func(_ probe.Instant, p *wire.Packet) {
				if p.Segment.Flags != probe.SYN || left >= 0 {
					return
				}
				left = 1
				for _, at := range []time.Duration{0, 1, 3, 7, 15, 31} {
					w.after(at*time.Second+700*time.Millisecond, func() { w.keepsRSTs(false) })
					w.after(at*time.Second-100*time.Millisecond, func() { w.keepsRSTs(true) })
				}
				w.after(35*time.Second, func() { left = len(peer.held) })
			}
			w.run(110 * time.Second)
			if left != 0 {
				t.Errorf("the peer holds %d", left)
			}
		})
		t.Run(name+", at the end", func(t *testing.T) {
			t.Parallel()
			w, peer := start(t, time.Second)
			w.after(20*time.Second-time.Millisecond, func() {
				if len(peer.held) < 10 {
					t.Errorf("the peer holds %d", len(peer.held))
				}
				w.keepsRSTs(false)
			})
			w.run(20 * time.Second)
			if len(peer.held) > 0 {
				t.Errorf("the peer holds %d", len(peer.held))
			}
		})
	}
}

// A host that never lets a RST out still notices, when the peers hold nothing any more,
// that one of them is silent.
func TestHeldAndSilent(t *testing.T) {
	w := newWorld(t, nil)
	w.keepsRSTs(true)
	peer := newSYNReceived()
	w.peer = peer.answer
	x, l := w.target(1, "198.19.0.1:443", func(x *Target) { x.Interval, x.Params.Timeout = 200*time.Millisecond, 150*time.Millisecond })
	w.add(x)
	var early, late [probe.NumReasons]int
	w.after(300*time.Second, func() { early, peer.dead = l.verdicts, true })
	w.after(300*time.Second+heldFor+time.Second, func() { late = l.verdicts })
	w.run(500 * time.Second)
	if early[probe.OK] < 300 || sum(early[:]) != early[probe.OK] {
		t.Errorf("verdicts %v while it answers", early)
	}
	n := l.verdicts[probe.Timeout] - late[probe.Timeout]
	if want := int((200*time.Second - heldFor - time.Second) / x.Interval); n < want-5 {
		t.Errorf("%d timeouts of %d once nothing is held", n, want)
	}
	if l.verdicts[probe.ChallengeACK] > 0 {
		t.Errorf("verdicts %v", l.verdicts)
	}
}

// A RST that has left is not this host's to answer for: a peer that does not take it is.
func TestNotHeldOnceTheRSTHasLeft(t *testing.T) {
	w := newWorld(t, nil)
	peer := newSYNReceived()
	w.peer = func(s *sim, p *wire.Packet) {
		if !p.Segment.Flags.Has(probe.RST) { // they are lost on the way
			peer.answer(s, p)
		}
	}
	x, l := w.target(1, "198.19.0.1:443", func(x *Target) { x.Interval, x.Params.Timeout = 100*time.Millisecond, 90*time.Millisecond })
	w.add(x)
	w.run(40 * time.Second)
	if l.verdicts[probe.ChallengeACK]+l.verdicts[probe.Timeout] < 100 || sum(l.discards[:]) != 0 {
		t.Errorf("verdicts %v, discarded %v", l.verdicts, l.discards)
	}
}

// However many four-tuples are held, memory is bounded.
func TestHeldIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.keepsRSTs(true)
	w.peer = listening(time.Millisecond)
	w.add(w.targets(4000, nil)...)
	most, slots := 0, int32(0)
	for i := range 60 {
		w.after(time.Duration(i)*time.Second, func() { most, slots = max(most, w.shard.holds.len()), max(slots, w.shard.table.len()) })
	}
	w.run(60 * time.Second)
	if most < maxHeld/2 || most > maxHeld+256 || slots > maxHeld+2*4000 {
		t.Errorf("%d four-tuples held, %d slots", most, slots)
	}
}

// A last ACK that this host has not let out leaves the peer in LAST-ACK for 108 s, where
// it answers the next SYN on the four-tuple by a challenge ACK. So another four-tuple is
// taken; if there is none, that probe is discarded, and our RST ends it.
func TestHeldInLastACK(t *testing.T) {
	for name, tt := range map[string]struct {
		ports       uint16
		least, most int  // discarded
		lost        bool // the first on the way, and those that answer the FIN again are kept here
	}{
		"no other four-tuples":       {10, 5, 12, false},
		"others":                     {40, 0, 0, false},
		"lost, no other four-tuples": {10, 5, 12, true},
		"lost, others":               {40, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heldInLastACK(t, tt.ports, tt.least, tt.most, tt.lost)
		})
	}
}

func heldInLastACK(t *testing.T, ports uint16, least, most int, lost bool) {
	w := newWorld(t, func(c *Config) { c.Guarded = Ports{61128, 61127 + ports} })
	type closing struct {
		acked probe.Seq
		since probe.Instant
		again bool // it has sent its FIN again
	}
	lastACK := make(map[uint16]closing)
	kept := false
	w.after(2*time.Second, func() { kept = true })
	w.after(12*time.Second, func() { kept = false })
	w.peer = func(s *sim, p *wire.Packet) {
		q := p.Segment
		at, holds := lastACK[p.SrcPort]
		if s.now.Sub(at.since) > 108*time.Second {
			holds = false
		}
		switch {
		case holds && q.Flags == probe.SYN:
			s.reply(p, 10*time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: at.acked, Window: 65535})
		case holds && lost && kept && !at.again && q.Flags == probe.ACK && q.Seq == at.acked:
			at.again = true
			lastACK[p.SrcPort] = at
			s.reply(p, 200*time.Millisecond, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: q.Ack - 1, Ack: at.acked, Window: 65535})
		case holds && (q.Flags.Has(probe.RST) || q.Seq == at.acked):
			delete(lastACK, p.SrcPort)
		case q.Flags.Has(probe.FIN):
			lastACK[p.SrcPort] = closing{q.End(), s.now, false}
			closes(10*time.Millisecond)(s, p)
		default:
			closes(10*time.Millisecond)(s, p)
		}
	}
	x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
		activeClose(x)
		x.Interval = 500 * time.Millisecond
	})
	x.Recorder = l
	w.add(x)
	w.after(30*time.Second, func() { // who waits for a transcript has it, held or not
		if told, ended := l.handed, sum(l.verdicts[:])+sum(l.discards[:]); told < ended-2 {
			t.Errorf("%d transcripts of %d conversations", told, ended)
		}
	})
	w.after(22*time.Second, func() { // 10 s after the last was kept
		for port, at := range lastACK {
			if w.now.Sub(at.since) > time.Second {
				t.Errorf("the peer still waits for our last ACK to port %d", port)
			}
		}
	})
	w.refuse = func(p *Packet) bool {
		at, holds := lastACK[binary.BigEndian.Uint16(p.Segment)]
		return kept && holds && (at.again || !lost) && probe.Flags(p.Segment[13]) == probe.ACK
	}
	w.run(160 * time.Second)
	if n := sum(l.verdicts[:]); n != l.verdicts[probe.OK] || n < 300 {
		t.Errorf("verdicts %v", l.verdicts)
	}
	if n := l.discards[probe.DiscardSendError]; n < least || n > most || n != sum(l.discards[:]) {
		t.Errorf("discarded %v", l.discards)
	}
}

// RSTs that lie in a queue of this host's for longer than our kernel has to send them leave
// together with our own: no more go into the queue in a second than the limit, our kernel's too.
func TestLimitsOfQueuedResets(t *testing.T) {
	const limit = 50
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: limit} })
	log := new(wireLog)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		if p.Segment.Flags.Has(probe.SYN) {
			log.all = append(log.all, sent{at, true, p.Dst})
		}
	}
	rst := func(p *wire.Packet) bool {
		if p.Segment.Flags.Has(probe.RST) {
			log.all = append(log.all, sent{w.now, false, p.Dst})
		}
		return p.Segment.Flags.Has(probe.RST)
	}
	w.held = rst
	var queues func()
	queues = func() {
		for _, b := range w.queue {
			w.after(300*time.Millisecond, func() {
				w.held = nil
				w.leaves(b)
				w.held = rst
			})
		}
		w.queue = w.queue[:0]
		w.after(time.Millisecond, queues)
	}
	w.after(0, queues)
	for i := range 20 {
		x, _ := w.target(uint64(i)*7919, fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
		w.peers[x.Remote] = newSYNReceived().answer
		w.add(x)
	}
	w.goOn(30 * time.Second)
	if n := log.most(time.Second, packets); n > limit+2 || w.resets < 30*20 {
		t.Errorf("%d packets in a second, the limit is %d; %d RSTs in all", n, limit, w.resets)
	}
}

// A firewall of this host kept RSTs for ten seconds and lets them out again: our kernel's, to SYN-ACKs that
// peers say again, are within the limit too, but for a moment's.
func TestLimitsOnceResetsLeaveAgain(t *testing.T) {
	const limit, targets = 220, 99
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: limit, PerAddress: limit} })
	log := new(wireLog)
	w.onWire = func(at probe.Instant, p *wire.Packet) {
		log.all = append(log.all, sent{at, p.Segment.Flags.Has(probe.SYN), p.Dst})
	}
	for i := range targets {
		x, _ := w.target(uint64(i)*7919, fmt.Sprintf("198.19.0.%d:80", 1+i), nil)
		w.peers[x.Remote] = newSYNReceived().answer
		w.add(x)
	}
	w.after(3*time.Second, func() { w.keepsRSTs(true) })
	w.after(13*time.Second, func() { w.keepsRSTs(false) })
	w.goOn(40 * time.Second)
	n := log.most(time.Second, packets)
	t.Logf("%d packets in the busiest second of %d, %d RSTs", n, len(log.all), w.resets)
	if n > limit*11/10 {
		t.Errorf("%d packets in a second, the limit is %d", n, limit)
	}
}

// Peers whose SYN-ACK takes longer than a second, whatever the timeout, have our kernel's RSTs as late:
// those are booked with the SYN, and a schedule that fits the limit finds room.
func TestLateAnswersTakeNoRoomTwice(t *testing.T) {
	for _, timeout := range []time.Duration{900 * time.Millisecond, 3 * time.Second} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 24, PerAddress: 24} })
		w.peer = listening(1100 * time.Millisecond)
		log := w.logWire()
		for i := range uint16(10) {
			x, _ := w.target(uint64(i)*7919, netip.AddrPortFrom(netip.MustParseAddr("198.19.0.1"), 1000+i).String(), func(x *Target) { x.Params.Timeout = timeout })
			w.add(x)
		}
		w.run(60 * time.Second)
		if n := log.most(time.Second, packets); sum(w.skips[:]) > 0 || n > 24 {
			t.Errorf("timeout %v: skips %v, %d packets in a second", timeout, w.skips, n)
		}
	}
}

// A peer that says its SYN-ACK again and again, and whoever forges some, has our kernel answer each.
// That takes no room of other targets'.
func TestRepeatedSYNACKsTakeNoRoom(t *testing.T) {
	for name, off := range map[string]uint32{"the peer's": 0, "forged": 7} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 40, PerAddress: 40} })
		hostile, _ := w.target(1, "198.19.0.1:443", nil)
		w.peer = func(s *sim, p *wire.Packet) {
			listening(time.Millisecond)(s, p)
			if p.Segment.Flags != probe.SYN || p.Dst != hostile.Remote.Addr() {
				return
			}
			syn := *p
			for i := range 200 {
				s.after(time.Duration(10*i)*time.Millisecond, func() {
					s.reply(&syn, 0, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(&syn), Ack: syn.Segment.Seq.Add(1 + off), Window: 65535})
				})
			}
		}
		w.add(hostile)
		for i := range 9 {
			x, _ := w.target(uint64(2+i)*7919, fmt.Sprintf("198.19.1.%d:443", 1+i), nil)
			w.add(x)
		}
		w.run(20 * time.Second)
		if n := sum(w.skips[:]); n > 0 || w.resets < 1000 {
			t.Errorf("%s: skips %v, %d RSTs", name, w.skips, w.resets)
		}
	}
}

// forgets is a Recorder that keeps nothing.
type forgets struct{}

func (forgets) Settled(*probe.Transcript) {}
func (forgets) Record(*probe.Transcript)  {}

// Nor is there a transcript for each of those whose RSTs this host refuses, for as long as they go again.
func TestHeldHaveNoTranscripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.keepsRSTs(true)
	for _, x := range w.targets(400, func(x *Target) { x.Recorder = forgets{} }) {
		w.peers[x.Remote] = newSYNReceived().answer
		w.add(x)
	}
	most := 0
	for i := range 60 {
		w.after(time.Duration(i)*time.Second, func() { most = max(most, w.shard.table.transcripts.used()) })
	}
	w.goOn(60 * time.Second)
	if most > 6*400 { // those that are open, of a first SYN-ACK or of one that came again
		t.Errorf("%d transcripts at once of 400 probes a second", most)
	}
}

// A path takes the first RSTs from a peer, and this host keeps that which answers the SYN-ACK of
// seven seconds later: the peer holds the connection for what is our doing.
func TestHeldLater(t *testing.T) {
	for name, change := range map[string]func(*Target){
		"reserved": func(*Target) {},
		"guarded":  func(x *Target) { x.Params.ResetGrace = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			peer, began := newSYNReceived(), w.now
			w.peer = func(s *sim, p *wire.Packet) {
				if s.now.Sub(began) > 5*time.Second || !p.Segment.Flags.Has(probe.RST) {
					peer.answer(s, p)
				}
			}
			x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
				x.Interval, x.Params.Timeout, x.Params.Linger = 100*time.Millisecond, 90*time.Millisecond, 3900*time.Millisecond
				change(x)
			})
			w.add(x)
			w.after(5*time.Second, func() { w.keepsRSTs(true) })
			w.after(9*time.Second, func() { w.keepsRSTs(false) })
			w.run(60 * time.Second)
			if n := l.verdicts[probe.OK]; n < int(50*time.Second/x.Interval) || sum(l.verdicts[:]) != n {
				t.Errorf("verdicts %v, discarded %v", l.verdicts, l.discards)
			}
		})
	}
}
