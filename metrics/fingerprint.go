package metrics

import "github.com/probed/probed/probe"

// peerSeenAs takes in a fingerprint and counts each trait that differs from the
// last one seen.
func (n *counts) peerSeenAs(p probe.Fingerprint) {
	now, changed := p.After(n.peer)
	if n.peerSeen {
		for i := range changed {
			if changed[i] {
				n.changes[i]++
			}
		}
	}
	n.peer, n.peerSeen = now, true
}
