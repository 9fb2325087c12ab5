package engine

import (
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
)

// tupleMemory is how long peers, NATs and firewalls remember a four-tuple.
const tupleMemory = 120 * time.Second

// A peer is one remote address and port, however many targets name it: they
// share its four-tuples.
type peer struct {
	address *address
	target  *entry    // the last one to probe it: whose ledger strays go to; nil once it is removed
	hi, lo  uint64    // its address
	ports   [2]uint32 // the next source port to take, counted from the range's first: reserved and guarded
	port    uint16
	taken   uint16        // guarded ports that the round has come to since there is the peer, up to all of them
	unreset uint8         // probes past the firewall, one after another, that our kernel did not reset
	raw     probe.Instant // until when none goes past it

	users int32
	left  probe.Instant // when the last user went
	way   *way          // that of the last target, once that is removed
}

// remote is its address, which has no zone, and port.
func (p *peer) remote() netip.AddrPort { return netip.AddrPortFrom(joined(p.hi, p.lo), p.port) }

// key is that of a conversation with the peer from a port of ours.
func (p *peer) key(ours uint16) key { return key{p.hi, p.lo, uint32(p.port)<<16 | uint32(ours)} }

// A way is how a peer is reached that no target names any more.
type way struct {
	source   addr
	ifindex  int
	ttl, tos uint8
	hop      uint64 // 0 for strays: they are few
}

// An address is what the per-address limit is about.
type address struct {
	window   window
	refused  ration // RSTs to what nobody believes
	users    int32  // peers
	waiting  int32  // targets that wait for the limit
	demand   demand // of the targets
	unsent   int32  // packets, booked with their SYN, of probes whose SYN lies in this host
	passed   uint32 // rises when a SYN passes those: they will never leave
	judged   judgement
	reserved int32         // packets that open conversations may send yet
	wanted   int32         // packets of conversations that wait for room
	narrow   uint32        // the second of the loop's clock before which segments to it are small; 0: it was not narrow yet, or is not any more
	lent     *lending      // what was sent beside the schedule; nil: nothing
	scouted  probe.Instant // when one was sent all the same, to see
	turn     probe.Instant // when the last of those that wait comes back, where room is reserved
}

// narrowFor is for how long a path that took less than our segments is taken to do so: "10 minutes"
// are recommended until a larger one may be tried again (RFC 8201 §4; RFC 1191 §6.3). Who tries with
// each conversation asks the router for one error each, and routers ration those. So one tries, and
// the others wait for another ten minutes, or until it has come through.
const narrowFor = 10 * time.Minute

// narrows notes that the path to the address has just been found to be narrow.
func (a *address) narrows(now probe.Instant) {
	a.narrow = uint32(now.Add(narrowFor) / probe.Instant(time.Second))
}

// tries reports whether a conversation that begins is to try larger segments again: when that is, as
// the others know it from then on, or 0.
func (a *address) tries(now probe.Instant) uint32 {
	if a.narrow == 0 || a.isNarrow(now) {
		return 0
	}
	a.narrows(now)
	return a.narrow
}

// isNarrow reports whether it is taken to be.
func (a *address) isNarrow(now probe.Instant) bool {
	return uint32(now/probe.Instant(time.Second)) < a.narrow
}

// peers finds both. They outlive their last target, so that removing and adding
// targets, as a reload does, neither starts the round of source ports anew nor
// lifts the limit.
type peers struct {
	byRemote  map[netip.AddrPort]*peer
	byAddress map[netip.Addr]*address
	departed  []departed   // in order
	vacant    []netip.Addr // addresses without peers, which may have sent lately
}

// A departed is a peer when its last user went.
type departed struct {
	peer *peer
	at   probe.Instant
}

// use returns the peer for one more target. Its round of the source ports
// begins where the secret says, so that peers don't march in step, and as many ports
// on as the time has had intervals, so that a shard which starts again goes on where it
// was: the peer may still have the last four-tuples in TIME-WAIT.
func (ps *peers) use(remote netip.AddrPort, k secret, intervals int64) *peer {
	p := ps.byRemote[remote]
	if p == nil {
		a := ps.byAddress[remote.Addr()]
		if a == nil {
			a = new(address)
			ps.byAddress[remote.Addr()] = a
		}
		a.users++
		start := uint32(k.fixed(&probe.FourTuple{Remote: remote})) + uint32(intervals)
		p = &peer{port: remote.Port(), address: a, ports: [2]uint32{start, start}}
		p.hi, p.lo = halves(remote.Addr())
		ps.byRemote[remote] = p
	}
	p.users++
	return p
}

func (ps *peers) unuse(p *peer, now probe.Instant) {
	p.users--
	if p.left = now; p.users == 0 {
		ps.departed = append(ps.departed, departed{p, now})
	}
}

// sweep forgets some of the peers whose four-tuples nobody remembers, and of the
// addresses that nobody uses any more and that have room.
func (ps *peers) sweep(now probe.Instant) {
	for n := 0; n < apiece && len(ps.departed) > 0 && now.Sub(ps.departed[0].at) > tupleMemory; n++ {
		d := ps.departed[0]
		ps.departed[0] = departed{}
		if ps.departed = ps.departed[1:]; len(ps.departed) == 0 {
			ps.departed = nil
		}
		// Who left twice at one time is here twice, and gone after the first.
		if p := d.peer; p.users == 0 && p.left == d.at && ps.byRemote[p.remote()] == p {
			delete(ps.byRemote, p.remote())
			if p.address.users--; p.address.users == 0 {
				ps.vacant = append(ps.vacant, p.remote().Addr())
			}
		}
	}
	for n := min(apiece, len(ps.vacant)); n > 0; n-- {
		a := ps.vacant[0]
		ps.vacant = ps.vacant[1:]
		switch st := ps.byAddress[a]; {
		case st == nil || st.users > 0:
		case st.window.idle(now) && st.reserved == 0 && st.wanted == 0:
			delete(ps.byAddress, a)
		default:
			ps.vacant = append(ps.vacant, a)
		}
	}
	if len(ps.vacant) == 0 {
		ps.vacant = nil
	}
}
