package metrics

import "github.com/probed/probed/probe"

// sees takes in a fingerprint and counts each trait that differs from the last one
// seen. t.mu is held.
func (t *Target) sees(p *probe.Fingerprint) {
	n := &t.usual
	if n.peerSeen && *p == n.peer {
		return // as nearly always
	}
	now, changed := p.After(n.peer)
	if n.peerSeen {
		for i := range changed {
			if changed[i] {
				t.rarely().changes[i]++
			}
		}
	}
	n.peer, n.peerSeen = now, true
}

// peerLabels are the labels of probed_peer_info.
func peerLabels(p *probe.Fingerprint) [5]label {
	return [...]label{
		{"window_scale", windowScale(p.WindowScale)},
		{"sack", yesNo(p.SACK)},
		{"timestamps", yesNo(p.Timestamps)},
		{"ecn", yesNo(p.ECN)},
		{"syn_cookies", p.SYNCookies.String()},
	}
}

// PeerLabels are the labels of probed_peer_info by name, for whoever exports a
// fingerprint beside /metrics.
func PeerLabels(p *probe.Fingerprint) map[string]string {
	m := make(map[string]string)
	for _, l := range peerLabels(p) {
		m[l.name] = l.value
	}
	return m
}
