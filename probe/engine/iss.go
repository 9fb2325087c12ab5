package engine

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/dchest/siphash"
	"github.com/probed/probed/probe"
)

// A secret keys the hashes that a peer must not be able to foresee.
type secret struct {
	k0, k1 uint64
	ts     uint32 // where the timestamp clock begins: peers see it, so it is no part of the key
}

// newSecret makes it of a seed's first 20 octets, or of chance.
func newSecret(b []byte) secret {
	if len(b) < 20 {
		b = make([]byte, 20)
		rand.Read(b) // never fails: crypto/rand aborts the process instead
	}
	return secret{
		k0: binary.LittleEndian.Uint64(b),
		k1: binary.LittleEndian.Uint64(b[8:]),
		ts: binary.LittleEndian.Uint32(b[16:]),
	}
}

// iss is RFC 6528 §3's initial sequence number: "ISN = M + F(localip,
// localport, remoteip, remoteport, secretkey)", with M "the 4 microsecond
// timer". It rises across reuse of a four-tuple.
func (k secret) iss(t *probe.FourTuple, now probe.Instant) probe.Seq {
	var b [36]byte
	local, remote := t.Local.Addr().As16(), t.Remote.Addr().As16()
	copy(b[:], local[:])
	copy(b[16:], remote[:])
	binary.BigEndian.PutUint16(b[32:], t.Local.Port())
	binary.BigEndian.PutUint16(b[34:], t.Remote.Port())
	return probe.Seq(siphash.Hash(k.k0, k.k1, b[:])).Add(uint32(now / 4000))
}

// tsval is the TSval of RFC 7323 §3.2's millisecond clock, from an offset that
// is not the host's uptime.
func (k secret) tsval(now probe.Instant) uint32 {
	return k.ts + uint32(now/1e6)
}
