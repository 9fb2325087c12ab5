package engine

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Through a bridge, a VLAN or a bond each segment is seen once a layer, and
// counted once: the RTT is from the last sighting of the SYN to the first of
// the SYN-ACK.
func TestStackedDevices(t *testing.T) {
	for layers := 1; layers <= 3; layers++ {
		w := newWorld(t, nil)
		w.layers = layers
		w.peer = listening(10 * time.Millisecond)
		target, l := w.target(1, "198.19.0.1:443", nil)
		w.add(target)
		w.run(30 * time.Second)
		if l.verdicts[probe.OK] != 30 || l.dups != 0 || sum(l.rejects[:]) != 0 {
			t.Errorf("%d layers: %d answered, %d duplicates, rejected %v", layers, l.verdicts[probe.OK], l.dups, l.rejects)
		}
		if out, in := w.shard.Stats.SegmentsSent.Load(), w.shard.Stats.SegmentsReceived.Load(); out != 60 || in != 30 {
			t.Errorf("%d layers: %d segments sent, %d received, of 60 and 30", layers, out, in)
		}
		for _, got := range l.rtts {
			if want := 10 * time.Millisecond; got != want {
				t.Fatalf("%d layers: observed %v, want %v", layers, got, want)
			}
		}
		for _, got := range l.reacted { // from the first sighting to the first
			if want := kernelRST + time.Duration(layers-1)*layerCost; got != want {
				t.Fatalf("%d layers: reacted in %v, want %v", layers, got, want)
			}
		}
	}
}

// A stack is a world of stacked devices: a test says by how many of them what goes to an address leaves,
// and whether the last drops it.
type stack struct {
	*world
	depth map[netip.Addr]int // 0: 2
	drops map[netip.Addr]bool
}

// newStack makes one whose peers answer what is not dropped.
func newStack(t *testing.T, peer peerFunc) *stack {
	w := &stack{newWorld(t, nil), make(map[netip.Addr]int), make(map[netip.Addr]bool)}
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if w.layers = 2; w.depth[p.Dst] != 0 {
			w.layers = w.depth[p.Dst]
		}
		if w.drops[p.Dst] {
			w.layers--
		}
	}
	w.peer = func(s *sim, p *wire.Packet) {
		if !w.drops[p.Dst] {
			peer(s, p)
		}
	}
	return w
}

// dies has a peer neither answer nor be dropped from a moment on.
func (w *stack) dies(at time.Duration, remote netip.AddrPort) {
	w.after(at, func() { w.peers[remote] = silent })
}

// What the lowest of stacked devices drops has not left, whatever those above it have shown: its queue
// is full, say, or a rule of this host's. A peer that is dead is a failure: that has never answered, at any
// time; that has, while nothing is dropped.
func TestDroppedBelow(t *testing.T) {
	t.Parallel()
	for depth := 2; depth <= 3; depth++ {
		w := newStack(t, listening(10*time.Millisecond))
		target, l := w.target(1, "198.19.0.1:443", nil)
		refuses, r := w.target(2, "198.19.0.2:443", nil)
		dead, d := w.target(3, "198.19.0.3:443", nil)
		dies, x := w.target(4, "198.19.0.4:443", nil)
		all := []*Target{target, refuses, dead, dies}
		w.peers[refuses.Remote] = func(s *sim, p *wire.Packet) {
			if !w.drops[p.Dst] {
				closed(10*time.Millisecond)(s, p)
			}
		}
		w.peers[dead.Remote] = silent
		w.dies(20*time.Second, dies.Remote)
		for _, t := range all {
			w.depth[t.Remote.Addr()] = depth
		}
		for _, drops := range []bool{true, false} {
			at := 30 * time.Second
			if drops {
				at = 10 * time.Second
			}
			w.after(at, func() {
				for _, t := range all {
					w.drops[t.Remote.Addr()] = drops
				}
			})
		}
		w.add(all...)
		w.run(40 * time.Second)
		if n := l.discards[probe.DiscardSendError]; n < 19 || n > 21 || l.verdicts[probe.OK] != l.settled()-n {
			t.Errorf("%d layers: verdicts %v, discards %v", depth, l.verdicts, l.discards)
		}
		if n := r.discards[probe.DiscardSendError]; n < 19 || n > 21 || r.verdicts[probe.Refused] != r.settled()-n {
			t.Errorf("%d layers: refuses: verdicts %v, discards %v", depth, r.verdicts, r.discards)
		}
		if d.verdicts[probe.Timeout] != d.settled() {
			t.Errorf("%d layers: dead: verdicts %v, discards %v", depth, d.verdicts, d.discards)
		}
		if n := x.discards[probe.DiscardSendError]; n < 19 || n > 21 || x.verdicts[probe.Timeout] < 9 || x.verdicts[probe.Timeout]+x.verdicts[probe.OK] != x.settled()-n {
			t.Errorf("%d layers: dies: verdicts %v, discards %v", depth, x.verdicts, x.discards)
		}
		if !slices.Contains(w.troubles, errBelow.Error()) {
			t.Errorf("%d layers: said %q", depth, w.troubles)
		}
	}
}

// Not every peer of an interface is below it: a macvlan reaches those of this host through no other device.
// Whoever of them is silent has failed, whether it has answered before or not, and is no reason to book
// as a target's what is dropped below. Nor is one a failure's excuse that has moved.
func TestNeighboursWithinThisHost(t *testing.T) {
	t.Parallel()
	w := newStack(t, listening(10*time.Millisecond))
	away, l := w.target(1, "198.19.0.1:443", nil)
	here, h := w.target(2, "198.19.0.2:443", nil)
	dead, d := w.target(3, "198.19.0.3:443", nil)
	dies, x := w.target(4, "198.19.0.4:443", nil)
	moves, m := w.target(5, "198.19.0.5:443", nil)
	for _, t := range []*Target{here, dead, dies} {
		w.depth[t.Remote.Addr()] = 1
	}
	w.peers[dead.Remote] = silent
	w.dies(10*time.Second, dies.Remote)
	drop := func(from, to time.Duration) {
		w.after(from, func() { w.drops[away.Remote.Addr()] = true })
		w.after(to, func() { w.drops[away.Remote.Addr()] = false })
	}
	drop(10*time.Second, 20*time.Second)
	w.after(30*time.Second, func() { w.depth[moves.Remote.Addr()] = 1 })
	w.dies(35*time.Second, moves.Remote)
	drop(40*time.Second, 50*time.Second) // where something has moved, the target's, for safety's sake
	drop(30*time.Second+doubtFor+5*time.Second, 30*time.Second+doubtFor+15*time.Second)
	w.add(away, here, dead, dies, moves)
	w.run(doubtFor + 60*time.Second)
	if n := l.discards[probe.DiscardSendError]; n < 19 || n > 21 || l.verdicts[probe.Timeout] < 9 || l.verdicts[probe.Timeout] > 11 {
		t.Errorf("away: verdicts %v, discards %v", l.verdicts, l.discards)
	}
	if h.verdicts[probe.OK] != h.settled() {
		t.Errorf("here: verdicts %v, discards %v", h.verdicts, h.discards)
	}
	for _, l := range []*ledger{d, x, m} {
		if n := sum(l.discards[:]); n != 0 || l.verdicts[probe.Timeout] < l.settled()-36 {
			t.Errorf("%v: verdicts %v, discards %v", l.target.Remote, l.verdicts, l.discards)
		}
	}
}

// A copy that is sent after what it is of looks like a device below, and may be lost without it: from when one
// that was is answered nothing is excused, and a peer that has died in the meantime not for
// longer than until then.
func TestCopiesThatAreLost(t *testing.T) {
	t.Parallel()
	for _, share := range []int{1, 3} { // one of so many is lost
		w := newStack(t, listening(10*time.Millisecond))
		target, l := w.target(1, "198.19.0.1:443", nil)
		dies, x := w.target(2, "198.19.0.2:443", nil)
		hangs, h := w.target(3, "198.19.0.3:443", activeClose)
		w.peers[hangs.Remote] = stays(10 * time.Millisecond)
		lossy, n := false, 0
		onWire := w.onWire
		w.onWire = func(at probe.Instant, p *wire.Packet) {
			switch onWire(at, p); {
			case !lossy:
			case p.Dst == hangs.Remote.Addr() && (share == 1 || !p.Segment.Flags.Has(probe.SYN)):
				w.layers = 1
			case p.Dst == hangs.Remote.Addr(): // the first of a connection's alone
			case p.Segment.Flags.Has(probe.SYN):
				if n++; n/2%share == 0 {
					w.layers = 1
				}
			}
		}
		w.after(10*time.Second, func() { lossy = true })
		w.dies(10*time.Second, dies.Remote)
		w.add(target, dies, hangs)
		w.run(doubtFor + time.Minute)
		if l.verdicts[probe.OK] != l.settled() {
			t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
		}
		if n := sum(x.discards[:]); n > 1 || x.verdicts[probe.Timeout] < x.settled()-12 {
			t.Errorf("dies: verdicts %v, discards %v", x.verdicts, x.discards)
		}
		if n := h.discards[probe.DiscardSendError]; n > 1 || h.verdicts[probe.FINMissing] != h.settled()-n-h.discards[probe.DiscardShutdown] {
			t.Errorf("hangs: verdicts %v, discards %v", h.verdicts, h.discards)
		}
	}
}

// A bond takes another device below, and a bridge sends what it knows no port for by all of them. Neither makes
// a target's failure this host's.
func TestAnotherDeviceBelow(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *stack, i int, p *wire.Packet){
		"failover": func(w *stack, i int, _ *wire.Packet) { w.others = 10 * (i % 2) },
		"all ports": func(w *stack, i int, p *wire.Packet) {
			if i%4 == 0 && p.Segment.Flags.Has(probe.SYN) {
				w.layers = 4
			}
		},
	} {
		w := newStack(t, closes(10*time.Millisecond))
		target, l := w.target(1, "198.19.0.1:443", activeClose)
		dies, x := w.target(2, "198.19.0.2:443", nil)
		hangs, h := w.target(3, "198.19.0.3:443", activeClose)
		w.peers[hangs.Remote] = stays(10 * time.Millisecond)
		w.peers[dies.Remote] = listening(10 * time.Millisecond)
		w.dies(10*time.Second, dies.Remote)
		onWire, n := w.onWire, 0
		w.onWire = func(at probe.Instant, p *wire.Packet) {
			onWire(at, p)
			change(w, n/5, p) // in the midst of connections, too
			n++
		}
		w.add(target, dies, hangs)
		w.run(30 * time.Second)
		if l.verdicts[probe.OK] != l.settled() {
			t.Errorf("%s: verdicts %v, discards %v", name, l.verdicts, l.discards)
		}
		if x.verdicts[probe.Timeout] < 19 || sum(x.discards[:]) != 0 {
			t.Errorf("%s: dies: verdicts %v, discards %v", name, x.verdicts, x.discards)
		}
		if h.verdicts[probe.FINMissing] != h.settled()-h.discards[probe.DiscardShutdown] {
			t.Errorf("%s: hangs: verdicts %v, discards %v", name, h.verdicts, h.discards)
		}
	}
}

// What was last sent to a target by all ports, and is known to go by one, says nothing of that one: others are
// answered that left by it last.
func TestSentByAllPorts(t *testing.T) {
	t.Parallel()
	w := newStack(t, listening(10*time.Millisecond))
	target, l := w.target(1, "198.19.0.1:443", nil)
	dies, x := w.target(2, "198.19.0.2:443", nil)
	w.after(5*time.Second, func() { w.depth[dies.Remote.Addr()] = 3 })
	w.after(10*time.Second, func() { w.depth[dies.Remote.Addr()] = 2 })
	w.dies(10*time.Second, dies.Remote)
	w.add(target, dies)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != l.settled() || x.verdicts[probe.Timeout] < 19 || sum(x.discards[:]) != 0 {
		t.Errorf("verdicts %v, discards %v; dies: verdicts %v, discards %v", l.verdicts, l.discards, x.verdicts, x.discards)
	}
}

// Copies that come late are not even taken for a device below.
func TestLateCopies(t *testing.T) {
	t.Parallel()
	w := newStack(t, listening(10*time.Millisecond))
	w.delay = 2 * stackDelay
	dies, x := w.target(1, "198.19.0.1:443", nil)
	w.dies(10*time.Second, dies.Remote)
	w.after(10*time.Second, func() { w.depth[dies.Remote.Addr()] = 1 })
	w.add(dies)
	w.run(30 * time.Second)
	if x.verdicts[probe.Timeout] < 19 || sum(x.discards[:]) != 0 {
		t.Errorf("verdicts %v, discards %v", x.verdicts, x.discards)
	}
}

// What a connection sends has not left either, as long as the upper device alone has shown it, and where that is all
// that there is from then on, the connection ends all the same, and the next is as ever.
func TestDroppedBelowInConnections(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"dropped": true, "not seen": false} {
		w := newStack(t, closes(10*time.Millisecond))
		target, l := w.target(1, "198.19.0.1:443", activeClose)
		broken, connections := false, map[uint16]bool{}
		w.onWire = func(_ probe.Instant, p *wire.Packet) {
			if w.layers = 2; !broken {
				return
			}
			if p.Segment.Flags.Has(probe.SYN) {
				connections[p.SrcPort] = true
			}
			if lost && p.Segment.Flags.Has(probe.FIN) || !lost && (len(connections) > 1 || !p.Segment.Flags.Has(probe.SYN)) {
				w.layers = 1
			}
		}
		peer := w.peer
		w.peer = func(s *sim, p *wire.Packet) {
			if !lost || w.layers == 2 {
				peer(s, p)
			}
		}
		w.add(target)
		w.after(10*time.Second, func() { broken = true })
		w.after(20*time.Second, func() { broken = false })
		w.run(40 * time.Second)
		n, ok := l.settled(), l.verdicts[probe.OK]
		if sum(l.verdicts[:]) != ok || lost && (ok < 28 || n-ok < 5) || !lost && ok != n {
			t.Errorf("%s: verdicts %v, discards %v", name, l.verdicts, l.discards)
		}
	}
}

// A queue below may hold what it lets out for longer than sightings are taken for one packet's.
func TestSlowLayers(t *testing.T) {
	t.Parallel()
	w := newStack(t, closes(10*time.Millisecond))
	target, l := w.target(1, "198.19.0.1:443", activeClose)
	dies, x := w.target(2, "198.19.0.2:443", nil)
	w.peers[dies.Remote] = listening(10 * time.Millisecond)
	w.after(10*time.Second, func() { w.delay = 2 * stackDelay })
	w.dies(20*time.Second, dies.Remote)
	w.after(30*time.Second, func() { w.drops[target.Remote.Addr()] = true })
	w.add(target, dies)
	w.run(40 * time.Second)
	if n := l.discards[probe.DiscardSendError]; n < 6 || sum(l.verdicts[:]) != l.verdicts[probe.OK] || l.verdicts[probe.OK] < 28 {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
	if x.verdicts[probe.Timeout] < 19 || sum(x.discards[:]) != 0 {
		t.Errorf("dies: verdicts %v, discards %v", x.verdicts, x.discards)
	}
}

// A guest on this host is reached by a device of its own. It goes, and the device with it: it is dead, and nothing
// of it is dropped below the bridge.
func TestGuestThatGoes(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]loss{"its device": {ifindex: 2}, "more than there is room to tell of": {}} {
		w := newStack(t, listening(10*time.Millisecond))
		stays, l := w.target(1, "198.19.0.1:443", nil)
		goes, x := w.target(2, "198.19.0.2:443", nil)
		w.after(10*time.Second, func() {
			w.drops[goes.Remote.Addr()] = true
			w.lost = append(w.lost, what)
		})
		w.add(stays, goes)
		w.run(40 * time.Second)
		if n := sum(l.verdicts[:]); n < 39 || n != l.verdicts[probe.OK] {
			t.Errorf("%s: verdicts %v, discards %v", name, l.verdicts, l.discards)
		}
		// For two seconds others may look for this host.
		if n := x.discards[probe.DiscardLinkDown]; x.verdicts[probe.Timeout] < 27 || n > 3 || sum(x.discards[:]) != n {
			t.Errorf("%s: goes: verdicts %v, discards %v", name, x.verdicts, x.discards)
		}
	}
}

// A bridge that has lost its way to the targets, since a cable was pulled or a switch is dead, is up as long as it has
// a guest: it shows what no device below it does, or the guest's alone does, which it has sent before to
// where the targets were. That is the network.
func TestBridgeWithoutUplink(t *testing.T) {
	t.Parallel()
	const bridge, guest, uplink = 1, 2, 3
	for name, c := range map[string]struct {
		layers int
		dark   int32
	}{"nobody": {bridge, uplink}, "the guest": {guest, uplink}, "nobody, and more are dark than there is room to tell of": {bridge, 0}} {
		w := newStack(t, listening(10*time.Millisecond))
		target, l := w.target(1, "198.19.0.1:443", nil)
		other, o := w.target(2, "198.19.0.2:443", activeClose)
		holds, h := w.target(3, "198.19.0.3:443", func(x *Target) { activeClose(x); x.Params.Hold = 2 * time.Second })
		all, down := false, false
		w.onWire = func(probe.Instant, *wire.Packet) {
			switch w.layers, w.others = 2, 1; {
			case down:
				w.layers, w.others = c.layers, 0
			case all:
				w.layers, w.others = 3, 0
			}
		}
		for remote, peer := range map[netip.AddrPort]peerFunc{target.Remote: listening(10 * time.Millisecond), other.Remote: stays(10 * time.Millisecond), holds.Remote: closes(10 * time.Millisecond)} {
			w.peers[remote] = func(s *sim, p *wire.Packet) {
				if !down {
					peer(s, p)
				}
			}
		}
		w.after(5*time.Second, func() { all = true })
		w.after(10*time.Second, func() { all = false })
		w.after(20500*time.Millisecond, func() {
			down = true
			w.dark = append(w.dark, c.dark)
		})
		w.add(target, other, holds)
		w.run(60 * time.Second)
		if n := h.verdicts[probe.FINUnacked]; n != 2 {
			t.Errorf("%s gets it: %d connections were open, and failed; verdicts %v, discards %v", name, n, h.verdicts, h.discards)
		}
		for _, l := range []*ledger{l, o, h} {
			if n := sum(l.discards[:]) - l.discards[probe.DiscardShutdown]; n != 0 || l.verdicts[probe.Timeout] < 30 {
				t.Errorf("%s gets it: %v: verdicts %v, discards %v", name, l.target.Remote, l.verdicts, l.discards)
			}
		}
	}
}

// Once it is back, what is answered then excuses none of those that went before.
func TestUplinkIsBack(t *testing.T) {
	t.Parallel()
	const uplink = 2
	w := newStack(t, nil)
	target, l := w.target(1, "198.19.0.1:443", func(x *Target) { x.Params.Timeout = 2500 * time.Millisecond })
	down := false
	w.onWire = func(probe.Instant, *wire.Packet) {
		if w.layers = 2; down {
			w.layers = 1
		}
	}
	w.peer = func(s *sim, p *wire.Packet) {
		if !down {
			listening(10*time.Millisecond)(s, p)
		}
	}
	w.after(10500*time.Millisecond, func() {
		down = true
		w.dark = append(w.dark, uplink)
	})
	w.after(30500*time.Millisecond, func() { down = false })
	w.add(target)
	w.run(40 * time.Second)
	if sum(l.discards[:]) != 0 || l.verdicts[probe.Timeout] < 19 {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
}

// Nor is a guest's device, that was once sent what a bridge knew no port for, above the others: what is for a
// target that the guest has taken over goes there, and the guest is silent.
func TestGuestThatTakesOver(t *testing.T) {
	t.Parallel()
	w := newStack(t, listening(10*time.Millisecond))
	target, l := w.target(1, "198.19.0.1:443", nil)
	all, moved := false, false
	w.onWire = func(probe.Instant, *wire.Packet) {
		switch w.layers, w.others = 2, 1; {
		case moved:
			w.others = 0
		case all:
			w.layers, w.others = 3, 0
		}
	}
	w.dies(20*time.Second, target.Remote)
	w.after(5*time.Second, func() { all = true })
	w.after(10*time.Second, func() { all = false })
	w.after(20*time.Second, func() { moved = true })
	w.add(target)
	w.run(60 * time.Second)
	if sum(l.discards[:]) != 0 || l.verdicts[probe.Timeout] < 39 {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
}

// What comes twice through every layer is a duplicate, once.
func TestDuplicatesThroughLayers(t *testing.T) {
	w := newWorld(t, nil)
	w.layers = 2
	w.peer = listening(10 * time.Millisecond)
	w.impair = func() (int, time.Duration) { return 2, 0 }
	target, l := w.target(1, "198.19.0.1:443", nil)
	w.add(target)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 30 || l.dups != 30 || sum(l.rejects[:]) != 0 {
		t.Errorf("%d answered, %d duplicates, rejected %v", l.verdicts[probe.OK], l.dups, l.rejects)
	}
}

// A host that is not there is asked by few SYNs at a time, so that few leave
// together when it comes back, and the limit holds.
func TestUnsent(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.peer = listening(time.Millisecond)
	log := w.logWire()
	away := false
	most := 0
	w.held = func(p *wire.Packet) bool {
		if away && p.DstPort < 2000 {
			most = max(most, len(w.queue)+1)
			return true
		}
		return false
	}
	giveUp := func() { // as Linux does: an ICMP error from ourselves for each that waits
		for _, b := range w.queue {
			w.arrives(icmpError(local4, b))
		}
		w.queue = nil
	}
	w.after(10*time.Second, func() { away = true })
	for i := range 5 {
		w.after(10*time.Second+time.Duration(i+1)*2500*time.Millisecond, giveUp)
	}
	w.after(24*time.Second, func() { // the neighbour is there again
		away = false
		for _, b := range w.queue {
			w.leaves(b)
		}
		w.queue = nil
	})
	var ledgers []*ledger
	for i := range 90 {
		x, l := w.target(uint64(i), "198.19.0.1:"+strconv.Itoa(1000+i), nil)
		w.add(x)
		ledgers = append(ledgers, l)
	}
	other, calm := w.target(1000, "198.19.0.2:2000", nil)
	w.add(other)
	w.run(40 * time.Second)

	var ok, unreachable, discarded int
	for _, l := range ledgers {
		ok += l.verdicts[probe.OK]
		unreachable += l.verdicts[probe.Unreachable]
		discarded += sum(l.discards[:])
	}
	first := 90/10 + 90/stretchShare // those of the first unsentAfter, with whom they took along
	if most > maxUnsent+first+3 {    // and scouts until the kernel gives up
		t.Errorf("%d SYNs waited for their neighbour", most)
	}
	if unreachable < 5*maxUnsent || unreachable > 6*(maxUnsent+first+3) || discarded != 0 {
		t.Errorf("%d unreachable, %d discarded", unreachable, discarded)
	}
	if ok < 90*22 || ok+unreachable+w.skips[SkipUnsent] != w.slots()-calm.settled() {
		t.Errorf("%d answered, skipped %v, of %d", ok, w.skips, w.slots())
	}
	if i := slices.IndexFunc(w.troubles, func(s string) bool { return s != errUnsent.Error() }); len(w.troubles) == 0 || len(w.troubles) > len(ledgers) || i >= 0 {
		t.Errorf("reported %q", w.troubles)
	}
	if calm.verdicts[probe.OK] != 40 {
		t.Errorf("its neighbour: verdicts %v", calm.verdicts)
	}
	log.held(t, "per address", 200, ledgers[0].target.Remote.Addr())
}
