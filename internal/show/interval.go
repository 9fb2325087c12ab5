package show

import "github.com/probed/probed/probe"

// Interval names a figure that is the time between two steps, as its metric is
// named less probed_ and _seconds, and says from what to what it is. The name of
// any other is empty.
func Interval(k probe.ObservationKind) (name, meaning string) {
	switch k {
	case probe.HandshakeRTT:
		return "handshake_rtt", "Time from our SYN to the SYN-ACK"
	case probe.Reaction:
		return "reaction", "Time from the peer's segment to our answer"
	case probe.FINACKRTT:
		return "fin_ack_rtt", "Time from our FIN to its acknowledgement"
	case probe.CloseWaitTime:
		return "close_wait", "Time from the acknowledgement of our FIN to the peer's FIN"
	case probe.PeerCloseTime:
		return "peer_close", "Time from the handshake's ACK, or our last byte, to the peer's FIN"
	case probe.LastACKRTT:
		return "last_ack_rtt", "Time from our FIN, which followed the peer's, to its acknowledgement"
	case probe.Teardown:
		return "teardown", "Time from the first FIN to the last ACK"
	case probe.TimeWaitReuse:
		return "time_wait_reuse_rtt", "Time from the SYN on the four-tuple in TIME-WAIT to the SYN-ACK"
	}
	return "", ""
}
