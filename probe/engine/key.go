package engine

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// A key finds a conversation by what a segment of it must carry: the peer's
// address and both ports. (Our own address is compared after.) It is all
// integers.
type key struct {
	hi, lo uint64 // the peer's address; an IPv4 one as it is mapped
	ports  uint32 // the peer's and ours
}

func keyOf(remote netip.Addr, remotePort, localPort uint16) (k key) {
	k.hi, k.lo = halves(remote)
	k.ports = uint32(remotePort)<<16 | uint32(localPort)
	return k
}

// port is our port.
func (k *key) port() uint16 { return uint16(k.ports) }

// halves returns an address as two integers.
func halves(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// joined returns the address of which those are the halves.
func joined(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b).Unmap()
}

// mix spreads what a and b say over 64 bits, as wyhash does: by the product's halves.
// Keys are of targets, whom whoever runs probed has chosen, so that nobody gains by
// making them collide.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	return hi ^ lo
}

// hash is the same for equal keys.
func (k *key) hash() uint64 { return mix(mix(k.hi, k.lo), uint64(k.ports)) }

// An index finds slots by their keys' hashes: cells of half a hash and a slot's
// number, in the order in which they were added to a run of cells that are not empty.
// Whoever looks compares the keys.
type index struct {
	cells []cell // a power of two of them, 0 for none
	n     int
}

type cell struct {
	hash uint32
	slot int32 // one more than the slot's number; 0: empty
}

func (x *index) start(h uint64) uint32           { return uint32(h>>32) & uint32(len(x.cells)-1) }
func (x *index) after(at uint32) uint32          { return (at + 1) & uint32(len(x.cells)-1) }
func (x *index) home(c cell) uint32              { return c.hash & uint32(len(x.cells)-1) }
func (x *index) distance(from, to uint32) uint32 { return (to - from) & uint32(len(x.cells)-1) }

// at returns the slot in a cell, or none if it is empty, and whether its key may have
// the hash.
func (x *index) at(at uint32, h uint64) (slot int32, same bool) {
	c := x.cells[at]
	return c.slot - 1, c.hash == uint32(h>>32)
}

// add adds a slot.
func (x *index) add(h uint64, slot int32) {
	x.reserve(x.n + 1)
	x.n++
	x.put(cell{uint32(h >> 32), slot + 1})
}

func (x *index) put(c cell) {
	at := x.home(c)
	for x.cells[at].slot != 0 {
		at = x.after(at)
	}
	x.cells[at] = c
}

// leastCells is what an index begins with.
const leastCells = 1 << 10

// reserve makes room for n slots, of which each takes two cells or more.
func (x *index) reserve(n int) {
	if 2*n <= len(x.cells) {
		return
	}
	old := x.cells
	x.cells = make([]cell, max(leastCells, 1<<bits.Len(uint(2*n-1))))
	for _, c := range old {
		if c.slot != 0 {
			x.put(c)
		}
	}
}

// remove takes a slot out, and moves those that lie behind it as far as they would
// have come without it.
func (x *index) remove(h uint64, slot int32) {
	at := x.start(h)
	for x.cells[at].slot != slot+1 {
		at = x.after(at)
	}
	x.n--
	for next := x.after(at); ; next = x.after(next) {
		c := x.cells[next]
		if c.slot == 0 {
			break
		}
		if x.distance(x.home(c), next) >= x.distance(at, next) {
			x.cells[at] = c
			at = next
		}
	}
	x.cells[at] = cell{}
}
