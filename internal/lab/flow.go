package lab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Flow is the five-tuple by which routers choose one of several equal paths.
// Ports are 0 where there are none to see: ICMP, fragments, IPv6 extension
// headers.
type Flow struct {
	Src, Dst netip.AddrPort
	Protocol uint8
}

// flowOf reads the five-tuple of a whole IPv4 or IPv6 header; ok is false for
// anything else.
func flowOf(b []byte) (f Flow, ok bool) {
	var upper []byte
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && len(b) >= headerLen(b):
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		f.Protocol = b[9]
		if binary.BigEndian.Uint16(b[6:])&0x3fff == 0 { // neither offset nor more to come
			upper = b[headerLen(b):]
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		f.Protocol = b[6]
		upper = b[40:]
	default:
		return Flow{}, false
	}
	var sport, dport uint16
	if (f.Protocol == unix.IPPROTO_TCP || f.Protocol == unix.IPPROTO_UDP) && len(upper) >= 4 {
		sport, dport = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:])
	}
	f.Src, f.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return f, true
}

// headerLen is an IPv4 header's length in octets.
func headerLen(b []byte) int { return int(b[0]&0x0f) * 4 }

// Hash spreads flows evenly; the two directions of a connection are two flows.
// (FNV-1a, then the finalizer of MurmurHash3.)
func (f Flow) Hash(seed uint64) uint64 {
	h := uint64(14695981039346656037) ^ seed
	octet := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for _, end := range [...]netip.AddrPort{f.Src, f.Dst} {
		for _, b := range end.Addr().As16() {
			octet(b)
		}
		octet(byte(end.Port() >> 8))
		octet(byte(end.Port()))
	}
	octet(f.Protocol)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Paths chooses one of several impairments by the hash of the five-tuple, as
// equal-cost multipath does: a PerFlow for Direction.
func Paths(seed uint64, paths ...Impairment) func(Flow) *Impairment {
	return func(f Flow) *Impairment { return &paths[f.Hash(seed)%uint64(len(paths))] }
}
