package metrics

import "github.com/probed/probed/probe"

// CanFail reports whether a probe of the kind can fail for the reason. Such
// reasons are exported from the start, so that the first failure is a rise.
func CanFail(k probe.Kind, r probe.Reason) bool {
	switch r {
	case probe.Timeout, probe.Refused, probe.Unreachable, probe.Prohibited,
		probe.ChallengeACK, probe.BadSYNACK, probe.NotResolved:
		return true // up to the SYN-ACK
	case probe.Reset, probe.AcceptQueueFull, probe.FINUnacked:
		return closes(k)
	case probe.FINMissing:
		return k == probe.ActiveClose
	case probe.PeerNeverClosed:
		return closesAfterPeer(k)
	}
	return false
}

// closes reports whether a probe of the kind goes past the SYN-ACK.
func closes(k probe.Kind) bool { return k == probe.ActiveClose || closesAfterPeer(k) }

// closesAfterPeer reports whether the peer is to close first.
func closesAfterPeer(k probe.Kind) bool { return k == probe.PassiveClose || k == probe.TimeWaitProbe }
