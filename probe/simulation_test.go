package probe_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/probed/probed/probe"
)

// The simulation plays conversations in virtual time against a small reference
// peer over a path that loses, duplicates, reorders and delays, and compares
// what each concluded with what the path really did.

const (
	simSeed  = 20240611
	simCount = 500_000
	// simCountRace is as many as the race detector plays in the same time.
	simCountRace = 50_000
)

// A simWhat is one thing that happens in the simulated world.
type simWhat uint8

const (
	toPeer   simWhat = iota // a segment of ours reaches the peer
	toTap                   // something reaches our tap: a segment of the peer's or an ICMP error
	seenSent                // a segment of ours passes the tap on its way out
	refused                 // our host refuses a segment of ours
	dropped                 // our host drops one and says nothing
	resend                  // the peer's retransmission timer
	tick                    // something of the server's own
)

// A simEvent is something that happens at a moment.
type simEvent struct {
	at  probe.Instant
	seq int // breaks ties: first in, first out
	simWhat
	segment probe.Segment
	icmp    probe.ICMP
	epoch   int // resend: the SYN-RECEIVED that it belongs to; tick likewise
	what    int // tick: which
}

// A simPeerKind is what stands at the path's other end.
type simPeerKind uint8

const (
	listening simPeerKind = iota
	closed
	blackHole
	router     // answers with an ICMP error
	challenger // holds an old connection on this four-tuple
	numPeerKinds
)

// A sim is one conversation's world.
type sim struct {
	rnd    *rand.Rand
	events []simEvent // a small queue, sorted by time
	n      int        // events ever queued
	now    probe.Instant

	// The path.
	delay, jitter time.Duration
	loss, dup     float64

	// The peer, as RFC 9293 §3.10.7.2 and §3.10.7.4 have it.
	kind       simPeerKind
	icmp       probe.ICMP
	peer       probe.State
	peerISS    probe.Seq
	epoch      int // how often it entered SYN-RECEIVED
	resends    int
	openedBy   probe.Seq // the SYN's ISS
	rstArrived int       // of those that it accepted

	// Our host.
	kernelResets bool // answers SYN-ACKs to the port with a RST
	rstRefused   int  // RSTs that it would not send
	synStamp     probe.Instant
	synLeft      bool

	// What really happened at the tap, by its stamps, in order.
	truth []simEvent
	w     *watch
	iss   probe.Seq
	atEnd int // SYN-ACKs that came after the end
	got   [probe.NumObservations]int
	rtt   time.Duration

	// Of the kinds that go past the SYN-ACK.
	srv      server
	lost     int             // copies that the path dropped
	refusals int             // segments that our host would not send
	sentTo   probe.Seq       // the end of what left
	finSent  bool            // our FIN was handed to our host
	finLeft  probe.Instant   // when our FIN left first
	ackLeft  probe.Instant   // when anything behind our SYN did
	lags     time.Duration   // for how long our loop was late in all, where that was long
	busy     time.Duration   // by how much our loop is late always, at most
	longest  time.Duration   // the longest of these
	keptAt   probe.Instant   // when our host refused what nothing has made up for since; 0: nothing
	keptBack []probe.Segment // and what that is
	owed     time.Duration   // for how long it kept octets or a FIN
	owedAt   probe.Instant   // as keptAt, of those
	kept     time.Duration   // for how long it did in all
	figures  [probe.NumObservations]time.Duration
	least    time.Duration
	answer   probe.Answer
	synRead  probe.Instant // when our loop saw our SYN leave, from when on it reckons
	ranOut   probe.Instant // when the connection's time is up, as it said last
}

const simStart probe.Instant = 1_000_000_000_000

// push queues something.
func (s *sim) push(e simEvent) {
	e.seq = s.n
	s.n++
	i := len(s.events)
	for i > 0 && (s.events[i-1].at < e.at || s.events[i-1].at == e.at && s.events[i-1].seq < e.seq) {
		i--
	}
	s.events = slices.Insert(s.events, i, e) // latest first: taken from the end
}

// carry sends something over the path: lost, once or twice, each copy with a
// delay of its own, which reorders them.
func (s *sim) carry(e simEvent) {
	copies := 1
	switch p := s.rnd.Float64(); {
	case p < s.loss:
		s.lost++
		return
	case p < s.loss+s.dup:
		copies = 2
	}
	for range copies {
		c := e
		c.at = s.now.Add(s.delay + time.Duration(s.rnd.Int64N(int64(s.jitter)+1)))
		s.push(c)
	}
}

// send is what our host does with a segment of ours.
func (s *sim) send(seg probe.Segment) {
	s.finSent = s.finSent || seg.Flags.Has(probe.FIN)
	at := s.now.Add(time.Duration(1000 + s.rnd.IntN(20_000)))
	switch s.rnd.IntN(300) {
	case 0:
		s.push(simEvent{at: at, simWhat: refused, segment: seg})
		return
	case 1:
		s.push(simEvent{at: at, simWhat: dropped, segment: seg})
		return
	}
	s.push(simEvent{at: at, simWhat: seenSent, segment: seg})
}

// peerHears is SEGMENT ARRIVES at the peer.
func (s *sim) peerHears(seg *probe.Segment) {
	answer := probe.Segment{TTL: 57, Window: 65160}
	switch {
	case s.kind == blackHole:
	case s.kind == router:
		s.carry(simEvent{simWhat: toTap, icmp: probe.ICMP{V6: s.icmp.V6, Type: s.icmp.Type, Code: s.icmp.Code, Seq: seg.Seq}})
	case s.kind == challenger && !seg.Flags.Has(probe.RST):
		answer.Flags, answer.Seq, answer.Ack = probe.ACK, s.peerISS, s.iss.Add(123456)
		s.carry(simEvent{simWhat: toTap, segment: answer})
	case s.kind == challenger:
		if seg.Seq == s.iss.Add(123456) { // RFC 9293 §3.5.1, figure 9: aborts, and listens again
			s.kind, s.peer = listening, probe.Listen
		}
	case s.kind == closed:
		if !seg.Flags.Has(probe.RST) {
			answer.Flags, answer.Ack = probe.RST|probe.ACK, seg.End()
			s.carry(simEvent{simWhat: toTap, segment: answer})
		}
	case s.peer == probe.SynReceived && seg.Flags.Has(probe.RST):
		if seg.Seq == s.openedBy.Add(1) {
			s.peer = probe.Listen
			s.rstArrived++
		}
	case s.peer == probe.SynReceived: // the SYN once more: the SYN-ACK once more
		s.synAck()
	case !seg.Flags.Has(probe.RST):
		s.peer, s.openedBy = probe.SynReceived, seg.Seq
		s.peerISS = probe.Seq(s.rnd.Uint32())
		s.epoch++
		s.resends = 0
		s.synAck()
		s.push(simEvent{at: s.now.Add(time.Second), simWhat: resend, epoch: s.epoch})
	}
}

// synAck is the peer's answer in SYN-RECEIVED.
func (s *sim) synAck() {
	s.carry(simEvent{simWhat: toTap, segment: probe.Segment{Flags: probe.SYN | probe.ACK,
		Seq: s.peerISS, Ack: s.openedBy.Add(1), TTL: 57, Window: 65160}})
}

// peerResends retransmits the SYN-ACK at 1, 3, 7, 15, 31 s, and gives up after.
func (s *sim) peerResends(e *simEvent) {
	if s.peer != probe.SynReceived || e.epoch != s.epoch || s.resends == 5 {
		return
	}
	s.resends++
	s.synAck()
	s.push(simEvent{at: s.now.Add(time.Second << s.resends), simWhat: resend, epoch: e.epoch})
}

// stamp is the tap's for a moment: the two clocks run alike.
func stamp(t probe.Instant) probe.Stamp { return probe.Stamp{Wall: int64(t) + wallAhead, Clock: 1} }

// hostSees is the tap, in front of our kernel.
func (s *sim) hostSees(e *simEvent) {
	f := e.segment.Flags
	if s.kernelResets && e.icmp.Type == 0 && !f.Has(probe.RST) {
		rst := probe.Segment{Seq: e.segment.Ack, Flags: probe.RST}
		s.push(simEvent{at: s.now.Add(time.Duration(2000 + s.rnd.IntN(10_000))), simWhat: seenSent, segment: rst})
	}
}

// deliver hands the conversation one event.
func (s *sim) deliver(now probe.Instant, ev probe.Event) error {
	if kind, due := s.w.c.Timer(); kind == probe.UserTimeout {
		s.ranOut = due
	}
	out, err := s.w.step(now, ev)
	if err != nil {
		return err
	}
	for _, o := range out.Observations() {
		s.got[o.Kind]++
		s.figures[o.Kind] = o.Duration
		switch o.Kind {
		case probe.TimeWaitLasted:
			s.least = o.Least
		case probe.TimeWaitReuse:
			s.answer = o.Answer
		}
		if o.Kind == probe.HandshakeRTT {
			s.rtt = o.Duration
		}
	}
	for _, seg := range out.Segments() {
		s.send(seg)
	}
	return nil
}

// run plays one conversation to its end and the world around it until nothing
// is left to happen.
func (s *sim) run() error {
	s.now = simStart
	// inbox holds what the tap has shown and the loop has not read.
	var inbox []simEvent
	wake := probe.Instant(-1)
	if err := s.deliver(s.now, probe.Event{Kind: probe.Open, Segment: probe.Segment{Seq: s.iss, Flags: probe.SYN, Window: 64240}}); err != nil {
		return err
	}
	for range 10_000 {
		// The loop wakes some time after something is there to do, reads all
		// that the tap shows, in order, and lets its timers go off after.
		if wake < 0 {
			next := probe.Instant(-1)
			if kind, due := s.w.c.Timer(); kind != 0 {
				next = due
			}
			if len(inbox) > 0 {
				next = s.now
			}
			if next >= 0 {
				wake = max(next, s.now).Add(s.lag())
			}
		}
		if wake >= 0 && (len(s.events) == 0 || s.events[len(s.events)-1].at > wake) {
			s.now, wake = wake, -1
			for i := range inbox {
				if err := s.read(&inbox[i]); err != nil {
					return err
				}
			}
			inbox = inbox[:0]
			if kind, due := s.w.c.Timer(); kind != 0 && s.now >= due {
				ev := probe.Event{Kind: kind}
				if kind == probe.Reopen {
					ev.Segment = probe.Segment{Seq: s.iss.Add(1 << 20), Flags: probe.SYN, Window: 64240}
				}
				if err := s.deliver(s.now, ev); err != nil {
					return err
				}
			}
			continue
		}
		if len(s.events) == 0 {
			if s.srv.on {
				return s.judgeClosing()
			}
			return s.judge()
		}
		e := s.events[len(s.events)-1]
		s.events = s.events[:len(s.events)-1]
		s.now = e.at
		switch e.simWhat {
		case toPeer:
			if s.srv.on {
				s.serverHears(&e.segment)
			} else {
				s.peerHears(&e.segment)
			}
		case tick:
			s.serverTicks(&e)
		case resend:
			s.peerResends(&e)
		case toTap:
			s.hostSees(&e)
			inbox = append(inbox, e)
			wake = s.sooner(wake)
		case seenSent:
			inbox = append(inbox, e)
			wake = s.sooner(wake)
			s.left(&e)
			s.carry(simEvent{simWhat: toPeer, segment: e.segment})
		case refused, dropped:
			s.refusals++
			switch {
			case e.segment.Flags.Has(probe.RST):
				s.rstRefused++
			default:
				if s.keptAt == 0 {
					s.keptAt = e.at
				}
				s.keptBack = append(s.keptBack, e.segment)
				if s.owedAt == 0 && e.segment.SegLen() > 0 {
					s.owedAt = e.at
				}
			}
			if e.simWhat == refused {
				inbox = append(inbox, e)
				wake = s.sooner(wake)
			}
		}
	}
	return fmt.Errorf("the world never comes to rest")
}

// left notes what left our host, and when.
func (s *sim) left(e *simEvent) {
	g := &e.segment
	switch {
	case g.Flags.Has(probe.SYN) && g.Seq == s.iss:
		s.synStamp, s.synLeft = e.at, true
		s.sentTo = s.iss.Add(1)
		return
	case g.Flags.Has(probe.SYN) || g.Flags.Has(probe.RST):
		return
	}
	if g.Flags.Has(probe.FIN) && s.finLeft == 0 {
		s.finLeft = e.at
	}
	if s.ackLeft == 0 {
		s.ackLeft = e.at
	}
	if s.sentTo.Less(g.End()) {
		s.sentTo = g.End()
	}
	s.keptBack = slices.DeleteFunc(s.keptBack, func(k probe.Segment) bool {
		return e.segment.Seq.LessEq(k.Seq) && k.End().LessEq(e.segment.End()) || k.SegLen() == 0 && k.Seq.LessEq(s.sentTo)
	})
	if s.owedAt != 0 && !slices.ContainsFunc(s.keptBack, func(k probe.Segment) bool { return k.SegLen() > 0 }) {
		s.owed, s.owedAt = s.owed+e.at.Sub(s.owedAt), 0
	}
	if s.keptAt != 0 && len(s.keptBack) == 0 {
		s.kept, s.keptAt = s.kept+e.at.Sub(s.keptAt), 0
	}
}

// lag is how long our loop takes to wake up: mostly at once, now and then very
// late.
func (s *sim) lag() time.Duration {
	if s.rnd.IntN(50) == 0 {
		d := time.Duration(s.rnd.Int64N(int64(400 * time.Millisecond)))
		s.lags += d
		s.longest = max(s.longest, d)
		return d
	}
	if s.busy > 0 {
		d := time.Duration(s.rnd.Int64N(int64(s.busy) + 1))
		s.lags += d
		s.longest = max(s.longest, d)
		return d
	}
	return time.Duration(s.rnd.Int64N(int64(100 * time.Microsecond)))
}

// sooner moves a wake-up for a timer forward to a frame's.
func (s *sim) sooner(wake probe.Instant) probe.Instant {
	if at := s.now.Add(s.lag()); wake < 0 || at < wake {
		return at
	}
	return wake
}

// read delivers what the tap showed at some moment before now.
func (s *sim) read(e *simEvent) error {
	ev := probe.Event{Stamp: stamp(e.at), Segment: e.segment}
	switch {
	case e.simWhat == refused:
		ev = probe.Event{Kind: probe.SendFailed}
	case e.simWhat == seenSent:
		ev.Kind = probe.SegmentSent
		if s.synRead == 0 {
			s.synRead = s.now
		}
	case e.icmp.Type != 0:
		ev.Kind, ev.ICMP = probe.ICMPArrives, e.icmp
	default:
		ev.Kind = probe.SegmentArrives
	}
	if e.simWhat == toTap {
		if s.w.c.Done() {
			s.atEnd++
			if f := e.segment.Flags; s.srv.on && f.Has(probe.ACK) && !f.Has(probe.RST) {
				s.send(probe.Segment{Seq: e.segment.Ack, Flags: probe.RST}) // as the engine answers what nobody expects
			}
		} else {
			s.truth = append(s.truth, *e)
		}
	}
	return s.deliver(s.now, ev)
}
