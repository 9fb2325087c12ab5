package probe

import "strings"

// Flags holds the twelve bits beside the data offset: the control bits of
// RFC 9293 §3.1, AE of RFC 9768, and the reserved bits above them. Reserved
// bits are kept as they came: an oddity is an observation.
type Flags uint16

// The control bits, lowest first as they lie in the header.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
	AE
)

// Has reports whether every flag of g is set in f.
func (f Flags) Has(g Flags) bool { return f&g == g }

// flagLetters are tcpdump's, in tcpdump's order.
var flagLetters = [...]struct {
	flag   Flags
	letter byte
}{{FIN, 'F'}, {SYN, 'S'}, {RST, 'R'}, {PSH, 'P'}, {ACK, '.'}, {URG, 'U'}, {ECE, 'E'}, {CWR, 'W'}, {AE, 'e'}}

// String writes the flags as tcpdump does: "S", "S.", "R", "none".
func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var b strings.Builder
	for _, l := range flagLetters {
		if f.Has(l.flag) {
			b.WriteByte(l.letter)
		}
	}
	for bit := AE << 1; bit < 1<<12; bit <<= 1 {
		if f.Has(bit) {
			b.WriteByte('?')
		}
	}
	return b.String()
}
