package probe_test

import (
	"time"

	"github.com/probed/probed/probe"
)

// A habit is what the application at the other end does.
type habit uint8

const (
	closesAtOnce habit = iota // when it has heard our FIN, or the whole request
	closesLate                // some time after
	closesNever
	closesFirst // as soon as it has accepted
	halfCloses  // when it has heard our FIN, after more data
	resets      // instead of closing
	queueFull   // nothing is ever taken from its accept queue
	numHabits
)

// A server is a small TCP as RFC 9293 has it: it holds no data ahead of its
// turn, sends again from the earliest, and accepts a RST at RCV.NXT only.
type server struct {
	on    bool
	habit habit
	reply uint32        // octets that it sends before it closes
	after time.Duration // closesLate

	state              probe.State
	iss, una, nxt      probe.Seq
	rcvNxt             probe.Seq
	end                probe.Seq // after the last octet that is to be sent: its FIN's number
	closing            bool      // the application has closed
	finSent            bool
	finHeard           bool
	epoch              int // of the retransmission timer
	tries              int
	gaveUp             bool // a timer of its own ended the connection
	challenged         probe.Instant
	request            uint32 // octets that it awaits
	rstSent, rstTaken  int
	heard              int  // segments with an ACK that came while it was in SYN-RECEIVED or later
	acted              bool // the application has done what it does
	everClosed         bool // both FINs were exchanged and acknowledged
	timeWait           time.Duration
	silent             bool // in TIME-WAIT to SYNs
	twFrom, twTo       probe.Instant
	twRestarts, twKill int
	twTaken            bool // a SYN took TIME-WAIT's place
	gone               bool // nobody listens after the first connection
	connections        int
	cookies            bool      // it holds nothing until an acknowledgement comes
	cookie             probe.Seq // that of a SYN at 0
}

// cookieSizes is how many sizes of segments a SYN cookie tells apart.
const cookieSizes = 4

// tick is an event of the server's own: its retransmission timer, its
// application, its TIME-WAIT.
const (
	tickResend = iota
	tickApplication
	tickTimeWait
)

func (s *sim) serverSays(f probe.Flags, seq probe.Seq, n uint32) {
	v := &s.srv
	seg := probe.Segment{Seq: seq, Flags: f, Len: n, Window: 65160, TTL: 57}
	if f.Has(probe.ACK) {
		seg.Ack = v.rcvNxt
	}
	s.carry(simEvent{simWhat: toTap, segment: seg})
}

func (s *sim) serverACK() { s.serverSays(probe.ACK, s.srv.nxt, 0) }

func (s *sim) serverChallenge() {
	if s.now >= s.srv.challenged {
		s.srv.challenged = s.now.Add(500 * time.Millisecond)
		s.serverACK()
	}
}

// serverHears is SEGMENT ARRIVES at the server.
func (s *sim) serverHears(seg *probe.Segment) {
	v := &s.srv
	switch v.state {
	case probe.Listen, probe.Closed:
		s.serverListens(seg)
		return
	case probe.TimeWait:
		s.serverInTimeWait(seg)
		return
	}
	switch {
	case seg.Flags.Has(probe.RST):
		switch {
		case seg.Seq == v.rcvNxt:
			v.rstTaken++
			s.serverEnds()
		case v.rcvNxt.Less(seg.Seq) && seg.Seq.Less(v.rcvNxt.Add(65535)):
			s.serverChallenge()
		}
	case seg.Flags.Has(probe.SYN):
		if v.state == probe.SynReceived && seg.Seq.Add(1) == v.rcvNxt {
			s.serverSays(probe.SYN|probe.ACK, v.iss, 0)
		} else {
			s.serverChallenge()
		}
	case v.state == probe.SynReceived && v.habit == queueFull:
		v.heard++
	default:
		v.heard++
		s.serverTakes(seg)
	}
}

// serverListens is LISTEN, or CLOSED with others listening on.
func (s *sim) serverListens(seg *probe.Segment) {
	v := &s.srv
	switch {
	case seg.Flags.Has(probe.RST):
	case v.cookies && seg.Flags.Has(probe.SYN):
		v.rcvNxt = seg.Seq.Add(1)
		s.serverSays(probe.SYN|probe.ACK, v.cookie.Add(uint32(seg.Seq)), 0)
	case v.cookies && uint32(seg.Ack.Sub(v.cookie.Add(uint32(seg.Seq)))) < cookieSizes: // both one beyond
		v.connections++
		v.state, v.iss, v.una, v.nxt, v.rcvNxt = probe.SynReceived, seg.Ack.Add(^uint32(0)), seg.Ack, seg.Ack, seg.Seq
		v.end = v.nxt
		v.closing, v.finSent, v.finHeard, v.acted, v.tries = false, false, false, false, 0
		s.serverTakes(seg)
	case v.gone && v.connections > 0, !seg.Flags.Has(probe.SYN):
		answer := probe.Segment{Flags: probe.RST, TTL: 57}
		if seg.Flags.Has(probe.ACK) {
			answer.Seq = seg.Ack
		} else {
			answer.Flags, answer.Ack = probe.RST|probe.ACK, seg.End()
		}
		s.carry(simEvent{simWhat: toTap, segment: answer})
	default:
		s.serverAccepts(seg, probe.Seq(s.rnd.Uint32()))
	}
}

func (s *sim) serverAccepts(seg *probe.Segment, iss probe.Seq) {
	v := &s.srv
	v.connections++
	v.state, v.iss, v.una, v.nxt, v.rcvNxt = probe.SynReceived, iss, iss, iss.Add(1), seg.Seq.Add(1)
	v.end = v.nxt
	v.closing, v.finSent, v.finHeard, v.acted, v.tries = false, false, false, false, 0
	s.serverSays(probe.SYN|probe.ACK, iss, 0)
	s.serverTimer(time.Second)
}

// serverInTimeWait is TIME-WAIT: anything with an ACK bit restarts it, a SYN
// beyond RCV.NXT ends it.
func (s *sim) serverInTimeWait(seg *probe.Segment) {
	v := &s.srv
	switch {
	case seg.Flags.Has(probe.RST):
		if seg.Seq == v.rcvNxt && !v.silent {
			v.twKill++
			s.serverEnds()
		}
	case seg.Flags.Has(probe.SYN) && v.rcvNxt.Less(seg.Seq):
		v.twTaken, v.twTo = true, s.now
		s.serverAccepts(seg, v.nxt.Add(65537))
	case seg.Flags.Has(probe.SYN):
		if !v.silent {
			s.serverChallenge()
		}
	default:
		v.twRestarts++
		if seg.SegLen() > 0 {
			s.serverACK()
		}
	}
}

// serverTakes is the synchronized states'.
func (s *sim) serverTakes(seg *probe.Segment) {
	v := &s.srv
	if v.nxt.Less(seg.Ack) || seg.Ack.Less(v.una) && v.state == probe.SynReceived {
		if v.state != probe.SynReceived {
			s.serverChallenge()
		}
		return
	}
	if v.state == probe.SynReceived {
		v.state = probe.Established
		v.una = v.iss.Add(1)
		s.serverTimer(0)
		s.serverActs()
		if v.state == probe.Closed {
			return
		}
	}
	if v.una.Less(seg.Ack) {
		v.una, v.tries = seg.Ack, 0
		if v.finSent && v.una == v.nxt {
			s.serverFINAcked()
		} else if v.una == v.nxt {
			s.serverTimer(0)
		} else {
			s.serverTimer(250 * time.Millisecond)
		}
		if v.state == probe.Closed || v.state == probe.Listen {
			return
		}
	}
	if seg.SegLen() > 0 {
		if n := uint32(v.rcvNxt.Sub(seg.Seq)); seg.Seq.LessEq(v.rcvNxt) && n < seg.SegLen() && !v.finHeard {
			data := seg.Len - min(n, seg.Len)
			v.rcvNxt = v.rcvNxt.Add(data)
			v.request -= min(data, v.request)
			if seg.Flags.Has(probe.FIN) {
				v.rcvNxt, v.finHeard = v.rcvNxt.Add(1), true
				s.serverHearsFIN()
			}
			s.serverActs()
		}
		if v.state == probe.Closed || v.state == probe.Listen {
			return
		}
		if sent := s.serverSends(); !sent {
			s.serverACK()
		}
		return
	}
	s.serverSends()
}

func (s *sim) serverHearsFIN() {
	v := &s.srv
	switch v.state {
	case probe.Established:
		v.state = probe.CloseWait
	case probe.FinWait1:
		v.state = probe.Closing
	case probe.FinWait2:
		s.serverWaits()
	}
}

func (s *sim) serverFINAcked() {
	v := &s.srv
	s.serverTimer(0)
	switch v.state {
	case probe.FinWait1:
		v.state = probe.FinWait2
	case probe.Closing:
		s.serverWaits()
	case probe.LastAck:
		v.everClosed = true
		s.serverEnds()
	}
}

// serverWaits enters TIME-WAIT.
func (s *sim) serverWaits() {
	v := &s.srv
	v.state, v.everClosed, v.twFrom = probe.TimeWait, true, s.now
	s.serverTimer(0)
	s.push(simEvent{at: s.now.Add(v.timeWait), simWhat: tick, what: tickTimeWait, epoch: v.connections})
}

// serverEnds deletes the connection.
func (s *sim) serverEnds() {
	s.srv.state = probe.Closed
	s.serverTimer(0)
}

// serverActs is the application, once what it waits for is there.
func (s *sim) serverActs() {
	v := &s.srv
	ready := v.finHeard || v.request == 0 && s.w.c.Kind != probe.ActiveClose
	switch {
	case v.acted || v.closing:
	case v.habit == closesFirst:
		v.acted = true
		s.serverCloses()
	case !ready || v.habit == closesNever || v.habit == queueFull:
	case v.habit == closesLate:
		v.acted = true
		s.push(simEvent{at: s.now.Add(v.after), simWhat: tick, what: tickApplication, epoch: v.connections})
	case v.habit == resets:
		v.acted = true
		s.serverSays(probe.RST|probe.ACK, v.nxt, 0)
		v.rstSent++
		s.serverEnds()
	default:
		v.acted = true
		s.serverCloses()
	}
}

// serverCloses writes the reply and CLOSEs.
func (s *sim) serverCloses() {
	v := &s.srv
	v.end, v.closing = v.nxt.Add(v.reply), true
	s.serverSends()
}

// serverSends sends what is new: all of it, and the FIN behind.
func (s *sim) serverSends() (sent bool) {
	v := &s.srv
	for v.closing && !v.finSent {
		sent = true
		n := min(uint32(v.end.Sub(v.nxt)), 1000)
		f := probe.ACK
		if v.nxt.Add(n) == v.end {
			f |= probe.FIN
			v.finSent = true
		}
		s.serverSays(f, v.nxt, n)
		v.nxt = v.nxt.Add(n)
		if v.finSent {
			v.nxt = v.nxt.Add(1)
			if v.state == probe.CloseWait {
				v.state = probe.LastAck
			} else {
				v.state = probe.FinWait1
			}
		}
	}
	if sent {
		s.serverTimer(250 * time.Millisecond)
	}
	return sent
}

// serverTimer starts the retransmission timer anew; 0 stops it.
func (s *sim) serverTimer(d time.Duration) {
	v := &s.srv
	v.epoch++
	if d > 0 {
		s.push(simEvent{at: s.now.Add(d), simWhat: tick, what: tickResend, epoch: v.epoch})
	}
}

// serverTicks is one of its timers going off.
func (s *sim) serverTicks(e *simEvent) {
	v := &s.srv
	switch e.what {
	case tickApplication:
		if e.epoch == v.connections && (v.state == probe.Established || v.state == probe.CloseWait) {
			s.serverCloses()
		}
	case tickTimeWait:
		if e.epoch == v.connections && v.state == probe.TimeWait {
			v.state, v.twTo = probe.Closed, s.now
		}
	case tickResend:
		if e.epoch != v.epoch {
			return
		}
		if v.tries == 8 {
			v.gaveUp = true
			s.serverEnds()
			return
		}
		v.tries++
		if v.state == probe.SynReceived {
			s.serverSays(probe.SYN|probe.ACK, v.iss, 0)
			s.serverTimer(time.Second << v.tries)
			return
		}
		n := uint32(0)
		if v.una.Less(v.end) {
			n = min(uint32(v.end.Sub(v.una)), 1000)
		}
		f := probe.ACK
		if v.finSent && v.una.Add(n) == v.end {
			f |= probe.FIN
		}
		s.serverSays(f, v.una, n)
		s.serverTimer(250 * time.Millisecond << v.tries)
	}
}
