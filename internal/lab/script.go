package lab

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Reply is one packet that a scripted peer sends: a TCP segment, an ICMP
// error if ICMP is set, or Raw. SYNACK, RST, Answer and ICMPError make the
// usual ones, to be changed at will.
type Reply struct {
	Delay       time.Duration  // after the packet that it answers arrived
	From, To    netip.AddrPort // of a segment; the zero values turn the arrived packet's around
	Segment     probe.Segment  // TTL 0 means 64; Len is not read
	Payload     []byte
	BadChecksum bool            // spoils the segment's or the ICMP message's checksum
	ICMP        *wire.ICMPError // quotes the arrived packet; Src and Dst default to its ends turned around
	Raw         []byte          // a whole IP packet
}

// A Heard is one packet that arrived at a scripted peer.
type Heard struct {
	At     Stamp
	Packet wire.Packet // its Payload is its own copy
}

// A Peer is a scripted peer.
type Peer struct {
	tb     testing.TB
	end    *End
	tun    *tun
	pump   *pump
	answer func(wire.Packet) []Reply
	buffer []byte

	mu    sync.Mutex // guards what follows
	heard []Heard
	fault error
}

// ScriptedPeer gives the host a peer behind a TUN that owns whole prefixes and
// answers each packet to them as answer says. It knows no TCP: silence is the
// answer to whatever answer ignores. answer runs on the peer's thread, one
// packet at a time; the packet's Payload is valid until it returns.
//
// A host that has neighbours becomes a router to the peer, so the peer may
// stand behind an impairment link; otherwise the host itself is the client.
func ScriptedPeer(tb testing.TB, h *Host, prefixes []string, answer func(in wire.Packet) []Reply) *Peer {
	tb.Helper()
	p := &Peer{tb: tb, answer: answer}
	h.mu.Lock()
	neighbours := len(h.ends) > 0
	h.mu.Unlock()
	p.end = h.newEnd(h.lab.nextJoint(), 1, "tun")
	p.tun = openTUN(p.end)
	pump, err := newPump(p.tun)
	if err != nil {
		tb.Fatalf("lab: scripted peer of host %s: %v", h.Name, err)
	}
	p.pump = pump
	pump.handle = p.arrive
	for _, prefix := range prefixes {
		p.own(prefix)
	}
	if neighbours {
		h.Forward()
	}
	go pump.run()
	tb.Cleanup(func() {
		if err := pump.stop(); err != nil {
			tb.Errorf("lab: scripted peer of host %s: %v", h.Name, err)
		}
		_ = unix.Close(p.tun.fd)
		if p.fault != nil {
			tb.Errorf("lab: scripted peer of host %s: %v", h.Name, p.fault)
		}
	})
	return p
}

// own routes a prefix to the peer.
func (p *Peer) own(prefix string) {
	h := p.end.Host
	dst := parsePrefix(h, prefix)
	h.netlink("route of a scripted peer "+prefix, func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(p.end.Iface)
		if err != nil {
			return err
		}
		src := p.end.Addr4
		if dst.Addr().Is6() {
			src = p.end.Addr6
		}
		return nl.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Src: src.AsSlice()})
	})
	h.announce(dst)
}

// Heard returns every packet that has arrived for the peer so far.
func (p *Peer) Heard() []Heard {
	p.tb.Helper()
	p.pump.waitCaughtUp()
	p.tun.check()
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Heard(nil), p.heard...)
}

// arrive asks the script. It runs on the peer's thread.
func (p *Peer) arrive(at Stamp, packet []byte) {
	if flow, ok := flowOf(packet); !ok || flow.Dst.Addr().IsMulticast() {
		return
	}
	var in wire.Packet
	if err := wire.Parse(packet, &in); err != nil {
		p.fail(fmt.Errorf("a packet that does not parse: %w", err))
		return
	}
	kept := in
	kept.Payload = append([]byte(nil), in.Payload...)
	p.mu.Lock()
	p.heard = append(p.heard, Heard{at, kept})
	p.mu.Unlock()
	for _, reply := range p.answer(in) {
		out, err := reply.encode(p.buffer[:0], &in, packet)
		if err != nil {
			p.fail(err)
			continue
		}
		p.buffer = out
		p.pump.schedule(due(at, reply.Delay), p.tun, out, nil, nil)
	}
}

// fail keeps the first fault for the end of the test.
func (p *Peer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		p.fault = err
	}
}

// encode appends the reply's bytes. in is the packet that it answers and
// packet its bytes.
func (r *Reply) encode(dst []byte, in *wire.Packet, packet []byte) ([]byte, error) {
	switch {
	case r.Raw != nil:
		return append(dst, r.Raw...), nil
	case r.ICMP != nil:
		return r.encodeICMP(dst, in, packet), nil
	case in.Kind != wire.KindTCP && (!r.From.IsValid() || !r.To.IsValid()):
		return nil, fmt.Errorf("a segment in answer to protocol %d needs From and To", in.Protocol)
	}
	tuple := probe.FourTuple{Local: r.From, Remote: r.To}
	if !tuple.Local.IsValid() {
		tuple.Local = netip.AddrPortFrom(in.Dst, in.DstPort)
	}
	if !tuple.Remote.IsValid() {
		tuple.Remote = netip.AddrPortFrom(in.Src, in.SrcPort)
	}
	s := r.Segment
	if s.TTL == 0 {
		s.TTL = 64
	}
	start := len(dst)
	dst = wire.AppendPacket(dst, &tuple, &s, r.Payload)
	if r.BadChecksum {
		header := 40
		if tuple.Local.Addr().Is4() {
			header = 20
		}
		dst[start+header+16] ^= 0x55 // TCP's checksum is at 16, RFC 9293 §3.1
	}
	return dst, nil
}

func (r *Reply) encodeICMP(dst []byte, in *wire.Packet, packet []byte) []byte {
	e := *r.ICMP
	if !e.Src.IsValid() {
		e.Src = in.Dst
	}
	if !e.Dst.IsValid() {
		e.Dst = in.Src
	}
	message := wire.AppendICMPError(nil, &e, packet)
	if r.BadChecksum {
		message[2] ^= 0x55
	}
	ttl := r.Segment.TTL
	if ttl == 0 {
		ttl = 64
	}
	if e.Src.Is4() {
		return wire.AppendIPv4(dst, &wire.IPv4Header{Src: e.Src, Dst: e.Dst, Protocol: unix.IPPROTO_ICMP, TTL: ttl}, message)
	}
	return wire.AppendIPv6(dst, &wire.IPv6Header{Src: e.Src, Dst: e.Dst, NextHeader: unix.IPPROTO_ICMPV6, HopLimit: ttl}, message)
}

// ISS is the initial sequence number of a scripted peer's SYN-ACK: the same
// for every segment of a four-tuple.
func ISS(in wire.Packet) probe.Seq {
	f := Flow{Src: netip.AddrPortFrom(in.Src, in.SrcPort), Dst: netip.AddrPortFrom(in.Dst, in.DstPort), Protocol: unix.IPPROTO_TCP}
	return probe.Seq(f.Hash(0))
}

// Answer is a segment with SEG.SEQ seq octets after the peer's ISS and SEG.ACK
// ack octets after the SEG.SEQ that arrived.
func Answer(in wire.Packet, flags probe.Flags, seq, ack uint32) Reply {
	return Reply{Segment: probe.Segment{
		Seq: ISS(in).Add(seq), Ack: in.Segment.Seq.Add(ack), Flags: flags, Window: 64240,
	}}
}

// SYNACK answers a SYN as a listener does, with MSS, SACK permitted and window
// scale as Linux has them on Ethernet.
func SYNACK(in wire.Packet) Reply {
	r := Answer(in, probe.SYN|probe.ACK, 0, 1)
	r.Segment.Options = probe.Options{
		Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptWindowScale, MSS: 1460, WindowScale: 7,
	}
	if in.Dst.Is6() {
		r.Segment.Options.MSS = 1440
	}
	return r
}

// RST answers as the CLOSED state does, RFC 9293 §3.10.7.1: with the arrived
// SEG.ACK as sequence number if it has one, else acknowledging what arrived.
func RST(in wire.Packet) Reply {
	if in.Segment.Flags.Has(probe.ACK) {
		return Reply{Segment: probe.Segment{Seq: in.Segment.Ack, Flags: probe.RST}}
	}
	return Reply{Segment: probe.Segment{Ack: in.Segment.End(), Flags: probe.RST | probe.ACK}}
}

// ICMPError quotes the arrived packet in an ICMP or ICMPv6 error, by the
// packet's family, of a type and code. Its ICMP.Src is the host that complains:
// the peer itself unless changed.
func ICMPError(typ, code uint8) Reply {
	return Reply{ICMP: &wire.ICMPError{Type: typ, Code: code}}
}

// Listen answers SYNs with SYNACK and everything else with silence: a script.
func Listen(in wire.Packet) []Reply {
	if in.Kind == wire.KindTCP && in.Segment.Flags&(probe.SYN|probe.ACK|probe.RST) == probe.SYN {
		return []Reply{SYNACK(in)}
	}
	return nil
}
