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

// issTick is the step of the clock in it. RFC 6528's is 4 µs; a shorter one leaves room
// for chance between two uses of a four-tuple, and still rises for longer, nine minutes
// (half of 2³² steps), than any peer remembers one.
const issTick = 256

// iss is RFC 6528 §3's initial sequence number: "ISN = M + F(localip, localport,
// remoteip, remoteport, secretkey)", with M a clock. It rises across reuse of a
// four-tuple. A schedule is regular, so that who has seen one conversation could count
// on to the next: M is ahead of the clock by chance, by less than span.
func (k secret) iss(t *probe.FourTuple, now probe.Instant, span time.Duration) probe.Seq {
	var b [36]byte
	local, remote := t.Local.Addr().As16(), t.Remote.Addr().As16()
	copy(b[:], local[:])
	copy(b[16:], remote[:])
	binary.BigEndian.PutUint16(b[32:], t.Local.Port())
	binary.BigEndian.PutUint16(b[34:], t.Remote.Port())
	f := siphash.Hash(k.k0, k.k1, b[:])
	m := uint32(now / issTick)
	if span >= issTick {
		binary.BigEndian.PutUint64(b[:], f)
		binary.BigEndian.PutUint64(b[8:], uint64(now))
		m += uint32(siphash.Hash(k.k1, k.k0, b[:16]) % uint64(span/issTick))
	}
	return probe.Seq(f).Add(m)
}

// maxSpan bounds by how much an ISS is ahead of its clock, so that those of a process
// that has just been started lie beyond those of the one before.
const maxSpan = time.Second

// span is by how much the ISS of a probe of a target may be ahead of the clock: by half
// the time until its four-tuple may be used again.
func (s *Shard) span(e *entry) time.Duration {
	again := e.interval
	if !e.flows {
		r := s.cfg.Reserved
		if e.guarded {
			r = s.cfg.Guarded
		}
		again = e.interval * time.Duration(r.len()) / time.Duration(max(e.peer.users, 1))
	}
	return min(again/2, maxSpan)
}

// tsval is the TSval of RFC 7323 §3.2's millisecond clock, from an offset that
// is not the host's uptime.
func (k secret) tsval(now probe.Instant) uint32 {
	return k.ts + uint32(now/1e6)
}
