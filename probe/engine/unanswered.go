package engine

import "github.com/probed/probed/probe"

// A peer that our RSTs or last ACK have not reached says its SYN-ACK or FIN again, at times
// when nobody knows of the conversation any more: our kernel's RST, or refuse's, closes it
// then. Where this host lets that one out no more than any other, the peer holds the connection, and its
// challenge ACK to the next SYN on the four-tuple is our doing. So a four-tuple on which
// nothing was seen leaving in answer is passed over for heldFor, if there is another. Who forges
// such segments gets nothing by it: of what the rations leave unanswered nothing is noted, and no
// verdict is another for it.
type unanswered [1024]stray

// A stray is what came last of what shares its place.
type stray struct {
	hash uint64 // of the conversation's key
	at   probe.Instant
}

func (u *unanswered) place(hash uint64) *stray { return &u[hash%uint64(len(u))] }

// came notes a segment that is to be answered by a RST.
func (u *unanswered) came(hash uint64, now probe.Instant) { *u.place(hash) = stray{hash, now} }

// left notes a RST that was seen leaving.
func (u *unanswered) left(hash uint64) {
	if s := u.place(hash); s.hash == hash {
		*s = stray{}
	}
}

// awaits reports whether the peer may wait for one yet.
func (u *unanswered) awaits(hash uint64, now probe.Instant) bool {
	s := u.place(hash)
	return s.hash == hash && now.Sub(s.at) < heldFor
}

// awaitsRST reports whether a target's peer may wait for a RST on a four-tuple that no
// conversation has.
func (s *Shard) awaitsRST(e *entry, port uint16) bool {
	k := e.peer.key(port)
	return s.unanswered.awaits(k.hash(), s.now)
}
