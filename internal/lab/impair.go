package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// An Impairment is what happens to packets on their way. The zero value
// happens to none of them.
type Impairment struct {
	Delay     time.Duration // of every packet
	Jitter    time.Duration // the delay varies evenly within ±Jitter, not below 0; so packets may overtake
	Loss      float64       // probability, 0 to 1
	Duplicate float64       // probability that a packet is followed by a copy with a jitter of its own
	Reorder   float64       // probability that a packet is held back, for later ones to overtake
	Hold      time.Duration // by how much: above 0 if Reorder is
	MTU       int           // octets of the largest IP packet; 0 is no limit
	Hops      int           // routers that the path stands for: taken off the TTL
	Damage    int           // a bit of the last octet is flipped of packets of more octets than this; 0: of none
}

// A Direction is how packets fare from one end of a link to the other.
type Direction struct {
	Impairment
	Seed    uint64                 // of the direction's random numbers: the same packets fare the same
	PerFlow func(Flow) *Impairment // the flow's own impairment; nil, or a nil result, is the direction's. Runs on the link's thread
}

// check tells what is wrong with an impairment.
func (m *Impairment) check() error {
	for _, p := range [...]float64{m.Loss, m.Duplicate, m.Reorder} {
		if !(p >= 0 && p <= 1) {
			return fmt.Errorf("a probability of %v", p)
		}
	}
	if m.Reorder > 0 && m.Hold <= 0 {
		return errors.New("a probability to Reorder without a time to Hold")
	}
	if m.MTU != 0 && m.MTU < 576 {
		return fmt.Errorf("an MTU of %d: below 576 no IP works", m.MTU)
	}
	return nil
}

// A fortune is a packet's draw. Every packet draws as often, whatever its
// impairment is, so that changing one probability leaves the others' draws.
type fortune struct{ loss, duplicate, reorder, jitter, copyJitter float64 }

func draw(r *rand.Rand) fortune {
	return fortune{r.Float64(), r.Float64(), r.Float64(), r.Float64(), r.Float64()}
}

// delay is how long a packet takes; jitter is its draw.
func (m *Impairment) delay(jitter float64) time.Duration {
	return max(m.Delay+time.Duration((2*jitter-1)*float64(m.Jitter)), 0)
}
