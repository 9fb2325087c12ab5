package wire

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/probed/probed/probe"
)

// A template's segments are AppendTCP's, whatever options they have.
func TestTemplate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	address := func(v6 bool) netip.Addr {
		var b [16]byte
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if v6 {
			b[0] = 0x20
			return netip.AddrFrom16(b)
		}
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	for range 100_000 {
		s := probe.Segment{
			Seq: probe.Seq(rng.Uint32()), Ack: probe.Seq(rng.Uint32()), Flags: probe.Flags(rng.Uint32N(1 << 12)),
			Window: uint16(rng.Uint32()), Urgent: uint16(rng.Uint32()),
		}
		o := &s.Options
		o.Set = probe.OptionSet(rng.Uint32N(1<<8)) &^ (probe.OptSACK | probe.OptUnknown | probe.OptMalformed)
		o.MSS, o.WindowScale = uint16(rng.Uint32()), uint8(rng.Uint32N(15))
		o.TSVal, o.TSEcr = rng.Uint32(), rng.Uint32()
		if rng.IntN(4) == 0 {
			o.RawLen = uint8(rng.IntN(probe.MaxOptions + 1))
			for i := range o.RawLen {
				o.Raw[i] = byte(rng.Uint32())
			}
		}
		if rng.IntN(3) == 0 {
			s.Seq, o.TSVal = 0xffffffff*probe.Seq(rng.IntN(2)), 0xffffffff*rng.Uint32N(2)
		}
		template := NewTemplate(&s)
		v6 := rng.IntN(2) == 0
		tuple := probe.FourTuple{
			Local:  netip.AddrPortFrom(address(v6), uint16(rng.Uint32())),
			Remote: netip.AddrPortFrom(address(v6), uint16(rng.Uint32())),
		}
		want := AppendTCP([]byte("x"), &tuple, &s, nil)
		got := template.Append([]byte("x"), PseudoSum(tuple.Local.Addr(), tuple.Remote.Addr()),
			tuple.Local.Port(), tuple.Remote.Port(), s.Seq, o.TSVal)
		if !bytes.Equal(got, want) {
			t.Fatalf("%+v %+v:\n% x\n% x", tuple, s, got, want)
		}
	}
}

func BenchmarkTemplate(b *testing.B) {
	s := probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}}
	template := NewTemplate(&s)
	between := PseudoSum(netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2"))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = template.Append(buf[:0], between, 61000, 443, 1, 0)
	}
}
