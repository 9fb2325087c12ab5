package wire_test

import (
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

func TestNoAllocation(t *testing.T) {
	s := syn()
	payload := make([]byte, 1000)
	buffer, scratch := make([]byte, 0, 4096), make([]byte, 0, 4096)
	tcp := wire.AppendTCP(nil, &tuple4, &s, payload)
	options := wire.AppendOptions(nil, &s.Options)
	chain := wire.AppendIPv6(nil, &wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 60}, append([]byte{6, 0, 1, 4, 0, 0, 0, 0}, wire.AppendTCP(nil, &tuple6, &s, payload)...))
	inputs := [][]byte{chain, chain[:80], chain[:50], nil, {0x45}, icmp4(3, 1, 0, nil)}
	for _, p := range linuxPackets {
		inputs = append(inputs, unhex(t, p))
	}
	h4 := wire.IPv4Header{Src: us4, Dst: peer4, Protocol: 6, TTL: 64, Options: []byte{1}}
	h6 := wire.IPv6Header{Src: us6, Dst: peer6, NextHeader: 6, HopLimit: 64}
	e4, e6 := wire.ICMPError{Src: hop4, Dst: us4, Type: 3}, wire.ICMPError{Src: hop6, Dst: us6, Type: 1}
	var p wire.Packet
	var o probe.Options

	for name, f := range map[string]func(){
		"Parse": func() {
			for _, b := range inputs {
				_ = wire.Parse(b, &p)
			}
		},
		"ParseOptions":    func() { wire.ParseOptions(options, &o) },
		"AppendOptions":   func() { scratch = wire.AppendOptions(buffer, &s.Options) },
		"AppendTCP":       func() { scratch = wire.AppendTCP(buffer, &tuple4, &s, payload) },
		"AppendTCP6":      func() { scratch = wire.AppendTCP(buffer, &tuple6, &s, payload) },
		"AppendPacket":    func() { scratch = wire.AppendPacket(buffer, &tuple4, &s, payload) },
		"AppendPacket6":   func() { scratch = wire.AppendPacket(buffer, &tuple6, &s, payload) },
		"AppendIPv4":      func() { scratch = wire.AppendIPv4(buffer, &h4, tcp) },
		"AppendIPv6":      func() { scratch = wire.AppendIPv6(buffer, &h6, tcp) },
		"AppendICMPError": func() { scratch = wire.AppendICMPError(wire.AppendICMPError(buffer, &e4, tcp), &e6, tcp) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	_ = scratch
}
