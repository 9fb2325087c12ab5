package script

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/probed/probed/probe"
)

// A Block is one of RFC 2018 §3's SACK option: from its left edge to its right
// edge, in the sequence numbers of who receives the segment.
type Block struct{ From, To Number }

// parseSACK reads FROM:TO for each block.
func parseSACK(list []string) ([]Block, error) {
	var blocks []Block
	for _, word := range list {
		from, to, ok := strings.Cut(word, ":")
		f, err1 := (&words{list: []string{from}}).number()
		t, err2 := (&words{list: []string{to}}).number()
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q: a SACK block looks like 101:201", word)
		}
		blocks = append(blocks, Block{f, t})
	}
	if len(blocks) == 0 || len(blocks) > maxBlocks {
		return nil, fmt.Errorf("sack wants one to %d blocks", maxBlocks)
	}
	return blocks, nil
}

// How the option lies in a segment: each option behind two NOPs, as in Linux's
// tcp_options_write.
const (
	kindNOP   = 1
	kindSACK  = 5
	maxBlocks = 3
	blockLen  = 8
)

// putSACK writes the option, behind the timestamps if there are any.
func putSACK(o *probe.Options, blocks []Block, initial probe.Seq) {
	b := o.Raw[:0]
	if o.Has(probe.OptTimestamps) {
		b = append(b, kindNOP, kindNOP, kindTimestamps, 10)
		b = binary.BigEndian.AppendUint32(b, o.TSVal)
		b = binary.BigEndian.AppendUint32(b, o.TSEcr)
	}
	b = append(b, kindNOP, kindNOP, kindSACK, byte(2+len(blocks)*blockLen))
	for _, k := range blocks {
		b = binary.BigEndian.AppendUint32(b, uint32(k.From.from(initial)))
		b = binary.BigEndian.AppendUint32(b, uint32(k.To.from(initial)))
	}
	o.Set |= probe.OptSACK
	o.RawLen = uint8(len(b))
}

// formatSACK writes the option as parseSACK reads it, if it lies as putSACK
// writes it.
func formatSACK(o *probe.Options, initial probe.Seq) (string, bool) {
	at := 0
	if o.Has(probe.OptTimestamps) {
		at = 12
	}
	raw := o.Raw[:min(int(o.RawLen), len(o.Raw))]
	if !o.Has(probe.OptSACK) || len(raw) < at+4+blockLen || raw[at+2] != kindSACK ||
		int(raw[at+3]) != len(raw)-at-2 || (len(raw)-at-4)%blockLen != 0 {
		return "", false
	}
	var b strings.Builder
	b.WriteString("sack")
	for at += 4; at < len(raw); at += blockLen {
		fmt.Fprintf(&b, " %d:%d", probe.Seq(binary.BigEndian.Uint32(raw[at:])).Sub(initial),
			probe.Seq(binary.BigEndian.Uint32(raw[at+4:])).Sub(initial))
	}
	return b.String(), true
}
