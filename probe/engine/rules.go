package engine

import "time"

// Rules say where nothing is sent, whoever asks. What they say of an address does not
// change: other rules are another value, which == tells apart.
type Rules interface {
	Forbids(addr) bool
}

// A judgement is what the rules say of an address, and which rules: the count of those
// that there have been, and in the lowest bit whether they forbid it. 0 is none.
type judgement uint32

// ruleGrace is how long after a change of rules a stray is still answered whose
// address they forbid: it may be the SYN-ACK to a SYN that had left, and its peer is
// to be left with nothing open. It is the first two retransmissions of Linux's.
const ruleGrace = 5 * time.Second

// rule puts rules in force. What is open with an address that they forbid is reset at
// once, a TIME-WAIT that is measured too. No probe is sent there any more, and soon no
// answer either.
func (s *Shard) rule(r Rules) {
	if r == s.limits.Rules {
		return
	}
	s.limits.Rules = r
	s.rules += 2
	s.ruled, s.purge = s.now, 0
	if r == nil {
		return
	}
	s.purge = s.now.Add(ruleGrace)
	for i := range s.table.len() {
		sl := s.table.slot(i)
		switch {
		case sl.target == free || !s.table.isOpen(sl) && !s.table.insists(sl) || !s.forbids(s.entries[sl.target].peer):
		case s.noRoomToInsist(sl):
			s.release(i)
		default:
			s.takeAway(i)
		}
	}
}

// letGoForbidden lets go, once a stray would have no answer either, of conversations with
// addresses that are forbidden: RSTs that this host does not let out would go again for
// minutes. Those that have found no room yet go once.
func (s *Shard) letGoForbidden() {
	if s.purge == 0 || s.now < s.purge {
		return
	}
	s.purge = 0
	for i := range s.table.len() {
		sl := s.table.slot(i)
		if sl.target == free || !s.forbids(s.entries[sl.target].peer) {
			continue
		}
		if sl.whole != none && s.table.wholes.at(sl.whole).wanted > 0 {
			s.purge = s.now.Add(time.Second)
			continue
		}
		if s.table.isOpen(sl) {
			s.count(false)
		}
		s.release(i)
	}
}

// forbids reports whether nothing is to be sent to a peer.
func (s *Shard) forbids(p *peer) bool {
	if s.limits.Rules == nil {
		return false
	}
	a := p.address
	if a.judged&^1 != s.rules {
		a.judged = s.rules
		if s.limits.Rules.Forbids(p.remote().Addr()) {
			a.judged |= 1
		}
	}
	return a.judged&1 != 0
}
