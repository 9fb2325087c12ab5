package script

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/probed/probed/probe"
)

// parseSegment reads FLAGS SEQ [ack N] [len N] [win N] [urg N] [ttl N] [tos N]
// [<OPTIONS>].
func parseSegment(w *words) (s Segment, err error) {
	word, _ := w.next()
	if s.Flags, err = parseFlags(word); err != nil {
		return s, err
	}
	if s.Seq, err = w.number(); err != nil {
		return s, err
	}
	var n uint64
	for {
		switch {
		case w.take("ack"):
			s.Ack, err = w.number()
		case w.take("len"):
			n, err = w.uint(16)
			s.Len = uint32(n)
		case w.take("win"):
			n, err = w.uint(16)
			s.Window = uint16(n)
		case w.take("urg"):
			n, err = w.uint(16)
			s.Urgent = uint16(n)
		case w.take("ttl"):
			n, err = w.uint(8)
			s.TTL = uint8(n)
		case w.take("tos"):
			n, err = w.uint(8)
			s.TOS = uint8(n)
		case strings.HasPrefix(w.peek(), "<"):
			word, _ := w.next()
			err = parseOptions(word, &s)
		default:
			return s, nil
		}
		if err != nil {
			return s, err
		}
	}
}

// parseFlags reads the letters of flagLetters, or none.
func parseFlags(word string) (probe.Flags, error) {
	if word == "none" {
		return 0, nil
	}
	var f probe.Flags
	for i := 0; i < len(word); i++ {
		at := strings.IndexByte(flagLetters, word[i])
		if at < 0 {
			return 0, fmt.Errorf("%q are no flags: letters of %s, or none", word, flagLetters)
		}
		f |= 1 << at
	}
	if f == 0 {
		return 0, fmt.Errorf("a segment begins with its flags: letters of %s, or none", flagLetters)
	}
	return f, nil
}

// flagLetters are the flags' letters from FIN up; 1, 2 and 3 are the reserved
// bits.
const flagLetters = "FSRP.UEWe123"

// The kinds of TCP options (IANA).
const (
	kindMSS           = 2
	kindWindowScale   = 3
	kindSACKPermitted = 4
	kindTimestamps    = 8
	kindFastOpen      = 34
)

// parseOptions reads <mss 1460,sackOK,TS val 1 ecr 0,wscale 7,tfo c0ffee,
// unknown 253 0a0b>. The octets are kept as well where there is more to them
// than their names say.
func parseOptions(word string, s *Segment) error {
	o := &s.Options
	inner, ok := strings.CutSuffix(strings.TrimPrefix(word, "<"), ">")
	if !ok {
		return fmt.Errorf("%q: options end with >", word)
	}
	var raw []byte
	for part := range strings.SplitSeq(inner, ",") {
		var err error
		if list := strings.Fields(part); len(list) > 0 && list[0] == "sack" {
			if s.SACK, err = parseSACK(list[1:]); err != nil {
				return err
			}
			continue
		}
		if raw, err = parseOption(&words{list: strings.Fields(part)}, o, raw); err != nil {
			return err
		}
	}
	if len(raw) > probe.MaxOptions {
		return fmt.Errorf("%d octets of options; %d fit", len(raw), probe.MaxOptions)
	}
	if o.Set&(probe.OptUnknown|probe.OptMalformed) != 0 {
		o.RawLen = uint8(copy(o.Raw[:], raw)+3) &^ 3
	}
	return nil
}

func parseOption(w *words, o *probe.Options, raw []byte) ([]byte, error) {
	name, _ := w.next()
	switch name {
	case "mss":
		n, err := w.uint(16)
		if err != nil {
			return nil, err
		}
		o.Set |= probe.OptMSS
		o.MSS = uint16(n)
		raw = append(raw, kindMSS, 4, byte(n>>8), byte(n))
	case "wscale":
		n, err := w.uint(8)
		if err != nil {
			return nil, err
		}
		o.Set |= probe.OptWindowScale
		o.WindowScale = uint8(n)
		raw = append(raw, kindWindowScale, 3, byte(n))
	case "sackOK":
		o.Set |= probe.OptSACKPermitted
		raw = append(raw, kindSACKPermitted, 2)
	case "TS":
		var values [2]uint64
		for i, label := range []string{"val", "ecr"} {
			if err := w.expect(label); err != nil {
				return nil, err
			}
			n, err := w.uint(32)
			if err != nil {
				return nil, err
			}
			values[i] = n
		}
		o.Set |= probe.OptTimestamps
		o.TSVal, o.TSEcr = uint32(values[0]), uint32(values[1])
		raw = append(raw, kindTimestamps, 10)
		for _, v := range values {
			raw = append(raw, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
		}
	case "tfo":
		word, _ := w.next()
		cookie, err := hex.DecodeString(word)
		if err != nil || len(cookie) > len(o.Cookie) {
			return nil, fmt.Errorf("%q is no cookie: up to %d octets in hex", word, len(o.Cookie))
		}
		o.Set |= probe.OptFastOpen
		o.CookieLen = uint8(copy(o.Cookie[:], cookie))
		raw = append(append(raw, kindFastOpen, byte(2+len(cookie))), cookie...)
	case "unknown":
		kind, err := w.uint(8)
		if err != nil {
			return nil, err
		}
		word, _ := w.next()
		data, err := hex.DecodeString(word)
		if err != nil || len(data) > probe.MaxOptions {
			return nil, fmt.Errorf("%q is no option's octets in hex", word)
		}
		o.Set |= probe.OptUnknown
		raw = append(append(raw, byte(kind), byte(2+len(data))), data...)
	case "malformed":
		word, _ := w.next()
		data, err := hex.DecodeString(word)
		if err != nil || len(data) > probe.MaxOptions {
			return nil, fmt.Errorf("%q are no octets in hex", word)
		}
		o.Set |= probe.OptMalformed
		raw = append(raw, data...)
	default:
		return nil, fmt.Errorf("%q is no option: %s", name, strings.Join(optionNames, ", "))
	}
	return raw, w.end()
}

var optionNames = []string{"mss N", "sackOK", "TS val N ecr N", "sack N:N …", "wscale N", "tfo HEX",
	"unknown KIND HEX", "malformed HEX"}
