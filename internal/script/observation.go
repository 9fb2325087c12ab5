package script

import (
	"fmt"

	"github.com/probed/probed/probe"
)

// parseObservation reads KIND and what belongs to it, as formatObservation
// writes them.
func parseObservation(w *words) (o probe.Observation, err error) {
	word, _ := w.next()
	for k := probe.Verdict; k <= probe.Reaction; k++ {
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
	case probe.HandshakeRTT, probe.Reaction:
		o.Duration, err = w.duration()
		return o, err
	case probe.PeerSeen:
		o.Peer, err = parsePeer(w)
		return o, err
	case probe.SYNACKDuplicate, probe.SYNACKLate:
		return o, nil
	}
	return o, fmt.Errorf("%q is no observation", word)
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
