package engine

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// What things cost in the simulation, so that virtual time passes while the
// loop works.
const (
	clocksCost = 100 * time.Nanosecond
	sendCost   = 2 * time.Microsecond
	frameCost  = 50 * time.Nanosecond
	wakeCost   = 40 * time.Microsecond
	kernelRST  = 3 * time.Microsecond
	layerCost  = 1 * time.Microsecond
)

var (
	local4 = netip.MustParseAddr("198.18.0.1")
	local6 = netip.MustParseAddr("2001:db8::1")
)

// A sim is a kernel and a network in virtual time. All of it happens inside
// the loop's own calls; only Wake comes from other goroutines.
type sim struct {
	now        probe.Instant
	offset     int64 // wall − monotonic
	woken      atomic.Bool
	frameWakes bool // the Wait under way ends when something arrives
	events     heap[event]
	stall      probe.Instant // the loop does not come back from Wait before

	batch     []Packet
	ring      []inRing
	head      int
	free      [][]byte
	dropped   uint64
	gen       uint64
	lost      []loss // what the host tells of next
	dark      []int32
	tentative netip.Addr
	rng       *rand.Rand

	peers map[netip.AddrPort]peerFunc
	peer  peerFunc // everybody else

	// What a test may change.
	onLook    func() // as the ring is read
	frameCost time.Duration
	inexact   bool                                                    // waits end early
	noReset   bool                                                    // our kernel's RST does not leave
	refuse    func(p *Packet) bool                                    // the host refuses to send
	atFirst   func(p *Packet) bool                                    // likewise, at the first try
	tapLoses  func(p *wire.Packet, outgoing bool) bool                // the ring is full
	impair    func() (copies int, delay time.Duration)                // on the way back
	onWire    func(at probe.Instant, p *wire.Packet)                  // whatever leaves the host
	source    func(dst netip.Addr, device string) (netip.Addr, error) // instead of local4, local6
	hop       uint64                                                  // Hop's answer
	mtu       int                                                     // Route's; 0: unknown
	stateful  bool                                                    // a firewall drops answers to what went by a hop
	past      map[uint16]bool                                         // whether a source port's last SYN did
	asked     int                                                     // calls of Source
	waits     int                                                     // calls of Wait
	tally     int                                                     // the number of calls at which what is reserved is added up next
	onWait    func()                                                  // before each
	naps      int                                                     // those of them that nothing that arrives would have ended

	syns, resets int // that left the host
	queued       int // SYNs that were queued
	sourceless   int // questions for a source address that had no answer

	device int                     // the number of the first that shows a packet
	layers int                     // of devices that show each packet, if more than one
	others int                     // added to the numbers of all of those but the first
	delay  time.Duration           // from one of those to the next
	held   func(*wire.Packet) bool // it lies in the host's queue for its neighbour
	queue  [][]byte                // those that do

	frame   Frame
	out, in wire.Packet // what is leaving and arriving
}

// A peerFunc sees each segment that leaves for a peer.
type peerFunc func(s *sim, p *wire.Packet)

type event struct {
	fn    func()
	frame []byte // arrives
}

type inRing struct {
	data     []byte
	wall     int64
	outgoing bool
	ifindex  int
}

func newSim() *sim {
	return &sim{
		now:       probe.Instant(12345 * time.Second),
		offset:    int64(1_700_000_000 * time.Second),
		rng:       rand.New(rand.NewPCG(1, 2)),
		peers:     make(map[netip.AddrPort]peerFunc),
		peer:      silent,
		frameCost: frameCost,
		device:    1,
	}
}

// after runs fn when d has passed.
func (s *sim) after(d time.Duration, fn func()) { s.events.push(s.now.Add(d), event{fn: fn}) }

// stallFor keeps the loop from running for d.
func (s *sim) stallFor(d time.Duration) { s.stall = max(s.stall, s.now.Add(d)) }

// advance lets time pass, and all that happens in it.
func (s *sim) advance(d time.Duration, wakeable bool) {
	end := s.now.Add(d)
	for len(s.events) > 0 && s.events[0].at <= max(end, s.stall) {
		if wakeable && s.now >= s.stall && s.woken.Load() {
			return
		}
		e := s.events.pop()
		s.now = max(s.now, e.at)
		if e.value.fn != nil {
			e.value.fn()
		} else {
			s.arrives(e.value.frame)
		}
		if wakeable && s.frameWakes && s.now >= s.stall && s.head < len(s.ring) {
			return
		}
	}
	if wakeable && s.now >= s.stall && s.woken.Load() {
		return
	}
	s.now = max(s.now, end, s.stall)
}

func (s *sim) Clocks() (probe.Instant, int64) {
	s.advance(clocksCost, false)
	return s.now, int64(s.now) + s.offset
}

func (s *sim) Wait(d time.Duration, frames bool) {
	s.waits++
	if s.onWait != nil {
		s.onWait()
	}
	if !frames {
		s.naps++
	}
	if frames && s.head < len(s.ring) {
		d = 0
	}
	if s.inexact && !frames && d >= 5*time.Millisecond { // as rawsock's Nap
		d -= time.Duration(s.rng.Int64N(int64(1500 * time.Microsecond)))
	}
	s.frameWakes = frames
	defer func() { s.frameWakes = false }()
	if !s.woken.Load() {
		s.advance(d, true)
	}
	s.advance(wakeCost, false)
	s.woken.Store(false)
}

func (s *sim) Wake() { s.woken.Store(true) }

func (s *sim) Drops() uint64           { return s.dropped }
func (s *sim) RouteGeneration() uint64 { return s.gen }

func (s *sim) Tentative(a netip.Addr) bool { return s.tentative == a }
func (s *sim) Lost(fn func(int, netip.Addr, bool)) {
	for _, l := range s.lost {
		fn(int(l.ifindex), l.address, false)
	}
	for _, ifindex := range s.dark {
		fn(int(ifindex), netip.Addr{}, true)
	}
	s.lost, s.dark = nil, nil
}

func (s *sim) Route(dst, source netip.Addr, device string) (r Route, err error) {
	s.asked++
	r.MTU = s.mtu
	switch {
	case s.source != nil:
		if r.Source, err = s.source(dst, device); err != nil {
			s.sourceless++
		}
	case source.IsValid():
		r.Source = source
	case dst.Is4():
		r.Source = local4
	default:
		r.Source = local6
	}
	return r, err
}

func (s *sim) Hop(_, _ netip.Addr, _ int, _ uint8) uint64 { return s.hop }

func (s *sim) Queue(p Packet) {
	s.batch = append(s.batch, p)
	if p.Segment[13]&byte(probe.SYN) != 0 {
		s.queued++
		if s.stateful {
			s.past[binary.BigEndian.Uint16(p.Segment)] = p.Hop != 0
		}
	}
}

var errRefused = errors.New("simulated: refused")

func (s *sim) Flush(failed func(int, error)) {
	for i := range s.batch {
		s.advance(sendCost, false)
		p := &s.batch[i]
		if s.refuse != nil && s.refuse(p) {
			failed(i, errRefused)
			continue
		}
		refused := s.atFirst != nil && s.atFirst(p)
		b := s.buffer()
		if p.Src.Is4() {
			b = wire.AppendIPv4(b, &wire.IPv4Header{Src: p.Src, Dst: p.Dst, Protocol: 6, TTL: 64, TOS: p.TOS}, p.Segment)
		} else {
			b = wire.AppendIPv6(b, &wire.IPv6Header{Src: p.Src, Dst: p.Dst.WithZone(""), NextHeader: 6, HopLimit: 64, TrafficClass: p.TOS}, p.Segment)
		}
		s.leaves(b)
		if refused {
			failed(i, errRefused)
		}
	}
	s.batch = s.batch[:0]
}

func (s *sim) Receive(limit int, fn func(*Frame)) int {
	if s.onLook != nil {
		s.onLook()
	}
	n := 0
	for ; n < limit && s.head < len(s.ring); n++ {
		f := &s.ring[s.head]
		s.frame = Frame{Data: f.data, Wall: f.wall, Stamped: true, Outgoing: f.outgoing, Ifindex: f.ifindex}
		fn(&s.frame)
		for i := range f.data {
			f.data[i] = 0xff // valid until the callback returns
		}
		s.free = append(s.free, f.data[:0])
		f.data = nil
		s.head++
	}
	if s.head == len(s.ring) {
		s.ring, s.head = s.ring[:0], 0
	}
	s.advance(time.Duration(n)*s.frameCost, false)
	return n
}

func (s *sim) buffer() []byte {
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b
	}
	return make([]byte, 0, 256)
}

// leaves is a packet on its way out: past the tap, to the peer.
func (s *sim) leaves(b []byte) {
	p := &s.out
	if err := wire.Parse(b, p); err != nil {
		panic(err)
	}
	if s.held != nil && s.held(p) {
		s.queue = append(s.queue, b)
		return
	}
	if p.Segment.Flags.Has(probe.SYN) {
		s.syns++
	} else if p.Segment.Flags.Has(probe.RST) {
		s.resets++
	}
	if s.onWire != nil {
		s.onWire(s.now, p)
	}
	s.tap(b, p, true)
	fn := s.peers[netip.AddrPortFrom(p.Dst, p.DstPort)]
	if fn == nil {
		fn = s.peer
	}
	fn(s, p)
}

// tap puts a packet into the ring, stamped now.
func (s *sim) tap(b []byte, p *wire.Packet, outgoing bool) {
	if s.tapLoses != nil && s.tapLoses(p, outgoing) {
		s.dropped++
		s.free = append(s.free, b[:0])
		return
	}
	s.ring = append(s.ring, inRing{b, int64(s.now) + s.offset, outgoing, s.device})
	for i := 1; i < s.layers; i++ {
		s.now = s.now.Add(max(layerCost, s.delay))
		s.ring = append(s.ring, inRing{append(s.buffer(), b...), int64(s.now) + s.offset, outgoing, s.device + s.others + i})
	}
}

// arrives is a packet coming in: past the tap, to our own kernel, which resets
// a segment to a port that nobody listens on (RFC 9293 §3.10.7.1) and keeps quiet
// on guarded ones.
func (s *sim) arrives(b []byte) {
	p := &s.in
	err := wire.Parse(b, p)
	s.tap(b, p, false)
	if err != nil || p.Kind != wire.KindTCP || p.Checksum == wire.ChecksumBad || p.Segment.Flags.Has(probe.RST) || s.noReset || s.stateful && s.past[p.DstPort] || p.DstPort > 61127 {
		return
	}
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
	rst := probe.Segment{Flags: probe.RST | probe.ACK, Ack: p.Segment.End(), TTL: 64}
	if p.Segment.Flags.Has(probe.ACK) {
		rst = probe.Segment{Flags: probe.RST, Seq: p.Segment.Ack, TTL: 64}
	}
	s.now = s.now.Add(kernelRST)
	s.leaves(wire.AppendPacket(s.buffer(), &tuple, &rst, nil))
}

// send lets a packet arrive here after d, as the network pleases.
func (s *sim) send(d time.Duration, b []byte) {
	copies := 1
	if s.impair != nil {
		copies, _ = s.impair()
	}
	for range copies {
		delay := d
		if s.impair != nil {
			_, extra := s.impair()
			delay += extra
		}
		s.events.push(s.now.Add(delay), event{frame: append(s.buffer(), b...)})
	}
	s.free = append(s.free, b[:0])
}

// reply answers p with seg from where p went.
func (s *sim) reply(p *wire.Packet, d time.Duration, seg *probe.Segment) {
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
	seg.TTL = 60
	s.send(d, wire.AppendPacket(s.buffer(), &tuple, seg, make([]byte, seg.Len)))
}

// isn is the peer's ISN for our SYN: the same for a repeated one.
func isn(p *wire.Packet) probe.Seq { return probe.Seq(splitmix(uint64(p.Segment.Seq))) }

func silent(*sim, *wire.Packet) {}

// listening peers answer a SYN with a SYN-ACK after rtt.
func listening(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			seg := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(p), Ack: p.Segment.Seq.Add(1), Window: 65535}
			s.reply(p, rtt, &seg)
		}
	}
}

// closed peers answer a SYN with a RST after rtt.
func closed(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			seg := probe.Segment{Flags: probe.RST | probe.ACK, Ack: p.Segment.Seq.Add(1)}
			s.reply(p, rtt, &seg)
		}
	}
}

// unreachable peers are behind a router that says so after rtt.
func unreachable(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
		s.send(rtt, icmpError(p.Src, wire.AppendPacket(nil, &tuple, &p.Segment, nil)))
	}
}

// icmpError is a router's host unreachable, or ICMPv6 address unreachable,
// about a packet of ours.
func icmpError(to netip.Addr, quoted []byte) []byte {
	return routerSays(to, quoted, [2]byte{3, 1}, [2]byte{1, 3})
}

// routerSays is an ICMP or ICMPv6 error about a packet of ours, of a type and a code.
func routerSays(to netip.Addr, quoted []byte, v4, v6 [2]byte) []byte {
	if to.Is4() {
		e := wire.ICMPError{Src: netip.MustParseAddr("198.18.255.254"), Dst: to, Type: v4[0], Code: v4[1]}
		return wire.AppendIPv4(nil, &wire.IPv4Header{Src: e.Src, Dst: e.Dst, Protocol: 1, TTL: 60}, wire.AppendICMPError(nil, &e, quoted))
	}
	e := wire.ICMPError{Src: netip.MustParseAddr("2001:db8:ffff::1"), Dst: to, Type: v6[0], Code: v6[1]}
	return wire.AppendIPv6(nil, &wire.IPv6Header{Src: e.Src, Dst: e.Dst, NextHeader: 58, HopLimit: 60}, wire.AppendICMPError(nil, &e, quoted))
}
