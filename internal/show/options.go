package show

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// The option kinds that tcpdump knows by name
// (https://www.iana.org/assignments/tcp-parameters).
const (
	kindEOL           = 0
	kindNOP           = 1
	kindMSS           = 2
	kindWindowScale   = 3
	kindSACKPermitted = 4
	kindSACK          = 5
	kindEcho          = 6
	kindEchoReply     = 7
	kindTimestamps    = 8
	kindCC            = 11
	kindCCNew         = 12
	kindCCEcho        = 13
	kindMD5           = 19
	kindSCPS          = 20
	kindUserTimeout   = 28
	kindAO            = 29
	kindMultipath     = 30
	kindFastOpen      = 34
	kindExperiment    = 254
)

// appendOptions writes a segment's options in tcpdump's words, in the order in
// which they are on the wire. SACK blocks count from base.
func appendOptions(b []byte, o *probe.Options, base probe.Seq) []byte {
	var scratch [probe.MaxOptions]byte
	raw := wire.AppendOptions(scratch[:0], o)
	if len(raw) == 0 {
		return b
	}
	b = append(b, ", options ["...)
	for first := true; len(raw) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		kind, length := raw[0], 1
		if kind != kindEOL && kind != kindNOP {
			if len(raw) < 2 || raw[1] < 2 || int(raw[1]) > len(raw) {
				return append(b, "[bad opt]"...)
			}
			length = int(raw[1])
		}
		var ok bool
		if b, ok = appendOption(b, kind, raw[min(2, length):length], base); !ok {
			return append(b, "[bad opt]"...)
		}
		if kind == kindEOL {
			break
		}
		raw = raw[length:]
	}
	return append(b, ']')
}

// appendOption writes one option with its data, and whether that was of a length
// that can be read.
func appendOption(b []byte, kind byte, data []byte, base probe.Seq) ([]byte, bool) {
	switch kind {
	case kindEOL:
		return append(b, "eol"...), true
	case kindNOP:
		return append(b, "nop"...), true
	case kindMSS:
		return appendNumbers(append(b, "mss"...), data, 2, "")
	case kindWindowScale:
		return appendNumbers(append(b, "wscale"...), data, 1, "")
	case kindSACKPermitted:
		return appendNumbers(append(b, "sackOK"...), data, 0)
	case kindSACK:
		return appendSACK(b, data, base)
	case kindTimestamps:
		return appendNumbers(append(b, "TS"...), data, 4, " val", " ecr")
	case kindFastOpen:
		return appendFastOpen(append(b, "tfo"...), data), true
	}
	b = appendUint(append(b, "unknown-"...), kind)
	return appendHex(b, data), true
}

func appendNumbers(b, data []byte, size int, names ...string) ([]byte, bool) {
	for i, name := range names {
		if len(data) < (i+1)*size {
			return b, false
		}
		b = append(append(b, name...), ' ')
		var n uint32
		for _, octet := range data[i*size : (i+1)*size] {
			n = n<<8 | uint32(octet)
		}
		b = appendUint(b, n)
	}
	if len(data) != size*len(names) {
		b = append(appendUint(append(b, "[len "...), len(data)+2), ']')
	}
	return b, true
}

func appendSACK(b, data []byte, base probe.Seq) ([]byte, bool) {
	b = append(b, "sack"...)
	if len(data)%8 != 0 {
		return append(b, " invalid sack"...), true
	}
	b = append(appendUint(append(b, ' '), len(data)/8), ' ')
	for ; len(data) > 0; data = data[8:] {
		left, right := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
		b = appendUint(append(b, '{'), left-uint32(base))
		b = appendUint(append(b, ':'), right-uint32(base))
		b = append(b, '}')
	}
	return b, true
}

func appendFastOpen(b, data []byte) []byte {
	if len(data) == 0 {
		return append(b, " cookiereq"...)
	}
	return hex.AppendEncode(append(b, " cookie "...), data)
}

func appendHex(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	return hex.AppendEncode(append(b, " 0x"...), data)
}
