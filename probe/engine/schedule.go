package engine

import (
	"time"

	"github.com/probed/probed/probe"
)

// splitmix is SplitMix64's finaliser: it spreads the bits of a target's
// identity so that phases and jitter don't follow it.
func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// firstSlot returns the first moment from now on at which the target is due:
// phase + k·interval on the monotonic clock, with the phase spread over the
// interval by identity. It does not depend on when probed was started, and
// slots never drift: each is the last one plus the interval, however late the
// probe went.
func firstSlot(id uint64, interval time.Duration, now probe.Instant) probe.Instant {
	i := probe.Instant(interval)
	phase := probe.Instant(splitmix(id) % uint64(i))
	slot := now - now%i + phase
	if slot < now {
		slot += i
	}
	return slot
}

// jitter returns how much later than its slot a probe is due.
func jitter(id uint64, slot probe.Instant, bound time.Duration) time.Duration {
	if bound <= 0 {
		return 0
	}
	return time.Duration(splitmix(id^uint64(slot)) % uint64(bound))
}
