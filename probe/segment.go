package probe

import "net/netip"

// A FourTuple names a connection: our end and the peer's.
type FourTuple struct {
	Local, Remote netip.AddrPort
}

// A Segment is one TCP segment with what of its network header concerns the
// conversation. It is a value: payload bytes are counted, not kept.
type Segment struct {
	Seq     Seq     // SEG.SEQ
	Ack     Seq     // SEG.ACK, whether or not the ACK bit is set
	Flags   Flags   // control bits, reserved bits included
	Window  uint16  // SEG.WND, unscaled
	Urgent  uint16  // SEG.UP
	Len     uint32  // payload length in octets; SYN and FIN not counted
	TTL     uint8   // IPv4 time to live or IPv6 hop limit, as received
	TOS     uint8   // IPv4 type of service or IPv6 traffic class
	Options Options // TCP options
}

// SegLen is SEG.LEN of RFC 9293 §3.4: the payload plus one for SYN and one for
// FIN.
func (s *Segment) SegLen() uint32 {
	n := s.Len
	if s.Flags.Has(SYN) {
		n++
	}
	if s.Flags.Has(FIN) {
		n++
	}
	return n
}

// End returns the sequence number after the segment: SEG.SEQ + SEG.LEN.
func (s *Segment) End() Seq { return s.Seq.Add(s.SegLen()) }

// OptionSet says which TCP options a segment carries.
type OptionSet uint16

// The options that probed knows. Unknown and Malformed describe the rest.
const (
	OptMSS           OptionSet = 1 << iota // RFC 9293 §3.2
	OptWindowScale                         // RFC 7323 §2.2
	OptSACKPermitted                       // RFC 2018 §2
	OptSACK                                // RFC 2018 §3; blocks in Raw
	OptTimestamps                          // RFC 7323 §3.2
	OptFastOpen                            // RFC 7413 §4.1.1, kind 34
	OptUnknown                             // a kind not listed here; in Raw
	OptMalformed                           // a length that does not fit; the rest is in Raw
)

// MaxOptions is the most octets that TCP options can fill: a data offset of 15
// words less the fixed header.
const MaxOptions = 40

// Options are a segment's TCP options, parsed and as they came. An encoder
// writes Raw[:RawLen] if RawLen is not 0, else the options named by Set in the
// order of Linux's tcp_options_write: MSS, SACK permitted, timestamps, window
// scale, fast open.
type Options struct {
	Set         OptionSet
	MSS         uint16           // octets
	WindowScale uint8            // shift count as sent; RFC 7323 caps its use at 14
	CookieLen   uint8            // fast open cookie's length, 0 for a request
	TSVal       uint32           // RFC 7323 TSval, the sender's clock
	TSEcr       uint32           // RFC 7323 TSecr
	RawLen      uint8            // octets of Raw in use
	Cookie      [16]byte         // fast open cookie
	Raw         [MaxOptions]byte // every option octet in order, unknown ones and padding included
}

// Has reports whether every option of set is there.
func (o *Options) Has(set OptionSet) bool { return o.Set&set == set }
