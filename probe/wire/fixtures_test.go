package wire_test

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Packets that a Linux 6.18 kernel sent over its loopback interface, as
// tcpdump captured them.
const (
	linuxSYN4      = "4500003c2359400040068b3cc6120001c6120001aa9001bbaf9bf94700000000a002ffd78c5500000204ffd70402080a809bb89c000000000103030a"
	linuxSYNACK4   = "4500003c000040004006ae95c6120001c612000101bbaa90d5d8dff6af9bf948a012ffcb8c5500000204ffd70402080adf7b3b7b809bb89c0103030a"
	linuxData4     = "45000039235b400040068b3dc6120001c6120001aa9001bbaf9bf948d5d8dff7801800408c5200000101080a809bb89cdf7b3b7b68656c6c6f"
	linuxFINACK4   = "45000034235c400040068b41c6120001c6120001aa9001bbaf9bf94dd5d8dff7801100408c4d00000101080a809bb89cdf7b3b7b"
	linuxRST4      = "45000028000040004006aea9c6120001c61200010050e1900000000013dcfc9c5014000031500000"
	linuxICMPProh4 = "45c0005831c300004001bbfbc6120001c6120001030d31ca000000004500003c4c93400040066202c6120001c6120001a6ea0051748f799400000000a002ffd78c5500000204ffd70402080a480baf98000000000103030a"
	linuxICMPPort4 = "45c0005831c400004001bbfac6120001c6120001030323d1000000004500003ca50b40004006098ac6120001c6120001ade80052c71f5e7000000000a002ffd78c5500000204ffd70402080a37408ffb000000000103030a"
	linuxSYN6      = "600e911b0028064020010db800000000000000000000000120010db8000000000000000000000001ebfa01bb97531dc500000000a002ffc45ba200000204ffc40402080ae13d3461000000000103030a"
	linuxSYNACK6   = "600fee360028064020010db800000000000000000000000120010db800000000000000000000000101bbebfa72bc3c3597531dc6a012ffb85ba200000204ffc40402080a10c1a7e3e13d34610103030a"
	linuxRST6      = "6004ed710014064020010db800000000000000000000000120010db800000000000000000000000100508c3800000000eb283c45501400005b8e0000"
	linuxICMPProh6 = "60012cc800583a4020010db800000000000000000000000120010db800000000000000000000000101018ca100000000600b5c8e0028064020010db800000000000000000000000120010db80000000000000000000000019418005122bb310a00000000a002ffc45ba200000204ffc40402080af1f6106f000000000103030a"
	linuxICMPPort6 = "6003567100583a4020010db800000000000000000000000120010db80000000000000000000000010104635400000000600fc9600028064020010db800000000000000000000000120010db8000000000000000000000001db8600529ccdd85200000000a002ffc45ba200000204ffc40402080a92e6c328000000000103030a"
)

var linuxPackets = []string{
	linuxSYN4, linuxSYNACK4, linuxData4, linuxFINACK4, linuxRST4, linuxICMPProh4, linuxICMPPort4,
	linuxSYN6, linuxSYNACK6, linuxRST6, linuxICMPProh6, linuxICMPPort6,
}

var (
	us4   = netip.MustParseAddr("198.18.0.1")
	peer4 = netip.MustParseAddr("198.18.0.10")
	hop4  = netip.MustParseAddr("198.18.0.254")
	us6   = netip.MustParseAddr("2001:db8::1")
	peer6 = netip.MustParseAddr("2001:db8::10")
	hop6  = netip.MustParseAddr("2001:db8::fe")

	tuple4 = probe.FourTuple{Local: netip.AddrPortFrom(us4, 61000), Remote: netip.AddrPortFrom(peer4, 443)}
	tuple6 = probe.FourTuple{Local: netip.AddrPortFrom(us6, 61000), Remote: netip.AddrPortFrom(peer6, 443)}
)

// syn is a SYN with every option that a header has room for.
func syn() probe.Segment {
	return probe.Segment{Seq: 0xfffffff0, Flags: probe.SYN | probe.ECE | probe.CWR | probe.AE, Window: 64240, TTL: 64, TOS: 2,
		Options: probe.Options{
			Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale | probe.OptFastOpen,
			MSS: 1460, WindowScale: 7, TSVal: 0x01020304, TSEcr: 5, CookieLen: 8, Cookie: [16]byte{1, 2, 3, 4, 5, 6, 7, 8},
		}}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, b []byte) wire.Packet {
	t.Helper()
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil {
		t.Fatalf("Parse(%x): %v", b, err)
	}
	return p
}

// unraw is a segment without the octets that its options came from.
func unraw(s probe.Segment) probe.Segment {
	s.Options.RawLen, s.Options.Raw = 0, [probe.MaxOptions]byte{}
	return s
}
