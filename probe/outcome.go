package probe

import "time"

// Kind is a way of probing.
type Kind uint8

// The four kinds.
const (
	HalfOpen Kind = iota + 1
	ActiveClose
	PassiveClose
	TimeWaitProbe
)

var kindNames = [...]string{"-", "half_open", "active_close", "passive_close", "time_wait"}

// String names the kind as the configuration does.
func (k Kind) String() string { return name(kindNames[:], int(k)) }

// Reason says why a probe failed. It is the network's or the peer's ledger.
type Reason uint8

// The failure reasons of the metrics contract. OK is success.
const (
	OK Reason = iota
	Timeout
	Refused
	Reset
	Unreachable
	Prohibited
	ChallengeACK
	BadSYNACK
	AcceptQueueFull
	FINUnacked
	FINMissing
	PeerNeverClosed
	NotResolved
	NumReasons = int(NotResolved) + 1
)

var reasonNames = [...]string{"ok", "timeout", "refused", "reset", "unreachable", "prohibited", "challenge_ack",
	"bad_synack", "accept_queue_full", "fin_unacked", "fin_missing", "peer_never_closed", "not_resolved"}

// String is the reason's label value.
func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// DiscardReason says why a probe has no verdict. It is our own ledger.
type DiscardReason uint8

// The discard reasons of the metrics contract.
const (
	NotDiscarded DiscardReason = iota
	DiscardTapDrop
	DiscardClockStep
	DiscardSendError
	DiscardShutdown
	DiscardReload
	DiscardLinkDown   // the interface or the address that it went by was lost meanwhile
	DiscardStalled    // we answered too late for the peer's part to be told
	NumDiscardReasons = int(DiscardStalled) + 1
)

var discardNames = [...]string{"-", "tap_drop", "clock_step", "send_error", "shutdown", "reload", "link_down", "stalled"}

// String is the reason's label value.
func (r DiscardReason) String() string { return name(discardNames[:], int(r)) }

// RejectReason says why a segment was not believed. It is the attacker's
// ledger.
type RejectReason uint8

// The reject reasons.
const (
	NotRejected        RejectReason = iota
	RejectBadACK                    // acknowledges something else than exactly what we sent
	RejectBadSequence               // SEG.SEQ is not where the peer must be
	RejectNoACK                     // acknowledges nothing: a bare SYN, RST or data before the handshake
	RejectBadQuote                  // an ICMP error whose quote is not our segment
	RejectBadChecksum               // the TCP or ICMP checksum is wrong
	RejectUnexpected                // no conversation on that four-tuple expects it
	RejectBadTimestamp              // its timestamp is older than one that came, or missing (RFC 7323)
	RejectMalformed                 // its header contradicts itself
	NumRejectReasons   = int(RejectMalformed) + 1
)

var rejectNames = [...]string{"-", "bad_ack", "bad_sequence", "no_ack", "bad_quote", "bad_checksum", "unexpected",
	"bad_timestamp", "malformed"}

// String is the reason's label value.
func (r RejectReason) String() string { return name(rejectNames[:], int(r)) }

// ObservationKind names what was observed.
type ObservationKind uint8

// What a conversation can observe. Each is made at most once a conversation,
// but for those that count segments: SYNACKDuplicate, SYNACKLate, Rejected,
// FINRetransmit.
const (
	Verdict         ObservationKind = iota + 1 // Reason: OK or why the probe failed
	Discarded                                  // Discard: why there is no verdict
	HandshakeRTT                               // Duration: SYN's transmit stamp to SYN-ACK's receive stamp
	PeerSeen                                   // Peer: the fingerprint of an accepted SYN-ACK
	SYNACKDuplicate                            // a further SYN-ACK on an answered SYN
	SYNACKLate                                 // a SYN-ACK after the timeout
	Rejected                                   // Reject: a segment not believed
	Reaction                                   // Duration: their segment's stamp to our answer's stamp
	FINACKRTT                                  // Duration: our FIN's transmit stamp to its acknowledgement's receive stamp
	CloseWaitTime                              // Duration: that acknowledgement's receive stamp to the peer's FIN's
	PeerCloseTime                              // Duration: the handshake's ACK's or our last octet's transmit stamp to the peer's FIN's receive stamp
	LastACKRTT                                 // Duration: as FINACKRTT, of a FIN that followed the peer's
	Teardown                                   // Form; Duration: first FIN's stamp to last ACK's, below 0 if not known
	HalfCloseOctets                            // Octets: received after our FIN
	FINRetransmit                              // Side: whose FIN went again
	TimeWaitReuse                              // Answer; Duration: SYN's transmit stamp to SYN-ACK's receive stamp, below 0 without
	TimeWaitLasted                             // Least, Duration: between which the peer's TIME-WAIT lasted
	NumObservations = int(TimeWaitLasted) + 1
)

var observationNames = [...]string{"-", "verdict", "discarded", "handshake_rtt", "peer", "synack_duplicate",
	"synack_late", "rejected", "reaction", "fin_ack_rtt", "close_wait", "peer_close", "last_ack_rtt", "teardown",
	"half_close_octets", "fin_retransmit", "time_wait_reuse", "time_wait_lasted"}

// String names the observation as scripts do.
func (k ObservationKind) String() string { return name(observationNames[:], int(k)) }

// An Observation is one thing learned. Only the fields that its kind names are
// set.
type Observation struct {
	Kind     ObservationKind
	Reason   Reason
	Discard  DiscardReason
	Reject   RejectReason
	Form     Form
	Side     Side
	Answer   Answer
	Port     uint16 // our end's, which tells flows apart: set by who has the four-tuple
	Octets   uint32
	Peer     Fingerprint
	Duration time.Duration
	Least    time.Duration
}

// Form is how a connection was torn down.
type Form uint8

// The forms of the metrics contract.
const (
	NoForm       Form = iota
	FourWay           // each FIN and each ACK a segment
	ThreeWay          // the second FIN in the segment that acknowledges the first
	Simultaneous      // the FINs crossed
	NumForms     = int(Simultaneous) + 1
)

var formNames = [...]string{"-", "four_way", "three_way", "simultaneous"}

// String is the form's label value.
func (f Form) String() string { return name(formNames[:], int(f)) }

// Side is one end of a connection.
type Side uint8

// The sides.
const (
	NoSide Side = iota
	Local
	Peer
	NumSides = int(Peer) + 1
)

var sideNames = [...]string{"-", "local", "peer"}

// String is the side's label value.
func (s Side) String() string { return name(sideNames[:], int(s)) }
