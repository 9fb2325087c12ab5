package engine

import (
	"crypto/rand"
	"encoding/binary"
	"time"

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

// issTick is the step of the clock in it, in nanoseconds. RFC 6528's is 4 µs; a shorter
// one leaves room for chance between two uses of a four-tuple, and still rises for longer,
// nine minutes (half of 2³² steps), than any peer remembers one.
const issTick = 256

// issSpan is that time.
const issSpan = issTick << 31 * time.Nanosecond

// strideTicks is the time between two moments, 2.1 s apart, at which a four-tuple's clock
// is ahead by chance, and maxAhead is by how much, in ticks, it is less than.
const (
	strideTicks = 1 << 23
	maxAhead    = strideTicks / 2
)

// iss is RFC 6528 §3's initial sequence number: "ISN = M + F(localip, localport,
// remoteip, remoteport, secretkey)", with M a clock. A schedule is regular, so that who
// has seen one conversation could count on to the next: M is a clock of the four-tuple's
// own, which goes fast or slow by chance.
func (k secret) iss(t *probe.FourTuple, now probe.Instant) probe.Seq {
	f := k.fixed(t)
	return probe.Seq(f).Add(k.clock(f, now))
}

// fixed is F.
func (k secret) fixed(t *probe.FourTuple) uint64 {
	var b [36]byte
	local, remote := t.Local.Addr().As16(), t.Remote.Addr().As16()
	copy(b[:], local[:])
	copy(b[16:], remote[:])
	binary.BigEndian.PutUint16(b[32:], t.Local.Port())
	binary.BigEndian.PutUint16(b[34:], t.Remote.Port())
	return siphash.Hash(k.k0, k.k1, b[:])
}

// clock is M: ahead of the time by as much as chance says for the last stride's begin and
// for the next one's, and in proportion between them. So it rises by half of the time that
// goes by, at the least, and by one and a half of it at the most, whoever uses the
// four-tuple again, and however soon: nothing need be known of when that will be, nor
// kept of when it was. After a stride and more there is a second's worth of chance in it.
func (k secret) clock(f uint64, now probe.Instant) uint32 {
	ticks := int64(now / issTick)
	stride, in := ticks/strideTicks, ticks%strideTicks
	from, to := k.ahead(f, stride), k.ahead(f, stride+1)
	return uint32(ticks + from + (to-from)*in/strideTicks)
}

// ahead is the part by chance at a stride's begin.
func (k secret) ahead(f uint64, stride int64) int64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], f)
	binary.BigEndian.PutUint64(b[8:], uint64(stride))
	return int64(siphash.Hash(k.k1, k.k0, b[:]) % maxAhead)
}

// tsval is the TSval of RFC 7323 §3.2's millisecond clock, from an offset that
// is not the host's uptime.
func (k secret) tsval(now probe.Instant) uint32 {
	return k.ts + uint32(now/1e6)
}
