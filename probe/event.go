package probe

import "net/netip"

// EventKind names what can happen to a conversation.
type EventKind uint8

// RFC 9293 §3.10's events, then ours.
const (
	Open  EventKind = iota + 1 // active OPEN: send the SYN
	Close                      // our FIN is to follow what was sent: the end of Params.Hold
	Abort                      // end at once and leave the peer with nothing open
	SegmentArrives
	RetransmissionTimeout
	UserTimeout
	TimeWaitTimeout

	SegmentSent // the kernel's transmit stamp of a segment of this four-tuple, sent by us or by our kernel
	SendFailed  // our host refused a segment of ours: nothing left, or on its second try only
	ICMPArrives // an ICMP or ICMPv6 error that quotes a segment of this four-tuple
	Reopen      // a new SYN on the same four-tuple
	ACKTimeout  // what was left unacknowledged for a moment is to be acknowledged
	Spoiled     // our own observation failed (Event.Discard says how): no verdict can be trusted
	NoRoom      // the limits leave no room for Event.Segment, which was not sent, or, without flags, for what a timer is to send
)

var eventNames = [...]string{"-", "OPEN", "CLOSE", "ABORT", "SEGMENT ARRIVES", "RETRANSMISSION TIMEOUT",
	"USER TIMEOUT", "TIME-WAIT TIMEOUT", "SEGMENT SENT", "SEND FAILED", "ICMP ARRIVES", "REOPEN", "ACK TIMEOUT", "SPOILED", "NO ROOM"}

// String names the event in RFC 9293's manner.
func (k EventKind) String() string { return name(eventNames[:], int(k)) }

// An Event is one thing that happened to a conversation. Only the fields that
// its kind names are read.
type Event struct {
	Kind    EventKind
	Discard DiscardReason // Spoiled, Abort: the ledger entry
	Stamp   Stamp         // SegmentArrives, SegmentSent, ICMPArrives: the kernel's
	Segment Segment       // SegmentArrives, SegmentSent; Open, Reopen: the SYN to send, its SEG.SEQ the ISS
	ICMP    ICMP          // ICMPArrives

	Fragment bool // SegmentArrives: the first of several, so that Segment.Len is of it alone
	Narrow   bool // Open, RetransmissionTimeout: by Output.Narrow of another conversation with the peer no segment is to be larger than every path takes
}

// ICMP is an ICMP or ICMPv6 error and the segment that it quotes. The quote
// holds at least the first eight octets of the TCP header (RFC 792; RFC 4443
// §2.4), so ports and SEG.SEQ are always there.
type ICMP struct {
	V6   bool
	Type uint8
	Code uint8
	Seq  Seq        // SEG.SEQ of the quoted segment
	From netip.Addr // who sent it; the zero Addr if that is not known
}
