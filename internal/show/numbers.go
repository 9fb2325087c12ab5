package show

import "github.com/probed/probed/probe"

// bases are the numbers that a connection's sequence numbers count from.
type bases struct {
	iss, irs probe.Seq
}

// Relative returns the sequence and acknowledgement numbers of step i, counted
// from the initial ones of both sides: ours from our ISS, the peer's from its. A
// number from before any SYN of its side is left as it is; so is an
// acknowledgement number without the ACK bit.
//
// A second SYN on the same four-tuple starts a new connection, and with it a new
// count, if the peer answers that SYN by a SYN-ACK or a RST; a peer that answers
// from the old connection (a challenge ACK in TIME-WAIT) leaves the old count, in
// which the SYN then stands as well.
func (c *Conversation) Relative(i int) (seq, ack probe.Seq) {
	return c.relative(&c.Steps[i], c.basesAt(i))
}

func (c *Conversation) relative(s *Step, n bases) (seq, ack probe.Seq) {
	local, remote := n.iss, n.irs
	if s.Way == In {
		local, remote = remote, local
	}
	seq, ack = s.Segment.Seq-local, s.Segment.Ack
	if s.Segment.Flags.Has(probe.ACK) {
		ack -= remote
	}
	return seq, ack
}

// basesAt returns the numbers that count at step i.
func (c *Conversation) basesAt(i int) bases {
	from, to := -1, len(c.Steps)
	for j := range c.Steps {
		if !c.opens(j, from) {
			continue
		}
		if j > i {
			to = j
			break
		}
		from = j
	}
	if from < 0 {
		return bases{}
	}
	n := bases{iss: c.Steps[from].Segment.Seq}
	n.irs = c.peerISS(from, to, n.iss)
	return n
}

// opens reports whether a connection begins at step j, the one before having
// begun at step last (-1: there is none).
func (c *Conversation) opens(j, last int) bool {
	if !c.Steps[j].openingSYN() {
		return false
	}
	if last < 0 {
		return true
	}
	iss := c.Steps[j].Segment.Seq
	if iss == c.Steps[last].Segment.Seq {
		return false
	}
	for k := j + 1; k < len(c.Steps) && c.Steps[k].Event != probe.Reopen; k++ {
		s := &c.Steps[k]
		if s.openingSYN() && s.Segment.Seq != iss {
			break
		}
		if s.Way == In && s.Segment.Ack == iss+1 && s.Segment.Flags.Has(probe.ACK) && s.Segment.Flags&(probe.SYN|probe.RST) != 0 {
			return true
		}
	}
	return false
}

// openingSYN reports whether the step is a SYN of ours, on the wire or about to be.
func (s *Step) openingSYN() bool {
	ours := s.Way == Out || s.Event == probe.Open || s.Event == probe.Reopen
	return ours && s.Segment.Flags.Has(probe.SYN)
}

// peerISS is the sequence number of the SYN-ACK that answers our SYN among the
// steps, else of any SYN of the peer's, else 0.
func (c *Conversation) peerISS(from, to int, iss probe.Seq) probe.Seq {
	var first probe.Seq
	seen := false
	for k := from; k < to; k++ {
		f := &c.Steps[k].Segment
		if c.Steps[k].Way != In || !f.Flags.Has(probe.SYN) {
			continue
		}
		if f.Flags.Has(probe.ACK) && f.Ack == iss+1 {
			return f.Seq
		}
		if !seen {
			first, seen = f.Seq, true
		}
	}
	return first
}
