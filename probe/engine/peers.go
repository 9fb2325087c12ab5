package engine

import (
	"net/netip"

	"github.com/probed/probed/probe"
)

// A peer is one remote address and port, however many targets name it: they
// share its four-tuples.
type peer struct {
	remote  netip.AddrPort
	address *address
	ports   uint32 // the next source port to take, counted from the range's first
	target  *entry // the last one to probe it: whose ledger strays go to
	users   int
}

// An address is what the per-address limit is about.
type address struct {
	window window
	users  int
}

// peers finds both. A peer goes with its last target. An address stays while
// its log does, so that removing and adding targets does not lift its limit.
type peers struct {
	byRemote  map[netip.AddrPort]*peer
	byAddress map[netip.Addr]*address
}

// use returns the peer for one more target. Its round of the source ports
// begins where the secret says, so that peers don't march in step.
func (ps *peers) use(remote netip.AddrPort, k secret) *peer {
	p := ps.byRemote[remote]
	if p == nil {
		a := ps.byAddress[remote.Addr()]
		if a == nil {
			a = new(address)
			ps.byAddress[remote.Addr()] = a
		}
		a.users++
		start := k.iss(&probe.FourTuple{Remote: remote}, 0)
		p = &peer{remote: remote, address: a, ports: uint32(start)}
		ps.byRemote[remote] = p
	}
	p.users++
	return p
}

func (ps *peers) unuse(p *peer) {
	if p.users--; p.users > 0 {
		return
	}
	p.address.users--
	delete(ps.byRemote, p.remote)
}

// sweep forgets the addresses that nobody uses any more and that have room.
func (ps *peers) sweep(now probe.Instant) {
	for a, st := range ps.byAddress {
		if st.users == 0 && st.window.idle(now) {
			delete(ps.byAddress, a)
		}
	}
}
