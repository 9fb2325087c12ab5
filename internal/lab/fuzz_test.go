package lab

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzPcap reads any octets as a capture: packets of these octets alone, or an error;
// and what was read is the same after it was written again.
func FuzzPcap(f *testing.F) {
	file := func(link uint32, frames ...string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, pcapNano)
		b = append(b, make([]byte, 16)...)
		b = binary.LittleEndian.AppendUint32(b, link)
		for i, frame := range frames {
			for _, v := range []uint32{1_800_000_000, uint32(i), uint32(len(frame)), uint32(len(frame) + i)} {
				b = binary.LittleEndian.AppendUint32(b, v)
			}
			b = append(b, frame...)
		}
		return b
	}
	ip4 := "\x45\x00\x00\x14" + string(make([]byte, 16))
	f.Add(file(linkEthernet, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00"+ip4, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x86\xdd\x60", "arp"))
	f.Add(file(linkLinuxSLL2, "\x08\x00"+string(make([]byte, 8))+"\x04"+string(make([]byte, 9))+ip4))
	f.Add(file(linkRaw, ip4, "\x60", ""))
	f.Add(file(7))
	f.Add(file(linkRaw, ip4)[:30])
	f.Add(file(linkRaw, ip4)[:50]) // less of the packet than it says
	c := &Capture{host: &Host{}, hardware: []byte{2, 0, 0, 0, 0, 2}}
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, err := parsePcap(b, c.network)
		if err != nil {
			if packets != nil {
				t.Errorf("%d packets, and %v", len(packets), err)
			}
			return
		}
		// The reader's frames, written anew as raw IP, give the same packets.
		again := file(linkRaw)
		total := 0
		for i := range packets {
			p := &packets[i]
			total += len(p.Data)
			for _, v := range []uint32{uint32(p.Wall / 1e9), uint32(p.Wall % 1e9), uint32(len(p.Data)), uint32(p.Length)} {
				again = binary.LittleEndian.AppendUint32(again, v)
			}
			again = append(again, p.Data...)
		}
		if total > len(b) {
			t.Errorf("%d octets of packets in %d", total, len(b))
		}
		second, err := parsePcap(again, c.network)
		if err != nil || len(second) != len(packets) {
			t.Fatalf("%d packets, then %d: %v", len(packets), len(second), err)
		}
		for i := range packets {
			p, q := &packets[i], &second[i]
			if p.Wall != q.Wall || int32(p.Length) != int32(q.Length) || !bytes.Equal(p.Data, q.Data) {
				t.Errorf("packet %d: %+v, then %+v", i, p, q)
			}
		}
	})
}
