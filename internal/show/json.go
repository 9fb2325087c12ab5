package show

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// ConversationJSON is a conversation as JSON: a line of `probed ping --json`, an
// element of the API's transcripts. Fields are added to, not changed; one that has
// no value is absent.
type ConversationJSON struct {
	Number uint64 `json:"number"`          // tells the conversations of one probed apart; 0 before the first
	Probe  string `json:"probe"`           // the kind: half_open, active_close, passive_close, time_wait
	Local  string `json:"local,omitempty"` // our address:port; absent if nothing was opened
	Remote string `json:"remote,omitempty"`
	// Started is when our SYN left, by the kernel's transmit stamp; if none was
	// seen leaving, when the connection was opened. RFC 3339, UTC, nine decimals.
	Started string `json:"started"`
	// Verdict is "ok"; "failed", and Reason says why; "discarded", and Discarded
	// says why there is none; "unsettled" if there is none yet.
	Verdict   string `json:"verdict"`
	Reason    string `json:"reason,omitempty"`    // as probed_probe_failures_total's reason
	Discarded string `json:"discarded,omitempty"` // as probed_probes_discarded_total's reason

	// The figures, each as the metric of the same name.
	HandshakeRTT     *Seconds `json:"handshake_rtt_seconds,omitempty"`       // SYN to SYN-ACK
	FINACKRTT        *Seconds `json:"fin_ack_rtt_seconds,omitempty"`         // our FIN to its acknowledgement
	CloseWait        *Seconds `json:"close_wait_seconds,omitempty"`          // that acknowledgement to the peer's FIN
	PeerClose        *Seconds `json:"peer_close_seconds,omitempty"`          // the handshake's ACK or our last octet to the peer's FIN
	LastACKRTT       *Seconds `json:"last_ack_rtt_seconds,omitempty"`        // our FIN after the peer's to its acknowledgement
	Teardown         *Seconds `json:"teardown_seconds,omitempty"`            // first FIN to last ACK
	Reaction         *Seconds `json:"reaction_seconds,omitempty"`            // the SYN-ACK to our answer
	TimeWaitReuseRTT *Seconds `json:"time_wait_reuse_rtt_seconds,omitempty"` // SYN to SYN-ACK on the reused four-tuple
	TimeWaitMin      *Seconds `json:"time_wait_min_seconds,omitempty"`       // the peer's TIME-WAIT was last seen alive after
	TimeWaitMax      *Seconds `json:"time_wait_max_seconds,omitempty"`       // and first seen gone after

	Form           string           `json:"form,omitempty"`             // of the teardown: four_way, three_way, simultaneous
	Answer         string           `json:"answer,omitempty"`           // to the SYN on the reused four-tuple: accepted, challenge_ack, reset, silence
	HalfCloseBytes *uint32          `json:"half_close_bytes,omitempty"` // received after our FIN
	Fingerprint    *FingerprintJSON `json:"fingerprint,omitempty"`      // of the SYN-ACK that was accepted

	Steps []StepJSON `json:"steps"`
	// Lost counts the steps that were not kept; they are missing before
	// Steps[LostAt].
	Lost   int  `json:"lost,omitempty"`
	LostAt *int `json:"lost_at,omitempty"`
}

// FingerprintJSON is what a SYN-ACK told about the peer.
type FingerprintJSON struct {
	TTL         uint8  `json:"ttl"`                    // as received
	Hops        int    `json:"hops"`                   // estimated from it
	Window      uint16 `json:"window"`                 // octets, unscaled
	MSS         uint16 `json:"mss,omitempty"`          // octets; absent without the option
	WindowScale *int8  `json:"window_scale,omitempty"` // shift count; absent without the option
	SACK        bool   `json:"sack"`
	Timestamps  bool   `json:"timestamps"`
	ECN         bool   `json:"ecn"`
	SYNCookies  string `json:"syn_cookies"` // yes, no, unknown
}

// StepJSON is one thing that happened.
type StepJSON struct {
	Time Seconds `json:"time_seconds"` // since Started, negative before it
	Wall string  `json:"wall"`         // the same, RFC 3339, UTC, nine decimals
	// Direction is "out" for a segment that left, "in" for one that arrived,
	// "error" for an ICMP error that arrived, "here" for what crossed no wire.
	Direction  string       `json:"direction"`
	Event      string       `json:"event"`             // in RFC 9293's words: SEGMENT ARRIVES, USER TIMEOUT
	Segment    *SegmentJSON `json:"segment,omitempty"` // out, in
	ICMP       *ICMPJSON    `json:"icmp,omitempty"`    // error
	LocalState string       `json:"local_state"`       // after the step
	PeerState  string       `json:"peer_state"`        // after the step, inferred; "-" as long as the peer has not spoken
	Note       string       `json:"note,omitempty"`    // what was concluded
}

// SegmentJSON is a TCP segment.
type SegmentJSON struct {
	Flags       string    `json:"flags"`                  // in tcpdump's letters: "S", "S.", "F."; "none"
	Seq         probe.Seq `json:"seq"`                    // SEG.SEQ as on the wire
	RelativeSeq probe.Seq `json:"relative_seq"`           // counted from the sender's initial sequence number
	Ack         *uint32   `json:"ack,omitempty"`          // SEG.ACK as on the wire; absent without the ACK bit
	RelativeAck *uint32   `json:"relative_ack,omitempty"` // counted from the receiver's initial sequence number
	Window      uint16    `json:"window"`                 // SEG.WND, unscaled
	Urgent      *uint16   `json:"urgent,omitempty"`       // SEG.UP; absent without the URG bit
	Length      uint32    `json:"length"`                 // of the payload, octets
	Options     string    `json:"options,omitempty"`      // in tcpdump's words and the wire's order: "mss 1460,nop,wscale 7"
	TTL         uint8     `json:"ttl"`                    // or hop limit
	TOS         uint8     `json:"tos"`                    // or traffic class
}

// ICMPJSON is an ICMP or ICMPv6 error.
type ICMPJSON struct {
	From        string    `json:"from,omitempty"` // who sent it, an address
	Type        uint8     `json:"type"`
	Code        uint8     `json:"code"`
	Text        string    `json:"text"`         // in tcpdump's words
	Seq         probe.Seq `json:"seq"`          // SEG.SEQ of the segment that it quotes
	RelativeSeq probe.Seq `json:"relative_seq"` // counted from our initial sequence number
}

// Seconds is a duration that is written in JSON as a number of seconds, exact to
// the nanosecond: 0.020000001.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	n, b := uint64(s), []byte(nil)
	if s < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendUint(b, n/1e9, 10)
	if part := n % 1e9; part != 0 {
		digits := strconv.FormatUint(1e9+part, 10)[1:]
		b = append(append(b, '.'), strings.TrimRight(digits, "0")...)
	}
	return b, nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	d, err := time.ParseDuration(string(b) + "s")
	if err != nil {
		return fmt.Errorf("show: %q is no number of seconds: %w", b, err)
	}
	*s = Seconds(d)
	return nil
}

// wallLayout is RFC 3339 with all nine decimals, so that lines sort as text.
const wallLayout = "2006-01-02T15:04:05.000000000Z07:00"

func wallText(ns int64) string { return time.Unix(0, ns).UTC().Format(wallLayout) }

// JSON returns the conversation for encoding/json.
func (c *Conversation) JSON() ConversationJSON {
	j := ConversationJSON{
		Number: c.Number, Probe: c.Kind.String(), Local: endText(c.Tuple.Local), Remote: endText(c.Tuple.Remote),
		Started: wallText(c.Zero), Verdict: "unsettled", Steps: make([]StepJSON, len(c.Steps)),
	}
	switch {
	case !c.Settled:
	case c.Discarded != probe.NotDiscarded:
		j.Verdict, j.Discarded = "discarded", c.Discarded.String()
	case c.Reason != probe.OK:
		j.Verdict, j.Reason = "failed", c.Reason.String()
	default:
		j.Verdict = "ok"
	}
	for i := range c.Figures {
		j.figure(&c.Figures[i])
	}
	for i := range c.Steps {
		j.Steps[i] = c.stepJSON(i)
	}
	if c.Lost > 0 {
		at := c.LostAt
		j.Lost, j.LostAt = c.Lost, &at
	}
	return j
}

func endText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// figure puts an observation where it belongs.
func (j *ConversationJSON) figure(o *probe.Observation) {
	d := Seconds(o.Duration)
	known := &d
	if d < 0 {
		known = nil
	}
	switch o.Kind {
	case probe.HandshakeRTT:
		j.HandshakeRTT = known
	case probe.FINACKRTT:
		j.FINACKRTT = known
	case probe.CloseWaitTime:
		j.CloseWait = known
	case probe.PeerCloseTime:
		j.PeerClose = known
	case probe.LastACKRTT:
		j.LastACKRTT = known
	case probe.Teardown:
		j.Teardown, j.Form = known, o.Form.String()
	case probe.Reaction:
		j.Reaction = known
	case probe.TimeWaitReuse:
		j.TimeWaitReuseRTT, j.Answer = known, o.Answer.String()
	case probe.TimeWaitLasted:
		least := Seconds(o.Least)
		j.TimeWaitMin, j.TimeWaitMax = &least, known
	case probe.HalfCloseOctets:
		n := o.Octets
		j.HalfCloseBytes = &n
	case probe.PeerSeen:
		j.Fingerprint = Fingerprint(&o.Peer)
	}
}

// Fingerprint returns a peer's fingerprint for encoding/json.
func Fingerprint(f *probe.Fingerprint) *FingerprintJSON {
	j := &FingerprintJSON{
		TTL: f.TTL, Hops: probe.Hops(f.TTL), Window: f.Window, MSS: f.MSS,
		SACK: f.SACK, Timestamps: f.Timestamps, ECN: f.ECN, SYNCookies: f.SYNCookies.String(),
	}
	if f.WindowScale >= 0 {
		n := f.WindowScale
		j.WindowScale = &n
	}
	return j
}

var wayNames = [...]string{Here: "here", Out: "out", In: "in", Error: "error"}

func (c *Conversation) stepJSON(i int) StepJSON {
	s := &c.Steps[i]
	j := StepJSON{
		Time: Seconds(s.At), Wall: wallText(s.Wall), Direction: wayNames[s.Way], Event: s.Event.String(),
		LocalState: s.Local.String(), PeerState: s.Peer.String(), Note: s.Note,
	}
	switch s.Way {
	case Out, In:
		j.Segment = c.segmentJSON(i)
	case Error:
		j.ICMP = &ICMPJSON{
			From: addrText(s.ICMP.From),
			Type: s.ICMP.Type, Code: s.ICMP.Code, Text: c.icmpText(&s.ICMP),
			Seq: s.ICMP.Seq, RelativeSeq: s.ICMP.Seq - c.basesAt(i).iss,
		}
	}
	return j
}

func (c *Conversation) segmentJSON(i int) *SegmentJSON {
	s := &c.Steps[i].Segment
	seq, ack := c.Relative(i)
	j := &SegmentJSON{
		Flags: s.Flags.String(), Seq: s.Seq, RelativeSeq: seq, Window: s.Window, Length: s.Len,
		TTL: s.TTL, TOS: s.TOS, Options: optionsText(&s.Options),
	}
	if s.Flags.Has(probe.ACK) {
		absolute, relative := uint32(s.Ack), uint32(ack)
		j.Ack, j.RelativeAck = &absolute, &relative
	}
	if s.Flags.Has(probe.URG) {
		n := s.Urgent
		j.Urgent = &n
	}
	return j
}

func optionsText(o *probe.Options) string {
	b, _ := appendOptions(nil, o, 0)
	text := strings.TrimPrefix(string(b), ", options [")
	if strings.Count(text, "]") > strings.Count(text, "[") { // not after a [bad opt] that ends the line
		text = strings.TrimSuffix(text, "]")
	}
	return text
}
