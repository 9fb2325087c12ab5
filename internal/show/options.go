package show

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

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
// which they are on the wire. SACK blocks count from base. As with tcpdump, a
// length that does not fit ends the line, and ok is false.
func appendOptions(b []byte, o *probe.Options, base probe.Seq) (line []byte, ok bool) {
	var scratch [probe.MaxOptions]byte
	raw := wire.AppendOptions(scratch[:0], o)
	if len(raw) == 0 {
		return b, true
	}
	b = append(b, ", options ["...)
	for first := true; len(raw) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		kind, length := raw[0], 1
		if kind != kindEOL && kind != kindNOP {
			if len(raw) < 2 || raw[1] < 2 || int(raw[1]) > len(raw) {
				b = append(b, "[bad opt]"...)
				if !first {
					b = append(b, ']')
				}
				return b, false
			}
			length = int(raw[1])
		}
		b = appendOption(b, kind, raw[min(2, length):length], base)
		if kind == kindEOL {
			break
		}
		raw = raw[length:]
	}
	return append(b, ']'), true
}

// appendOption writes one option with its data. Of one that has not the length of
// its kind the length is written; tcpdump does so too, but then loses its place.
func appendOption(b []byte, kind byte, data []byte, base probe.Seq) []byte {
	switch kind {
	case kindEOL:
		return append(b, "eol"...)
	case kindNOP:
		return append(b, "nop"...)
	case kindMSS:
		return appendNumbers(append(b, "mss"...), data, 2, "")
	case kindWindowScale:
		return appendNumbers(append(b, "wscale"...), data, 1, "")
	case kindSACKPermitted:
		return appendNumbers(append(b, "sackOK"...), data, 0)
	case kindSACK:
		return appendSACK(append(b, "sack"...), data, base)
	case kindEcho:
		return appendNumbers(append(b, "echo"...), data, 4, "")
	case kindEchoReply:
		return appendNumbers(append(b, "echoreply"...), data, 4, "")
	case kindTimestamps:
		return appendNumbers(append(b, "TS"...), data, 4, " val", " ecr")
	case kindCC:
		return appendNumbers(append(b, "cc"...), data, 4, "")
	case kindCCNew:
		return appendNumbers(append(b, "ccnew"...), data, 4, "")
	case kindCCEcho:
		return appendNumbers(b, data, 4, "") // tcpdump has no name for it
	case kindMD5:
		return appendHex(append(b, "md5"...), data) // tcpdump wants the secret
	case kindUserTimeout:
		return appendUserTimeout(append(b, "uto"...), data)
	case kindAO:
		return appendAO(append(b, "tcp-ao"...), data)
	case kindFastOpen:
		return appendFastOpen(append(b, "tfo "...), data)
	case kindExperiment:
		return appendExperiment(append(b, "exp"...), data)
	case kindSCPS:
		return appendHex(append(b, "scps"...), data) // tcpdump decodes this
	case kindMultipath:
		return appendHex(append(b, "mptcp"...), data) // and this
	}
	return appendHex(appendUint(append(b, "unknown-"...), kind), data)
}

// appendNumbers writes the numbers of an option, each behind its name.
func appendNumbers(b, data []byte, size int, names ...string) []byte {
	if len(data) != size*len(names) {
		return appendLength(b, data)
	}
	for i, name := range names {
		var n uint32
		for _, octet := range data[i*size : (i+1)*size] {
			n = n<<8 | uint32(octet)
		}
		b = appendUint(append(append(b, name...), ' '), n)
	}
	return b
}

func appendLength(b, data []byte) []byte {
	return append(appendUint(append(b, "[len "...), len(data)+2), ']')
}

func appendSACK(b, data []byte, base probe.Seq) []byte {
	if len(data)%8 != 0 {
		return append(b, " invalid sack"...)
	}
	b = append(appendUint(append(b, ' '), len(data)/8), ' ')
	for ; len(data) > 0; data = data[8:] {
		left, right := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
		b = appendUint(append(b, '{'), left-uint32(base))
		b = appendUint(append(b, ':'), right-uint32(base))
		b = append(b, '}')
	}
	return b
}

// appendUserTimeout writes RFC 5482's, in seconds: its lowest bit, the leftmost on
// the wire in the RFC's picture, is the granularity.
func appendUserTimeout(b, data []byte) []byte {
	if len(data) != 2 {
		return appendLength(b, data)
	}
	n := uint32(binary.BigEndian.Uint16(data))
	b = strconv.AppendUint(append(b, " 0x"...), uint64(n), 16)
	seconds := n >> 1
	if n&1 != 0 {
		seconds *= 60
	}
	return appendUint(append(b, ' '), seconds)
}

// appendAO writes RFC 5925's: two key numbers, then the MAC.
func appendAO(b, data []byte) []byte {
	if len(data) < 2 {
		return append(b, " (invalid)"...)
	}
	b = appendUint(append(b, " keyid "...), data[0])
	b = appendUint(append(b, " rnextkeyid "...), data[1])
	if len(data) > 2 {
		b = hex.AppendEncode(append(b, " mac 0x"...), data[2:])
	}
	return b
}

// appendFastOpen writes RFC 7413's: a request, or a cookie.
func appendFastOpen(b, data []byte) []byte {
	switch n := len(data); {
	case n == 0:
		return append(b, " cookiereq"...)
	case n%2 != 0 || n < 4 || n > 16: // RFC 7413 §4.1.1
		return append(b, " (invalid)"...)
	}
	return hex.AppendEncode(append(b, " cookie "...), data)
}

// appendExperiment writes RFC 6994's: which experiment, and of TCP fast open's the
// cookie.
func appendExperiment(b, data []byte) []byte {
	if len(data) < 2 {
		return appendLength(b, data)
	}
	b = append(b, '-')
	if binary.BigEndian.Uint16(data) != 0xf989 {
		return hex.AppendEncode(b, data[:2])
	}
	return appendFastOpen(append(b, "tfo"...), data[2:])
}

func appendHex(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	return hex.AppendEncode(append(b, " 0x"...), data)
}
