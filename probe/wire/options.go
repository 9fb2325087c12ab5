package wire

import (
	"encoding/binary"

	"github.com/probed/probed/probe"
)

// Option kinds and the lengths that each must have,
// https://www.iana.org/assignments/tcp-parameters.
const (
	optEOL           = 0
	optNOP           = 1
	optMSS           = 2
	optWindowScale   = 3
	optSACKPermitted = 4
	optSACK          = 5
	optTimestamps    = 8
	optFastOpen      = 34

	lenMSS           = 4
	lenWindowScale   = 3
	lenSACKPermitted = 2
	lenSACKBlock     = 8
	lenTimestamps    = 10

	// RFC 7413 §4.1.1: no cookie is a request; else 4 to 16 octets, even.
	minCookie = 4
	maxCookie = 16
)

// ParseOptions reads the options of a TCP header into o and overwrites what was
// there; b must not be part of o. It goes by Linux's tcp_parse_options
// (net/ipv4/tcp_input.c): the last of several equal options counts, reading
// ends at an end-of-list option or at a length that does not fit, and an option
// of a known kind with a wrong length is passed over. Either sets OptMalformed.
// Unlike Linux it keeps values as sent (an MSS of 0, a shift count above 14),
// and it does not know which options the segment's flags allow. Raw has all of
// b, but no more than MaxOptions octets, which is all that a header can hold.
func ParseOptions(b []byte, o *probe.Options) {
	*o = probe.Options{}
	n := copy(o.Raw[:], b)
	o.RawLen = uint8(n)
	b = o.Raw[:n]
	for len(b) > 0 {
		kind := b[0]
		if kind == optEOL {
			return
		}
		if kind == optNOP {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			o.Set |= probe.OptMalformed
			return
		}
		length := int(b[1])
		if !parseOption(kind, b[2:length], o) {
			o.Set |= probe.OptMalformed
		}
		b = b[length:]
	}
}

// parseOption reads one option's value; false if its length is wrong.
func parseOption(kind uint8, v []byte, o *probe.Options) bool {
	length := len(v) + 2
	switch kind {
	case optMSS:
		if length != lenMSS {
			return false
		}
		o.Set |= probe.OptMSS
		o.MSS = binary.BigEndian.Uint16(v)
	case optWindowScale:
		if length != lenWindowScale {
			return false
		}
		o.Set |= probe.OptWindowScale
		o.WindowScale = v[0]
	case optSACKPermitted:
		if length != lenSACKPermitted {
			return false
		}
		o.Set |= probe.OptSACKPermitted
	case optSACK:
		if len(v) == 0 || len(v)%lenSACKBlock != 0 {
			return false
		}
		o.Set |= probe.OptSACK
	case optTimestamps:
		if length != lenTimestamps {
			return false
		}
		o.Set |= probe.OptTimestamps
		o.TSVal = binary.BigEndian.Uint32(v)
		o.TSEcr = binary.BigEndian.Uint32(v[4:])
	case optFastOpen:
		if len(v) != 0 && (len(v) < minCookie || len(v) > maxCookie || len(v)%2 != 0) {
			return false
		}
		o.Set |= probe.OptFastOpen
		o.CookieLen = uint8(len(v))
		o.Cookie = [maxCookie]byte{}
		copy(o.Cookie[:], v)
	default:
		o.Set |= probe.OptUnknown
	}
	return true
}

// AppendOptions appends o's options, to a multiple of 4 octets and at most
// MaxOptions. They are Raw[:RawLen], padded with end-of-list, if RawLen is not
// 0; else those of Set in the layout of Linux's tcp_options_write
// (net/ipv4/tcp_output.c). SACK blocks, unknown and malformed options can only
// be given by Raw.
func AppendOptions(dst []byte, o *probe.Options) []byte {
	if o.RawLen > 0 {
		raw := o.Raw[:min(int(o.RawLen), probe.MaxOptions)]
		dst = append(dst, raw...)
		for n := len(raw); n%4 != 0; n++ {
			dst = append(dst, optEOL)
		}
		return dst
	}
	if o.Has(probe.OptMSS) {
		dst = append(dst, optMSS, lenMSS, byte(o.MSS>>8), byte(o.MSS))
	}
	switch sack := o.Has(probe.OptSACKPermitted); {
	case o.Has(probe.OptTimestamps):
		if sack {
			dst = append(dst, optSACKPermitted, lenSACKPermitted)
		} else {
			dst = append(dst, optNOP, optNOP)
		}
		dst = append(dst, optTimestamps, lenTimestamps)
		dst = binary.BigEndian.AppendUint32(dst, o.TSVal)
		dst = binary.BigEndian.AppendUint32(dst, o.TSEcr)
	case sack:
		dst = append(dst, optNOP, optNOP, optSACKPermitted, lenSACKPermitted)
	}
	if o.Has(probe.OptWindowScale) {
		dst = append(dst, optNOP, optWindowScale, lenWindowScale, o.WindowScale)
	}
	if o.Has(probe.OptFastOpen) {
		cookie := o.Cookie[:min(int(o.CookieLen), maxCookie)]
		dst = append(dst, optFastOpen, uint8(2+len(cookie)))
		dst = append(dst, cookie...)
		for n := 2 + len(cookie); n%4 != 0; n++ {
			dst = append(dst, optNOP)
		}
	}
	return dst
}
