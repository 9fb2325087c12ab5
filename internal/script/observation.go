package script

import (
	"fmt"

	"github.com/probed/probed/probe"
)

// parseObservation reads KIND and what belongs to it, as formatObservation
// writes them.
func parseObservation(w *words) (o probe.Observation, err error) {
	word, _ := w.next()
	for k := probe.Verdict; int(k) < probe.NumObservations; k++ {
		if k.String() == word {
			o.Kind = k
		}
	}
	switch o.Kind {
	case probe.Verdict:
		word, _ := w.next()
		for r := range probe.Reason(probe.NumReasons) {
			if r.String() == word {
				o.Reason = r
				return o, nil
			}
		}
		return o, fmt.Errorf("%q is no reason", word)
	case probe.Discarded:
		word, _ := w.next()
		o.Discard, err = parseDiscard(word)
		return o, err
	case probe.Rejected:
		word, _ := w.next()
		for r := range probe.RejectReason(probe.NumRejectReasons) {
			if r != probe.NotRejected && r.String() == word {
				o.Reject = r
				return o, nil
			}
		}
		return o, fmt.Errorf("%q is no reason to reject", word)
	case probe.HandshakeRTT, probe.Reaction, probe.FINACKRTT, probe.CloseWaitTime, probe.PeerCloseTime, probe.LastACKRTT:
		o.Duration, err = w.duration()
		return o, err
	case probe.Teardown, probe.TimeWaitReuse, probe.FINRetransmit, probe.HalfCloseOctets, probe.TimeWaitLasted:
		err = parseClosing(w, &o)
		return o, err
	case probe.PeerSeen:
		o.Peer, err = parsePeer(w)
		return o, err
	case probe.SYNACKDuplicate, probe.SYNACKLate:
		return o, nil
	}
	return o, fmt.Errorf("%q is no observation", word)
}

// parseClosing reads what belongs to an observation of a connection's end.
func parseClosing(w *words, o *probe.Observation) (err error) {
	switch o.Kind {
	case probe.Teardown:
		word, _ := w.next()
		for f := probe.FourWay; int(f) < probe.NumForms; f++ {
			if f.String() == word {
				o.Form = f
			}
		}
		if o.Form == probe.NoForm {
			return fmt.Errorf("%q is no form: four_way, three_way, simultaneous", word)
		}
		o.Duration, err = w.durationOrUnknown()
	case probe.TimeWaitReuse:
		word, _ := w.next()
		for a := probe.AnswerAccepted; int(a) < probe.NumAnswers; a++ {
			if a.String() == word {
				o.Answer = a
			}
		}
		if o.Answer == probe.NoAnswer {
			return fmt.Errorf("%q is no answer: accepted, challenge_ack, reset, silence", word)
		}
		o.Duration, err = w.durationOrUnknown()
	case probe.FINRetransmit:
		word, _ := w.next()
		for s := probe.Local; int(s) < probe.NumSides; s++ {
			if s.String() == word {
				o.Side = s
			}
		}
		if o.Side == probe.NoSide {
			return fmt.Errorf("%q is no side: local, peer", word)
		}
	case probe.HalfCloseOctets:
		var n uint64
		n, err = w.uint(32)
		o.Octets = uint32(n)
	case probe.TimeWaitLasted:
		if o.Least, err = w.duration(); err == nil {
			o.Duration, err = w.duration()
		}
	}
	return err
}

// parsePeer reads a fingerprint: [ttl N] [win N] [mss N] [wscale N] [sack]
// [timestamps] [ecn] [cookies yes|no].
func parsePeer(w *words) (f probe.Fingerprint, err error) {
	f.WindowScale = -1
	var n uint64
	for {
		switch {
		case w.take("ttl"):
			n, err = w.uint(8)
			f.TTL = uint8(n)
		case w.take("win"):
			n, err = w.uint(16)
			f.Window = uint16(n)
		case w.take("mss"):
			n, err = w.uint(16)
			f.MSS = uint16(n)
		case w.take("wscale"):
			n, err = w.uint(7)
			f.WindowScale = int8(n)
		case w.take("sack"):
			f.SACK = true
		case w.take("timestamps"):
			f.Timestamps = true
		case w.take("ecn"):
			f.ECN = true
		case w.take("cookies"):
			word, _ := w.next()
			switch word {
			case probe.Yes.String():
				f.SYNCookies = probe.Yes
			case probe.No.String():
				f.SYNCookies = probe.No
			default:
				err = fmt.Errorf("%q: cookies yes or cookies no", word)
			}
		default:
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}
