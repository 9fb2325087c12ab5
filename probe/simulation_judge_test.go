package probe_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// judge compares what the conversation concluded with what really happened.
func (s *sim) judge() error {
	w := s.w
	if !w.c.Done() {
		return fmt.Errorf("not done")
	}
	if !s.synLeft {
		return s.judgeUnsent()
	}
	want, rtt := s.want()
	if w.seen[probe.Discarded] != 0 || w.verdict != want {
		return fmt.Errorf("verdict %v (%d discards), want %v", w.verdict, w.seen[probe.Discarded], want)
	}
	if want == probe.OK && s.rtt != rtt {
		return fmt.Errorf("handshake in %v, want %v", s.rtt, rtt)
	}
	if err := s.judgeCounts(want); err != nil {
		return err
	}
	// A peer stays half open only where the path lost what would have told it,
	// or our host refused to send it.
	if s.peer == probe.SynReceived && s.loss == 0 && s.rstRefused == 0 {
		return fmt.Errorf("the peer is left half open")
	}
	return nil
}

// judgeUnsent: our host refused the SYN, so there is nothing to conclude.
func (s *sim) judgeUnsent() error {
	if s.w.seen[probe.Discarded] != 1 || s.w.seen[probe.Verdict] != 0 {
		return fmt.Errorf("a SYN that never left: %d discards, verdict %v", s.w.seen[probe.Discarded], s.w.verdict)
	}
	return nil
}

// want is the verdict by the stamps alone: the first answer within the
// timeout, or what explains the silence.
func (s *sim) want() (probe.Reason, time.Duration) {
	silence := probe.Timeout
	for i := range s.truth {
		e := &s.truth[i]
		d := e.at.Sub(s.synStamp)
		if d > s.w.c.Timeout {
			break
		}
		f := e.segment.Flags
		switch {
		case e.icmp.Type != 0:
			if e.icmp.Seq == s.iss {
				return e.icmp.Failure(), 0
			}
		case f.Has(probe.RST):
			return probe.Refused, 0
		case f.Has(probe.SYN | probe.ACK):
			return probe.OK, d
		case silence == probe.Timeout:
			silence = probe.ChallengeACK
		}
	}
	return silence, 0
}

// judgeCounts: every SYN-ACK is counted as exactly one thing.
func (s *sim) judgeCounts(verdict probe.Reason) error {
	var first *simEvent
	duplicates, others, late, rejected := 0, 0, 0, 0
	for i := range s.truth {
		e := &s.truth[i]
		switch f := e.segment.Flags; {
		case e.icmp.Type != 0:
		case f.Has(probe.SYN | probe.ACK):
			switch {
			case first == nil:
				first = e
				if e.at.Sub(s.synStamp) > s.w.c.Timeout {
					late++
				}
			case e.segment.Seq == first.segment.Seq:
				duplicates++
			default:
				others++
			}
		case f.Has(probe.ACK) && !f.Has(probe.RST):
			rejected++
		}
	}
	if s.got[probe.SYNACKDuplicate] != duplicates || s.got[probe.Rejected] != others+rejected || s.got[probe.SYNACKLate] != late {
		return fmt.Errorf("%d duplicates, %d rejected, %d late; want %d, %d, %d", s.got[probe.SYNACKDuplicate],
			s.got[probe.Rejected], s.got[probe.SYNACKLate], duplicates, others+rejected, late)
	}
	if (verdict == probe.OK) != (first != nil && late == 0 && s.got[probe.HandshakeRTT] == 1) {
		return fmt.Errorf("%v with %d handshakes measured", verdict, s.got[probe.HandshakeRTT])
	}
	if first != nil && s.peer != probe.SynReceived && s.rstArrived == 0 {
		return fmt.Errorf("answered, and no RST arrived")
	}
	return nil
}

// icmpErrors are what the simulated router answers with.
var icmpErrors = [...]probe.ICMP{{Type: 3, Code: 1}, {Type: 3, Code: 13}, {Type: 11}, {V6: true, Type: 1, Code: 4}, {V6: true, Type: 1, Code: 6}}

// newSim makes the world of one conversation.
func newSim(rnd *rand.Rand, s *sim) {
	*s = sim{rnd: rnd, events: s.events[:0], truth: s.truth[:0]}
	s.kind = simPeerKind(rnd.IntN(int(numPeerKinds)))
	if rnd.IntN(2) == 0 {
		s.kind = listening
	}
	s.icmp = icmpErrors[rnd.IntN(len(icmpErrors))]
	s.peer, s.peerISS = probe.Listen, probe.Seq(rnd.Uint32())
	s.iss = probe.Seq(rnd.Uint32())
	if rnd.IntN(8) == 0 { // where the sequence space wraps
		s.iss = -probe.Seq(rnd.Uint32N(3))
	}
	s.delay = time.Duration(rnd.Int64N(int64(100 * time.Millisecond)))
	s.jitter = time.Duration(rnd.Int64N(int64(20 * time.Millisecond)))
	if rnd.IntN(10) == 0 { // around the timeout
		s.delay, s.jitter = 400*time.Millisecond, 100*time.Millisecond
	}
	if rnd.IntN(2) == 0 {
		s.loss = 0.1
	}
	if rnd.IntN(2) == 0 {
		s.dup = 0.05
	}
	p := probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 5 * time.Second}
	switch rnd.IntN(4) {
	case 0: // guarded: the RST is ours
	case 1: // reserved, but something swallows the kernel's RST
		p.ResetGrace = 50 * time.Millisecond
	default:
		p.ResetGrace, s.kernelResets = 50*time.Millisecond, true
	}
	s.w = newWatch(p)
}

// TestSimulation is deterministic: its seed is a constant.
func TestSimulation(t *testing.T) {
	count := simCount
	if raceEnabled {
		count = simCountRace
	}
	var s sim
	var verdicts [probe.NumReasons]int
	discards, left, leftReserved, lateDuplicates := 0, 0, 0, 0
	src := rand.NewPCG(simSeed, 0)
	rnd := rand.New(src)
	for i := range count {
		src.Seed(simSeed, uint64(i))
		newSim(rnd, &s)
		if err := s.run(); err != nil {
			t.Fatalf("conversation %d (%+v): %v", i, s.w.c.Params, err)
		}
		if s.w.seen[probe.Discarded] > 0 {
			discards++
		} else {
			verdicts[s.w.verdict]++
		}
		lateDuplicates += s.atEnd
		if s.peer == probe.SynReceived {
			left++
			if s.kernelResets {
				leftReserved++
			}
		}
	}
	for r := range probe.Reason(probe.NumReasons) {
		if verdicts[r] > 0 {
			t.Logf("%-13v %d", r, verdicts[r])
		}
	}
	t.Logf("discarded     %d; after the end %d; peers left to their own timer %d, of reserved ports %d",
		discards, lateDuplicates, left, leftReserved)
	for _, r := range []probe.Reason{probe.OK, probe.Timeout, probe.Refused, probe.Unreachable, probe.Prohibited, probe.ChallengeACK} {
		if verdicts[r] == 0 {
			t.Errorf("the simulation never led to %v", r)
		}
	}
}
