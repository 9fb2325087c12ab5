package lab

import "github.com/probed/probed/probe/wire"

// headLen is how much of a packet a record keeps: IPv6's header and the
// longest TCP header, rounded up.
const headLen = 104

// Fate is what became of a packet.
type Fate uint8

// The fates.
const (
	Waiting Fate = iota // still on its way
	Passed
	Lost    // by Loss
	TooBig  // above the MTU, and an ICMP error went back if one may
	Expired // its TTL did not last for Hops
	Refused // the receiving host's device did not take it: a fault of the lab
)

var fateNames = [...]string{"waiting", "passed", "lost", "too big", "expired", "refused"}

func (f Fate) String() string { return fateNames[f] }

// A Record is one packet on a link, or one copy of it.
type Record struct {
	Arrived   Stamp // when the link read it
	Departed  Stamp // when the other host had it; zero if it never did
	Length    int   // octets
	Fate      Fate
	Duplicate bool // a copy made by Duplicate; the original has a record of its own
	Held      bool // by Reorder
	have      uint8
	head      [headLen]byte
}

// Head is the beginning of the packet as it arrived.
func (r *Record) Head() []byte { return r.head[:r.have] }

// Packet parses the head.
func (r *Record) Packet() (wire.Packet, error) {
	var p wire.Packet
	err := wire.Parse(r.Head(), &p)
	return p, err
}

// recordChunk is how many records are allocated at once: records stay where
// they are while their packets wait.
const recordChunk = 1024

// records grows without moving.
type records struct{ chunks [][]Record }

// add returns a new record about a packet.
func (rs *records) add(at Stamp, packet []byte, fate Fate) *Record {
	n := len(rs.chunks)
	if n == 0 || len(rs.chunks[n-1]) == recordChunk {
		rs.chunks = append(rs.chunks, make([]Record, 0, recordChunk))
		n++
	}
	chunk := &rs.chunks[n-1]
	*chunk = append(*chunk, Record{Arrived: at, Length: len(packet), Fate: fate})
	r := &(*chunk)[len(*chunk)-1]
	r.have = uint8(copy(r.head[:], packet))
	return r
}

// all returns a copy.
func (rs *records) all() []Record {
	var out []Record
	for _, chunk := range rs.chunks {
		out = append(out, chunk...)
	}
	return out
}
