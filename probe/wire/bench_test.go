package wire_test

import (
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

func BenchmarkParseSYNACK(b *testing.B) {
	s := syn()
	s.Flags, s.Options.Set = probe.SYN|probe.ACK, s.Options.Set&^probe.OptFastOpen
	for name, tuple := range map[string]*probe.FourTuple{"IPv4": &tuple4, "IPv6": &tuple6} {
		b.Run(name, func(b *testing.B) {
			packet := wire.AppendPacket(nil, tuple, &s, nil)
			var p wire.Packet
			b.ReportAllocs()
			for b.Loop() {
				if err := wire.Parse(packet, &p); err != nil || p.Checksum != wire.ChecksumValid {
					b.Fatal(err, p.Checksum)
				}
			}
		})
	}
}

func BenchmarkAppendTCPSYN(b *testing.B) {
	s := syn()
	s.Options.Set &^= probe.OptFastOpen
	for name, tuple := range map[string]*probe.FourTuple{"IPv4": &tuple4, "IPv6": &tuple6} {
		b.Run(name, func(b *testing.B) {
			buffer := make([]byte, 0, 128)
			b.ReportAllocs()
			for b.Loop() {
				if len(wire.AppendTCP(buffer, tuple, &s, nil)) < 20 {
					b.Fatal()
				}
			}
		})
	}
}
