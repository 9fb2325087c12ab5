package show

import (
	"encoding/binary"
	"io"
	"math"
)

// The blocks and options of the pcapng format
// (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html) that a
// capture needs.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6

	byteOrderMagic = 0x1a2b3c4d

	optionEnd     = 0
	optionComment = 1

	sectionHardware    = 2
	sectionOS          = 3
	sectionApplication = 4

	interfaceResolution = 9

	packetFlags    = 2
	packetInbound  = 1
	packetOutbound = 2

	linkTypeRaw = 101 // IPv4 or IPv6, told apart by the version field
)

// A block is one under construction.
type block struct{ b []byte }

func (k *block) begin(typ uint32) {
	k.b = append(k.b[:0], make([]byte, 8)...)
	binary.LittleEndian.PutUint32(k.b, typ)
}

func (k *block) u16(n uint16) { k.b = binary.LittleEndian.AppendUint16(k.b, n) }
func (k *block) u32(n uint32) { k.b = binary.LittleEndian.AppendUint32(k.b, n) }
func (k *block) u64(n uint64) { k.b = binary.LittleEndian.AppendUint64(k.b, n) }

// pad fills up to a multiple of four octets.
func (k *block) pad() {
	for len(k.b)%4 != 0 {
		k.b = append(k.b, 0)
	}
}

func (k *block) option(code uint16, value []byte) {
	value = value[:min(len(value), math.MaxUint16)]
	k.u16(code)
	k.u16(uint16(len(value)))
	k.b = append(k.b, value...)
	k.pad()
}

func (k *block) text(code uint16, s string) { k.option(code, []byte(s)) }

// end completes the block and writes it.
func (k *block) end(w io.Writer) error {
	k.u32(optionEnd)
	total := uint32(len(k.b) + 4)
	k.u32(total)
	binary.LittleEndian.PutUint32(k.b[4:], total)
	_, err := w.Write(k.b)
	return err
}
