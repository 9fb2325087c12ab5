package metrics

import "github.com/probed/probed/probe"

// A trait is one property of a peer's fingerprint that stays the same as long
// as the peer and the path do. The TTL itself and the window are not: the one
// differs between equal paths of a different initial value, the other between
// sockets. Hops stands for the first.
type trait uint8

const (
	traitHops trait = iota
	traitMSS
	traitWindowScale
	traitSACK
	traitTimestamps
	traitECN
	traitSYNCookies
	numTraits = int(traitSYNCookies) + 1
)

var traitNames = [numTraits]string{"hops", "mss", "window_scale", "sack", "timestamps", "ecn", "syn_cookies"}

// peerSeenAs takes in a fingerprint and counts each trait that differs from
// the last one seen. Whether SYN cookies are in use is not known from every
// SYN-ACK: what was known last stays.
func (n *counts) peerSeenAs(p probe.Fingerprint) {
	if p.SYNCookies == probe.NotKnown {
		p.SYNCookies = n.peer.SYNCookies
	}
	if n.peerSeen {
		old := &n.peer
		for i, changed := range [numTraits]bool{
			traitHops:        probe.Hops(p.TTL) != probe.Hops(old.TTL),
			traitMSS:         p.MSS != old.MSS,
			traitWindowScale: p.WindowScale != old.WindowScale,
			traitSACK:        p.SACK != old.SACK,
			traitTimestamps:  p.Timestamps != old.Timestamps,
			traitECN:         p.ECN != old.ECN,
			traitSYNCookies:  p.SYNCookies != old.SYNCookies && old.SYNCookies != probe.NotKnown,
		} {
			if changed {
				n.changes[i]++
			}
		}
	}
	n.peer, n.peerSeen = p, true
}
