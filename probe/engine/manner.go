package engine

import (
	"unique"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A manner is how targets are probed that are probed alike: what each of their probes
// reads, once for all of them, so that it is in the processor's caches.
type manner struct {
	like
	packets  int           // of a probe
	booked   int           // of them, when its SYN goes; for the others room is reserved
	fresh    probe.Compact // a conversation before its OPEN, if it has that form
	template wire.Template // how its SYN is written
	users    int
}

// A like is what makes a manner.
type like struct {
	params probe.Params
	syn    unique.Handle[probe.Segment]
	ttl    uint8
	tos    uint8
}

// manners finds them.
type manners map[like]*manner

func (m manners) use(t *Target, syn unique.Handle[probe.Segment]) *manner {
	l := like{t.Params, syn, t.TTL, t.TOS}
	way := m[l]
	if way == nil {
		segment := syn.Value()
		way = &manner{like: l, packets: t.Params.Packets(), template: wire.NewTemplate(&segment)}
		if way.booked = 1; t.Params.Compacts() {
			way.booked = way.packets
		}
		c := probe.New(t.Params)
		c.Compact(&way.fresh)
		m[l] = way
	}
	way.users++
	return way
}

func (m manners) unuse(way *manner) {
	if way.users--; way.users == 0 {
		delete(m, way.like)
	}
}
