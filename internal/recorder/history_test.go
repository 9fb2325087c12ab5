package recorder

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A sample of a target that is probed evenly is an octet of what it is, two of its time in µs and
// three at most of by how much longer its round trip is.
func TestSamplesAreShort(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var h history
	for i := range int64(MaxSamples) {
		at := i*1e9 + rng.Int64N(200_000)
		h.push(at, 10*time.Millisecond+time.Duration(rng.IntN(1_000_000)), uint16(61000+i), 0, 0)
	}
	if each := float64(h.used) / MaxSamples; each > 5.9 {
		t.Errorf("%.2f octets a sample", each)
	}
}
