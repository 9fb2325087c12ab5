package targets

import (
	"container/heap"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// A reflector is a network in virtual time, in which every SYN is answered after a
// round trip that rtt says, or not at all if that is 0, and our kernel resets what
// is answered. An engine's loop passes its time in it as fast as it can.
type reflector struct {
	now    probe.Instant
	rtt    func() time.Duration
	until  probe.Instant // when the loop is to stop
	stop   func()
	woken  atomic.Bool
	frames flying
	free   [][]byte
	packet wire.Packet
	synACK probe.Segment
	rst    probe.Segment
	space  []byte
	frame  engine.Frame
}

const reflectorWall = int64(1_700_000_000 * time.Second)

func (r *reflector) Clocks() (probe.Instant, int64) {
	r.now += 100
	return r.now, reflectorWall + int64(r.now)
}

func (r *reflector) Route(netip.Addr, netip.Addr, string) (engine.Route, error) {
	return engine.Route{Source: netip.AddrFrom4([4]byte{198, 19, 255, 1}), Ifindex: 1}, nil
}

func (r *reflector) Hop(netip.Addr, netip.Addr, int, uint8) uint64 { return 0 }

func (r *reflector) RouteGeneration() uint64          { return 0 }
func (r *reflector) Tentative(netip.Addr) bool        { return false }
func (r *reflector) Lost(func(int, netip.Addr, bool)) {}
func (r *reflector) Drops() uint64                    { return 0 }
func (r *reflector) Wake()                            { r.woken.Store(true) }

func (r *reflector) Wait(d time.Duration, _ bool) {
	if r.woken.Swap(false) {
		return
	}
	if r.now = r.now.Add(max(d, 0)); r.now >= r.until {
		r.stop()
	}
}

func (r *reflector) Queue(p engine.Packet) {
	out := r.send(r.now, true, &wire.IPv4Header{Src: p.Src, Dst: p.Dst, Protocol: 6, TTL: 64, TOS: p.TOS}, p.Segment)
	if wire.Parse(out, &r.packet) != nil || r.packet.Segment.Flags != probe.SYN {
		return
	}
	rtt := r.rtt()
	if rtt == 0 {
		return
	}
	syn := &r.packet.Segment
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, r.packet.SrcPort), Remote: netip.AddrPortFrom(p.Dst, r.packet.DstPort)}
	back := probe.FourTuple{Local: tuple.Remote, Remote: tuple.Local}
	r.synACK = probe.Segment{
		Flags: probe.SYN | probe.ACK, Seq: syn.Seq*2 + 7, Ack: syn.Seq + 1, Window: 65160, TTL: 57,
		Options: probe.Options{Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale, MSS: 1460, WindowScale: 7, TSVal: uint32(r.now), TSEcr: syn.Options.TSVal},
	}
	r.send(r.now.Add(rtt), false, &wire.IPv4Header{Src: p.Dst, Dst: p.Src, Protocol: 6, TTL: 57}, r.segment(&back, &r.synACK))
	r.rst = probe.Segment{Flags: probe.RST, Seq: syn.Seq + 1}
	r.send(r.now.Add(rtt+3*time.Microsecond), true, &wire.IPv4Header{Src: p.Src, Dst: p.Dst, Protocol: 6, TTL: 64}, r.segment(&tuple, &r.rst))
}

func (r *reflector) segment(t *probe.FourTuple, s *probe.Segment) []byte {
	r.space = wire.AppendTCP(r.space[:0], t, s, nil)
	return r.space
}

// send has a packet cross the interface at a moment, and returns it.
func (r *reflector) send(at probe.Instant, outgoing bool, h *wire.IPv4Header, segment []byte) []byte {
	var b []byte
	if n := len(r.free); n > 0 {
		b, r.free = r.free[n-1][:0], r.free[:n-1]
	}
	b = wire.AppendIPv4(b, h, segment)
	r.frames = append(r.frames, flight{at, outgoing, b})
	heap.Fix(&r.frames, len(r.frames)-1)
	return b
}

func (r *reflector) Flush(func(int, error)) {}

func (r *reflector) Receive(limit int, fn func(*engine.Frame)) (n int) {
	for ; n < limit && len(r.frames) > 0 && r.frames[0].at <= r.now; n++ {
		last := len(r.frames) - 1
		f := r.frames[0]
		r.frames[0] = r.frames[last]
		if r.frames = r.frames[:last]; last > 0 {
			heap.Fix(&r.frames, 0)
		}
		r.frame = engine.Frame{Data: f.data, Wall: reflectorWall + int64(f.at), Ifindex: 1, Stamped: true, Outgoing: f.outgoing, ChecksumOK: true}
		fn(&r.frame)
		r.free = append(r.free, f.data)
	}
	return n
}

// A flight is a packet that is on its way.
type flight struct {
	at       probe.Instant
	outgoing bool
	data     []byte
}

type flying []flight

func (f flying) Len() int           { return len(f) }
func (f flying) Less(i, j int) bool { return f[i].at < f[j].at }
func (f flying) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flying) Push(any)          { panic("not called") }
func (f *flying) Pop() any          { panic("not called") }
