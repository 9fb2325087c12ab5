package probe_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// An account is what the tap really showed of a connection, reckoned with
// nothing of probe's: which octets came, what was acknowledged, and when.
type account struct {
	synAck    bool
	irs       probe.Seq
	rcvNxt    probe.Seq
	got       map[probe.Seq]probe.Seq // stretches that came ahead, by their first octet
	fin       bool                    // the peer's FIN came
	finAt     probe.Seq
	acked     probe.Seq     // the highest acknowledgement
	finAcked  probe.Instant // when that of our FIN came
	finGot    probe.Instant // when the peer's FIN came first
	complete  bool
	reset     bool
	bare      int           // RSTs such as a prompt without a SYN cookie calls for
	again     int           // SYN-ACKs that were sent again while nothing else came
	againAt   probe.Instant // when the last of them came
	progress  bool
	lastWords probe.Instant
}

// read takes one segment that arrived in time.
func (a *account) read(s *sim, e *simEvent) {
	g := &e.segment
	f := g.Flags
	ourFIN := s.iss.Add(1 + s.w.c.Send + 1)
	switch {
	case a.complete || a.reset:
	case !a.synAck:
		if f&(probe.SYN|probe.ACK|probe.RST) == probe.SYN|probe.ACK && g.Ack == s.iss.Add(1) {
			a.synAck, a.irs, a.rcvNxt, a.acked = true, g.Seq, g.Seq.Add(1), g.Ack
			a.lastWords = e.at
		}
	case f.Has(probe.RST):
		a.reset = g.Seq == a.rcvNxt
		if s.w.c.Prompt && f == probe.RST && g.Seq == a.irs.Add(1) {
			a.bare++
			a.reset = a.reset && !s.srv.cookies // a prompt came before our ACK and our FIN
		}
	case f.Has(probe.SYN):
		if g.Seq == a.irs && !a.progress && s.ackLeft != 0 && s.ackLeft < e.at && e.at.Sub(a.lastWords) >= 500*time.Millisecond {
			a.again++
			a.againAt = e.at
		}
	case s.sentTo.Less(g.Ack):
	default:
		a.progress = a.progress || g.SegLen() > 0 || g.Ack != s.iss.Add(1)
		if a.acked.Less(g.Ack) {
			a.acked = g.Ack
			if g.Ack == ourFIN {
				a.finAcked = e.at
			}
		}
		a.text(g, e.at)
		a.complete = a.acked == ourFIN && a.fin && a.rcvNxt == a.finAt.Add(1)
	}
}

// text takes a segment's octets.
func (a *account) text(g *probe.Segment, at probe.Instant) {
	if g.Flags.Has(probe.FIN) && !a.fin {
		a.fin, a.finAt, a.finGot = true, g.Seq.Add(g.Len), at
	}
	if g.SegLen() == 0 || g.Seq.Add(g.Len).Less(a.rcvNxt) {
		return
	}
	if a.got == nil {
		a.got = make(map[probe.Seq]probe.Seq)
	}
	if to := g.Seq.Add(g.Len); a.got[g.Seq] == 0 || a.got[g.Seq].Less(to) {
		a.got[g.Seq] = to
	}
	for again := true; again; {
		again = false
		for from, to := range a.got {
			if from.LessEq(a.rcvNxt) && a.rcvNxt.Less(to) {
				a.rcvNxt, again = to, true
			}
		}
	}
	if a.fin && a.rcvNxt == a.finAt {
		a.rcvNxt = a.rcvNxt.Add(1)
	}
}

// wantClosing is the verdict by the account alone, d after our SYN.
func (s *sim) wantClosing(a *account, d time.Duration) probe.Reason {
	ourData := s.iss.Add(1 + s.w.c.Send)
	switch {
	case a.complete:
		return probe.OK
	case a.reset:
		return probe.Reset
	case !a.synAck:
		return probe.Timeout
	case !a.progress && a.again > 0 && (a.again > 1 || s.sentTo != s.iss.Add(1) || s.synStamp.Add(d).Sub(a.againAt) < 7*time.Second):
		return probe.AcceptQueueFull
	case a.fin && a.rcvNxt != a.finAt.Add(1):
		return probe.Timeout
	case s.finLeft != 0 && a.acked == ourData.Add(1):
		return probe.FINMissing
	case s.finLeft != 0 || s.finSent:
		return probe.FINUnacked
	case s.w.c.Kind != probe.ActiveClose && a.acked == ourData && s.sentTo == ourData:
		return probe.PeerNeverClosed
	}
	return probe.Timeout
}

// judgeClosing compares a connection's conclusions with the account, with what
// the server did, and with what it is left with.
func (s *sim) judgeClosing() error {
	w, v := s.w, &s.srv
	if !w.c.Done() {
		return fmt.Errorf("not done")
	}
	if !s.synLeft {
		return s.judgeUnsent()
	}
	a := s.accountOf(w.c.Timeout)
	want := s.wantClosing(&a, w.c.Timeout)
	measures := w.c.Measure != probe.NoMeasure && want == probe.OK
	switch {
	case w.seen[probe.Discarded] > 0:
		// A FIN that was to leave as the time ran out was not seen leaving.
		atTheEnd := s.finSent && (s.finLeft == 0 || s.finLeft.Sub(s.synStamp) > w.c.Timeout-time.Millisecond)
		// A success after the timeout is not one, nor a failure if we were late; and the
		// answer to a SYN that went late on the old four-tuple is none to ours.
		tooLate := s.excused(&a, want) || w.c.Measure == probe.MeasureReuse && s.lags > 500*time.Millisecond
		if !atTheEnd && !tooLate && !s.finWasYoung() && !s.talked() {
			return fmt.Errorf("discarded, want %v: late by %v, refused %d for %v", want, s.lags, s.refusals, s.kept)
		}
	case measures:
		if w.verdict != probe.OK && (w.verdict != probe.Timeout || !v.silent && s.lost == 0 && s.refusals == 0) {
			return fmt.Errorf("verdict %v of a measure", w.verdict)
		}
	case 0 < a.bare && a.bare <= 2 && s.lost+s.refusals > 0 && w.verdict == probe.FINUnacked && want == probe.Reset:
		// The path lost most of the RSTs: one that prompts meet where there are SYN cookies is not told from that.
	case w.verdict != want && !s.wantedLater(w.verdict):
		return fmt.Errorf("verdict %v, want %v", w.verdict, want)
	}
	if w.verdict == probe.OK && w.seen[probe.Verdict] > 0 && !v.everClosed && v.rstSent == 0 && (!v.finSent || !v.finHeard) {
		return fmt.Errorf("ok, but the server has not closed")
	}
	if d := min(s.owed, w.c.Timeout); d >= 100*time.Millisecond && w.seen[probe.Verdict] > 0 && w.verdict != probe.OK && !measures {
		if b := s.accountOf(w.c.Timeout + d); b.complete {
			return fmt.Errorf("verdict %v of who closed in time but for the %v that our host kept what he waited for", w.verdict, s.owed)
		}
	}
	a = s.accountOf(w.c.Timeout + s.lagged())
	if err := s.judgeFigures(&a); err != nil {
		return err
	}
	// Our ACK may come when the connection that our FIN has opened and closed is gone, and open another.
	again := v.cookies && v.connections > 1
	if s.lost == 0 && s.rstRefused == 0 && !again && !s.serverClean() {
		return fmt.Errorf("the server is left in %v, gave up %v", v.state, v.gaveUp)
	}
	return nil
}

// excused reports whether what this host did may be why a connection failed.
func (s *sim) excused(a *account, want probe.Reason) bool {
	late := s.lags+s.kept >= s.w.c.Timeout/2
	if b := s.accountOf(s.w.c.Timeout + s.lags + s.kept); b.complete {
		return true // it closed in time but for us, and too late all the same
	}
	switch want {
	case probe.OK:
		return s.refusals > 0
	case probe.Reset:
		return s.longest+s.kept >= 100*time.Millisecond || s.refusals > 0
	case probe.FINMissing, probe.PeerNeverClosed:
		// Of a peer that has all that we had to say, and has said so, nothing else excuses.
		return late || s.keptAt != 0 || s.refusals > 0 && !a.progress
	}
	return late || s.refusals > 0
}

// finWasYoung reports whether we had let a peer wait, its FIN had come, and ours, which was all
// that it had not acknowledged, had been on its way for less than a round trip when the time was
// up: the path's, or the handshake's if something of that was lost.
func (s *sim) finWasYoung() bool {
	d := s.ranOut.Sub(s.synRead)
	a := s.accountOf(d)
	unacked := s.wantClosing(&a, d) == probe.FINUnacked && a.acked == s.iss.Add(1+s.w.c.Send)
	age := d - s.finLeft.Sub(s.synStamp)
	return s.w.c.Kind != probe.ActiveClose && s.lags+s.kept > 10*time.Millisecond && a.fin && unacked &&
		s.finLeft != 0 && 0 <= age && age < s.trip()+20*time.Millisecond
}

// talked reports whether we had let a peer wait for so long that it begins again, and it still
// brought octets within the last round trip before the time was up.
func (s *sim) talked() bool {
	d := s.ranOut.Sub(s.synRead)
	a, before := s.accountOf(d), s.accountOf(d-s.trip()-20*time.Millisecond)
	return s.lags+s.kept >= 200*time.Millisecond && a.rcvNxt != before.rcvNxt && (!a.fin || a.rcvNxt != a.finAt.Add(1))
}

// trip is the path's round trip, or the handshake's if something was lost.
func (s *sim) trip() time.Duration {
	if s.lost == 0 {
		return min(s.rtt, 2*(s.delay+s.jitter))
	}
	return s.rtt
}

// accountOf is the account of what arrived until d after our SYN.
func (s *sim) accountOf(d time.Duration) (a account) {
	for i := range s.truth {
		if e := &s.truth[i]; e.at.Sub(s.synStamp) <= d {
			a.read(s, e)
		}
	}
	return a
}

// lagged is how much longer the connection may last at most because we were late, or
// our host refused what was to leave.
func (s *sim) lagged() time.Duration {
	if s.refusals > 0 {
		return s.w.c.Timeout
	}
	return min(s.lags, s.w.c.Timeout)
}

// wantedLater reports whether a failure is what the account says at some moment of that
// time. A success is one within the timeout only.
func (s *sim) wantedLater(verdict probe.Reason) bool {
	timeout, end := s.w.c.Timeout, s.w.c.Timeout+s.lagged()
	wanted := func(d time.Duration) bool {
		a := s.accountOf(d)
		return verdict != probe.OK && s.wantClosing(&a, d) == verdict
	}
	for i := range s.truth {
		if d := s.truth[i].at.Sub(s.synStamp); d > timeout && d <= end && wanted(d) {
			return true
		}
	}
	return wanted(end)
}

// serverClean reports whether the server has nothing open on our account.
func (s *sim) serverClean() bool {
	v := &s.srv
	return !v.gaveUp && (v.state == probe.Closed || v.state == probe.Listen || v.state == probe.TimeWait)
}

// judgeFigures checks what was measured.
func (s *sim) judgeFigures(a *account) error {
	for _, f := range []struct {
		kind probe.ObservationKind
		want time.Duration
	}{
		{probe.FINACKRTT, a.finAcked.Sub(s.finLeft)},
		{probe.LastACKRTT, a.finAcked.Sub(s.finLeft)},
		{probe.CloseWaitTime, a.finGot.Sub(a.finAcked)},
	} {
		if s.got[f.kind] > 0 && s.figures[f.kind] != f.want {
			return fmt.Errorf("%v of %v, want %v", f.kind, s.figures[f.kind], f.want)
		}
	}
	if s.got[probe.TimeWaitLasted] > 0 {
		return s.judgeTimeWait()
	}
	if s.got[probe.TimeWaitReuse] > 0 && s.answer == probe.AnswerAccepted != (s.srv.connections > 1) && s.lost == 0 && s.refusals == 0 {
		return fmt.Errorf("reuse: %v, of %d connections", s.answer, s.srv.connections)
	}
	return nil
}

// judgeTimeWait: the interval holds what the server's TIME-WAIT lasted, and
// nothing of ours restarted or killed that.
func (s *sim) judgeTimeWait() error {
	v := &s.srv
	lasted := v.twTo.Sub(v.twFrom)
	if v.twKill > 0 || v.twTaken {
		return fmt.Errorf("TIME-WAIT was killed (%d) or taken (%v)", v.twKill, v.twTaken)
	}
	// Silence of a server that answers no SYN in TIME-WAIT is not told from
	// several losses in a row.
	unsure := s.lost+s.refusals >= 5 || v.silent && s.lost+s.refusals >= 2
	if lasted > s.figures[probe.TimeWaitLasted] || lasted < s.least && !unsure {
		return fmt.Errorf("TIME-WAIT of %v measured as %v to %v", lasted, s.least, s.figures[probe.TimeWaitLasted])
	}
	return nil
}

// newClosing makes the world of one conversation that goes past the SYN-ACK.
func newClosing(rnd *rand.Rand, s *sim) {
	*s = sim{rnd: rnd, events: s.events[:0], truth: s.truth[:0], kind: listening}
	s.iss = probe.Seq(rnd.Uint32())
	if rnd.IntN(8) == 0 { // where the sequence space wraps
		s.iss = -probe.Seq(rnd.Uint32N(3000))
	}
	s.delay = time.Duration(rnd.Int64N(int64(50 * time.Millisecond)))
	s.jitter = time.Duration(rnd.Int64N(int64(20 * time.Millisecond)))
	if rnd.IntN(2) == 0 {
		s.loss = 0.1
	}
	if rnd.IntN(2) == 0 {
		s.dup = 0.05
	}
	p := probe.Params{Kind: probe.ActiveClose + probe.Kind(rnd.IntN(3)), Linger: 4 * time.Second, Timeout: 3 * time.Second}
	if rnd.IntN(4) == 0 {
		p.Timeout = 20 * time.Second
	}
	if rnd.IntN(2) == 0 {
		p.Send = rnd.Uint32N(6000)
	}
	if p.Kind == probe.ActiveClose && rnd.IntN(2) == 0 {
		p.Hold = time.Duration(rnd.Int64N(int64(300 * time.Millisecond)))
	}
	p.FINWithData = p.Kind == probe.ActiveClose && rnd.IntN(3) == 0
	p.Combined = rnd.IntN(2) == 0
	p.Prompt = rnd.IntN(2) == 0
	s.srv = server{on: true, state: probe.Listen, habit: habit(rnd.IntN(int(numHabits))), request: p.Send,
		timeWait: time.Second + time.Duration(rnd.Int64N(int64(8*time.Second))), silent: rnd.IntN(3) == 0, gone: rnd.IntN(4) == 0,
		after: time.Duration(rnd.Int64N(int64(4 * time.Second)))}
	if rnd.IntN(2) == 0 || s.srv.habit == halfCloses {
		s.srv.reply = rnd.Uint32N(5000)
	}
	if p.Kind == probe.TimeWaitProbe {
		p.Measure, p.Limit = probe.MeasureDuration, 14*time.Second
		if rnd.IntN(2) == 0 {
			p.Measure, p.After, p.Lower = probe.MeasureReuse, time.Duration(rnd.Int64N(int64(2*time.Second))), rnd.IntN(2) == 0
		}
	}
	if rnd.IntN(8) == 0 {
		s.busy = time.Duration(rnd.Int64N(int64(200 * time.Millisecond)))
	}
	// Of octets in several segments the second may come first, and has no SYN cookie.
	if p.Kind == probe.ActiveClose && p.Send == 0 && rnd.IntN(3) == 0 {
		s.srv.cookies, s.srv.cookie, s.srv.gone = true, probe.Seq(rnd.Uint32()), false
		s.dup = 0 // a copy of a prompt is a third
	}
	s.w = newWatch(p)
}

const (
	simClosings     = 500_000
	simClosingsRace = 20_000
)

// TestSimulationOfClosings is deterministic, as TestSimulation is; the two play
// a million conversations.
func TestSimulationOfClosings(t *testing.T) {
	count := simClosings
	if raceEnabled {
		count = simClosingsRace
	}
	var s sim
	var verdicts [probe.NumReasons]int
	var observed [probe.NumObservations]int
	discards, left := 0, 0
	short, shortTold := 0, 0 // true failures of which our own delays explain nothing
	src := rand.NewPCG(simSeed, 1)
	rnd := rand.New(src)
	for i := range count {
		src.Seed(simSeed+1, uint64(i))
		newClosing(rnd, &s)
		if err := s.run(); err != nil {
			t.Fatalf("conversation %d (%+v, server %+v): %v", i, s.w.c.Params, s.srv, err)
		}
		for k, n := range s.w.seen {
			observed[k] += n
		}
		if s.w.seen[probe.Discarded] > 0 {
			discards++
		} else {
			verdicts[s.w.verdict]++
		}
		if s.synLeft && s.lags+s.kept > 0 && s.longest+s.kept < 500*time.Millisecond && s.lags+s.kept < s.w.c.Timeout/2 {
			if a := s.accountOf(s.w.c.Timeout); s.wantClosing(&a, s.w.c.Timeout) != probe.OK {
				short++
				if s.w.seen[probe.Discarded] == 0 {
					shortTold++
				}
			}
		}
		if !s.serverClean() {
			left++
		}
	}
	for r := range probe.Reason(probe.NumReasons) {
		if verdicts[r] > 0 {
			t.Logf("%-17v %d", r, verdicts[r])
		}
	}
	t.Logf("discarded         %d; servers left to their own timer %d", discards, left)
	t.Logf("failed as we were a little late: %d, told %d", short, shortTold)
	if shortTold*10 < short*9 {
		t.Errorf("of %d failures that we were a little late for, %d were told", short, shortTold)
	}
	for _, r := range []probe.Reason{probe.OK, probe.Timeout, probe.Reset, probe.AcceptQueueFull, probe.FINUnacked, probe.FINMissing, probe.PeerNeverClosed} {
		if verdicts[r] == 0 {
			t.Errorf("the simulation never led to %v", r)
		}
	}
	for k := probe.FINACKRTT; int(k) < probe.NumObservations; k++ {
		if observed[k] == 0 {
			t.Errorf("the simulation never led to %v", k)
		}
	}
}
