package scale

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// What things take in virtual time: about what they take in ours.
const (
	clocksTake = 100 * time.Nanosecond
	sendTakes  = 2 * time.Microsecond
	frameTakes = 50 * time.Nanosecond
	wakeTakes  = 40 * time.Microsecond
	resetTakes = 3 * time.Microsecond // our kernel's RST after a SYN-ACK
)

// maxPacket is the longest packet here: an ICMPv6 error that quotes a SYN.
const maxPacket = 160

// ringFrames is how many frames the tap's ring holds. More are lost, as they would be.
const ringFrames = 1 << 13

// A network is a kernel, a network and its peers in virtual time. Everything happens
// in the loop's own calls, and nothing is allocated once the queues have grown.
type network struct {
	now       probe.Instant
	wall      int64 // wall − monotonic
	woken     atomic.Bool
	peers     *peers
	batch     []engine.Packet
	ring      [ringFrames]inRing
	head      int // oldest frame
	n         int // frames in the ring
	lost      uint64
	ownStamps uint64 // frames that the tap stamped itself
	frame     engine.Frame
	lines     []line
	uneven    bool          // answers take up to a tenth longer, each as chance says
	next      probe.Instant // when the earliest of the answers under way arrives
	alarms    []alarm       // in order
}

// An inRing is a frame that waits to be read.
type inRing struct {
	wall     int64
	outgoing bool
	stamped  bool // by the kernel, as it arrived
	len      uint8
	data     [maxPacket]byte
}

// A line holds the answers under way that take equally long, or nearly, and arrive in
// the order in which they began.
type line struct {
	rtt  time.Duration
	last probe.Instant // when the last answer arrives, if they are uneven
	q    []answer      // a ring, its length a power of two
	head uint32
	n    uint32
}

// An answer is one packet on its way here.
type answer struct {
	at     probe.Instant
	target int32
	port   uint16 // our end's
	how    behaviour
	seq    probe.Seq // SEG.SEQ of the SYN
	tsval  uint32    // and its TSval
}

// An alarm is what a test does at a moment.
type alarm struct {
	at probe.Instant
	fn func()
}

// never is after everything.
const never = probe.Instant(1<<63 - 1)

func newNetwork(p *peers, rtts []time.Duration) *network {
	n := &network{now: probe.Instant(12345 * time.Second), wall: int64(1_700_000_000 * time.Second), peers: p, next: never}
	for _, rtt := range rtts {
		n.lines = append(n.lines, line{rtt: rtt, q: make([]answer, 1024)})
	}
	return n
}

// at has fn called at a moment, which is not before those of earlier calls.
func (n *network) at(when probe.Instant, fn func()) { n.alarms = append(n.alarms, alarm{when, fn}) }

// advance lets time pass to end, and all that happens meanwhile; if it may be woken,
// to when it is.
func (n *network) advance(end probe.Instant, wakeable bool) {
	for {
		if wakeable && n.woken.Load() {
			return
		}
		at := n.next
		if len(n.alarms) > 0 && n.alarms[0].at < at {
			at = n.alarms[0].at
		}
		if at > end {
			break
		}
		n.now = max(n.now, at)
		if at < n.next {
			fn := n.alarms[0].fn
			n.alarms = n.alarms[1:]
			fn()
			continue
		}
		n.arrive()
	}
	n.now = max(n.now, end)
}

// footprint is what the queues take, in octets: they grow.
func (n *network) footprint() int {
	octets := cap(n.batch) * int(unsafe.Sizeof(engine.Packet{}))
	for i := range n.lines {
		octets += len(n.lines[i].q) * int(unsafe.Sizeof(answer{}))
	}
	return octets
}

// arrive delivers the earliest answer.
func (n *network) arrive() {
	for i := range n.lines {
		l := &n.lines[i]
		if l.n == 0 || l.q[l.head].at != n.next {
			continue
		}
		a := l.q[l.head]
		l.head = (l.head + 1) & uint32(len(l.q)-1)
		l.n--
		if i == n.peers.lates {
			n.peers.lateAnswers++
		}
		n.deliver(&a)
		break
	}
	n.next = never
	for i := range n.lines {
		if l := &n.lines[i]; l.n > 0 {
			n.next = min(n.next, l.q[l.head].at)
		}
	}
}

// reply has a packet arrive after the line's round trip, or, uneven, up to a tenth later.
func (n *network) reply(on int, a answer) {
	l := &n.lines[on]
	if l.n == uint32(len(l.q)) {
		grown := make([]answer, 2*len(l.q))
		copied := copy(grown, l.q[l.head:])
		copy(grown[copied:], l.q[:l.head])
		l.q, l.head = grown, 0
	}
	a.at = n.now.Add(l.rtt)
	if n.uneven {
		a.at = max(l.last, a.at.Add(l.rtt*time.Duration(mix(uint64(a.seq)^1)%1000)/10_000)) // none overtakes another
		l.last = a.at
	}
	l.q[(l.head+l.n)&uint32(len(l.q)-1)] = a
	l.n++
	n.next = min(n.next, a.at)
}

// deliver is an answer that arrives: past the tap, to our own kernel, which resets a
// SYN-ACK on a port that nobody listens on.
func (n *network) deliver(a *answer) {
	local, remote := n.peers.tuple(a.target, a.port)
	tuple := probe.FourTuple{Local: remote, Remote: local} // as its sender has it
	f := n.push(a.at, false)
	if f == nil {
		return
	}
	f.stamped = !n.peers.subjects[a.target].beside()
	b := f.data[:0]
	switch a.how {
	case answers:
		seg := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(a), Ack: a.seq.Add(1), Window: 65160, TTL: 60, Options: probe.Options{
			Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale,
			MSS: 1460, WindowScale: 7, TSVal: uint32(a.at / 1e6), TSEcr: a.tsval,
		}}
		f.len = uint8(len(wire.AppendPacket(b, &tuple, &seg, nil)))
		at := a.at.Add(resetTakes)
		rst := probe.Segment{Flags: probe.RST, Seq: a.seq.Add(1), TTL: 64}
		if r := n.push(at, true); r != nil {
			own := probe.FourTuple{Local: local, Remote: remote}
			r.len = uint8(len(wire.AppendPacket(r.data[:0], &own, &rst, nil)))
			n.now = max(n.now, at)
			n.peers.left(a.target, at, probe.RST)
		}
	case refuses:
		seg := probe.Segment{Flags: probe.RST | probe.ACK, Ack: a.seq.Add(1), TTL: 60}
		f.len = uint8(len(wire.AppendPacket(b, &tuple, &seg, nil)))
	case unreachable:
		own := probe.FourTuple{Local: local, Remote: remote}
		syn := probe.Segment{Flags: probe.SYN, Seq: a.seq, Window: 64240, TTL: 60}
		var quote, message [maxPacket]byte
		q := wire.AppendPacket(quote[:0], &own, &syn, nil)
		if local.Addr().Is4() {
			e := wire.ICMPError{Src: router4, Dst: local.Addr(), Type: 3, Code: 1}
			m := wire.AppendICMPError(message[:0], &e, q)
			f.len = uint8(len(wire.AppendIPv4(b, &wire.IPv4Header{Src: e.Src, Dst: e.Dst, Protocol: 1, TTL: 60}, m)))
		} else {
			e := wire.ICMPError{Src: router6, Dst: local.Addr(), Type: 1, Code: 3}
			m := wire.AppendICMPError(message[:0], &e, q)
			f.len = uint8(len(wire.AppendIPv6(b, &wire.IPv6Header{Src: e.Src, Dst: e.Dst, NextHeader: 58, HopLimit: 60}, m)))
		}
	}
}

// isn is the peer's.
func isn(a *answer) probe.Seq { return probe.Seq(mix(uint64(a.seq))) }

// push takes the next place in the ring, or nil if that is full.
func (n *network) push(at probe.Instant, outgoing bool) *inRing {
	if n.n == ringFrames {
		n.lost++
		return nil
	}
	f := &n.ring[(n.head+n.n)%ringFrames]
	n.n++
	f.wall, f.outgoing, f.stamped = int64(at)+n.wall, outgoing, true
	return f
}

// Clocks implements engine.Network.
func (n *network) Clocks() (probe.Instant, int64) {
	n.advance(n.now.Add(clocksTake), false)
	return n.now, int64(n.now) + n.wall
}

// Route implements engine.Network.
func (n *network) Route(dst, _ netip.Addr, _ string) (engine.Route, error) {
	if dst.Is4() {
		return engine.Route{Source: local4}, nil
	}
	return engine.Route{Source: local6}, nil
}

// Hop implements engine.Network: everything goes as the host routes.
func (n *network) Hop(_, _ netip.Addr, _ int, _ uint8) uint64 { return 0 }

// RouteGeneration implements engine.Network.
func (n *network) RouteGeneration() uint64          { return 1 }
func (n *network) Tentative(netip.Addr) bool        { return false }
func (n *network) Lost(func(int, netip.Addr, bool)) {}

// Queue implements engine.Network.
func (n *network) Queue(p engine.Packet) { n.batch = append(n.batch, p) }

// Flush implements engine.Network.
func (n *network) Flush(func(int, error)) {
	for i := range n.batch {
		n.advance(n.now.Add(sendTakes), false)
		n.leave(&n.batch[i])
	}
	n.batch = n.batch[:0]
}

// leave is a segment of the engine's on its way out: past the tap, to the peer.
func (n *network) leave(p *engine.Packet) {
	seg := p.Segment
	target := n.peers.at(p.Dst, binary.BigEndian.Uint16(seg[2:]))
	flags := probe.Flags(seg[13])
	n.peers.left(target, n.now, flags)
	f := n.push(n.now, true)
	if f != nil {
		if p.Dst.Is4() {
			f.len = uint8(len(wire.AppendIPv4(f.data[:0], &wire.IPv4Header{Src: p.Src, Dst: p.Dst, Protocol: 6, TTL: 64, TOS: p.TOS}, seg)))
		} else {
			f.len = uint8(len(wire.AppendIPv6(f.data[:0], &wire.IPv6Header{Src: p.Src, Dst: p.Dst, NextHeader: 6, HopLimit: 64, TrafficClass: p.TOS}, seg)))
		}
	}
	if flags != probe.SYN {
		return
	}
	port := binary.BigEndian.Uint16(seg)
	on, how := n.peers.probed(target, port, n.now)
	if on >= 0 {
		n.reply(on, answer{
			target: target, port: port, how: how,
			seq: probe.Seq(binary.BigEndian.Uint32(seg[4:])), tsval: tsval(seg[20 : int(seg[12]>>4)*4]),
		})
	}
}

// tsval finds TSval among TCP options (RFC 9293 §3.1: one octet of kind, one of length).
func tsval(options []byte) uint32 {
	for len(options) >= 2 {
		switch kind, l := options[0], int(options[1]); {
		case kind == 1:
			options = options[1:]
		case kind == 8 && l == 10 && len(options) >= l:
			return binary.BigEndian.Uint32(options[2:])
		case kind == 0 || l < 2 || l > len(options):
			return 0
		default:
			options = options[l:]
		}
	}
	return 0
}

// Receive implements engine.Network.
func (n *network) Receive(limit int, fn func(*engine.Frame)) int {
	k := 0
	for ; k < limit && n.n > 0; k++ {
		f := &n.ring[n.head]
		n.frame = engine.Frame{Data: f.data[:f.len], Wall: f.wall, Ifindex: 1, Stamped: f.stamped, Outgoing: f.outgoing}
		if !f.stamped {
			n.ownStamps++
		}
		fn(&n.frame)
		n.head = (n.head + 1) % ringFrames
		n.n--
	}
	n.advance(n.now.Add(time.Duration(k)*frameTakes), false)
	return k
}

// Drops implements engine.Network.
func (n *network) Drops() uint64 { return n.lost }

// Wait implements engine.Network. Nothing comes to guarded ports here.
func (n *network) Wait(d time.Duration, _ bool) {
	if !n.woken.Load() {
		n.advance(n.now.Add(d), true)
	}
	n.advance(n.now.Add(wakeTakes), false)
	n.woken.Store(false)
}

// Wake implements engine.Network.
func (n *network) Wake() { n.woken.Store(true) }

// mix is SplitMix64's finaliser.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
