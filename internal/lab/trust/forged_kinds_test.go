package trust

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// seq is a number at random.
func (c *crook) seq() probe.Seq { return probe.Seq(c.rng.Uint32()) }

// local is the prober's address of a family.
func (c *crook) local(as netip.Addr) netip.Addr {
	if as.Is4() {
		return c.local4
	}
	return c.local6
}

// tuple is a target and a port of the prober's, at random.
func (c *crook) tuple() probe.FourTuple {
	t := c.targets[c.rng.IntN(len(c.targets))]
	port := c.first + uint16(c.rng.IntN(int(c.last-c.first)+1))
	return probe.FourTuple{Local: t, Remote: netip.AddrPortFrom(c.local(t.Addr()), port)}
}

// options are what a SYN-ACK may say of its sender: never what the targets say.
func (c *crook) options() probe.Options {
	return probe.Options{
		Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale,
		MSS: uint16(9000 + c.rng.IntN(100)), WindowScale: 13, TSVal: c.rng.Uint32(), TSEcr: c.rng.Uint32(),
	}
}

// packet appends a segment with so many octets of data, from another distance each time.
func (c *crook) packet(b []byte, t probe.FourTuple, s probe.Segment, octets int) []byte {
	s.TTL = uint8(1 + c.rng.IntN(255))
	s.Window = uint16(c.rng.Uint32())
	return wire.AppendPacket(b, &t, &s, nothing[:octets])
}

// nothing is what forged data says.
var nothing [1400]byte

// offPath is a segment with numbers at random, in a conversation or none.
func offPath(f probe.Flags, octets int) kind {
	return func(c *crook, b []byte) []byte {
		s := probe.Segment{Flags: f, Seq: c.seq(), Ack: c.seq()}
		if f.Has(probe.SYN) || c.rng.IntN(2) == 0 {
			s.Options = c.options()
			if !f.Has(probe.SYN) {
				s.Options.Set = probe.OptTimestamps
			}
		}
		return c.packet(b, c.tuple(), s, octets)
	}
}

// guarded is offPath to a port that our kernel leaves to probed, from next door.
func guarded(f probe.Flags) kind {
	return func(c *crook, b []byte) []byte {
		t := c.tuple()
		t.Remote = netip.AddrPortFrom(t.Remote.Addr(), c.split+uint16(c.rng.IntN(int(c.last-c.split)+1)))
		s := probe.Segment{Flags: f, Seq: c.seq(), Ack: c.seq(), TTL: 255, Window: 1000}
		return wire.AppendPacket(b, &t, &s, nil)
	}
}

// damaged spoils the checksum.
func damaged(k kind) kind {
	return func(c *crook, b []byte) []byte {
		b = k(c, b)
		if len(b) > 0 {
			b[header(b)+16] ^= 0x5a
		}
		return b
	}
}

// header is the length of an IP header.
func header(b []byte) int {
	if b[0]>>4 == 4 {
		return int(b[0]&15) * 4
	}
	return 40
}

// odd is a segment in a packet that no peer of ours sends: with IP options, in fragments.
func odd(c *crook, b []byte) []byte {
	t := c.tuple()
	for !t.Local.Addr().Is4() {
		t = c.tuple()
	}
	s := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: c.seq(), Ack: c.seq(), Options: c.options()}
	tcp := wire.AppendTCP(nil, &t, &s, nothing[:100])
	h := wire.IPv4Header{Src: t.Local.Addr(), Dst: t.Remote.Addr(), Protocol: 6, TTL: 60, ID: uint16(c.rng.Uint32())}
	switch c.rng.IntN(4) {
	case 0: // record route, with an end that has no room
		h.Options = []byte{7, 39, 4, 39: 0}
	case 1: // a first fragment: nobody can tell its checksum
		h.MoreFragments, tcp = true, tcp[:56]
	case 2: // one that is nothing but ports
		h.MoreFragments, tcp = true, tcp[:8]
	case 3: // a later one, which has none
		h.FragmentOffset, tcp = 1, tcp[8:]
		c.names = false
	}
	return wire.AppendIPv4(b, &h, tcp)
}

// malformed is a segment whose options or header make no sense.
func malformed(c *crook, b []byte) []byte {
	t := c.tuple()
	s := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: c.seq(), Ack: c.seq(), TTL: 60}
	s.Options.RawLen = probe.MaxOptions
	for i := range s.Options.Raw {
		s.Options.Raw[i] = byte(c.rng.Uint32())
	}
	at := len(b)
	b = wire.AppendPacket(b, &t, &s, nil)
	offset := at + header(b[at:]) + 12
	switch c.rng.IntN(4) {
	case 0: // a header of less than 20 octets
		b[offset] &= 0x4f
	case 1: // the options end in the middle of one: as they are
	case 2: // options of length 0 and 1
		copy(b[offset+8:], []byte{2, 0, 2, 1, 3, 255})
	case 3: // eight octets of TCP
		b = b[:at+header(b[at:])+8]
		if b[at]>>4 == 4 {
			binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
		} else {
			binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at-40))
		}
	}
	return b
}

// An errorAbout is an ICMP or ICMPv6 error of any type about a packet, from any router.
func (c *crook) errorAbout(b []byte, to netip.Addr, quote []byte) []byte {
	e := wire.ICMPError{Dst: to, Code: uint8(c.rng.IntN(16)), Rest: c.rng.Uint32()}
	if to.Is4() {
		e.Src = netip.AddrFrom4([4]byte{198, 18, 200, byte(1 + c.rng.IntN(250))})
		e.Type = [...]uint8{3, 3, 4, 11, 12}[c.rng.IntN(5)]
		return wire.AppendIPv4(b, &wire.IPv4Header{Src: e.Src, Dst: to, Protocol: 1, TTL: 60}, wire.AppendICMPError(nil, &e, quote))
	}
	e.Src = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 15: byte(c.rng.Uint32())})
	e.Type = uint8(1 + c.rng.IntN(4))
	return wire.AppendIPv6(b, &wire.IPv6Header{Src: e.Src, Dst: to, NextHeader: 58, HopLimit: 60}, wire.AppendICMPError(nil, &e, quote))
}

// quote is a segment of the prober's, as an error would quote it.
func (c *crook) quote(peer probe.FourTuple, seq probe.Seq) []byte {
	ours := probe.FourTuple{Local: peer.Remote, Remote: peer.Local}
	return wire.AppendPacket(nil, &ours, &probe.Segment{Flags: probe.SYN, Seq: seq, Window: 64240, TTL: 1}, nil)
}

// errorsAtRandom quote another sequence number.
func errorsAtRandom(c *crook, b []byte) []byte {
	t := c.tuple()
	return c.errorAbout(b, t.Remote.Addr(), c.quote(t, c.seq()))
}

// errorsTooShort end before the sequence number.
func errorsTooShort(c *crook, b []byte) []byte {
	t := c.tuple()
	q := c.quote(t, c.seq())
	octets := 4 + c.rng.IntN(4)
	return c.errorAbout(b, t.Remote.Addr(), q[:header(q)+octets])
}

// errorsAboutOthers quote what is not the prober's: ports, addresses, protocols; or are no
// errors.
func errorsAboutOthers(c *crook, b []byte) []byte {
	t := c.tuple()
	to := t.Remote.Addr()
	c.names = false
	switch c.rng.IntN(4) {
	case 0: // another port of the target's
		t.Local = netip.AddrPortFrom(t.Local.Addr(), t.Local.Port()+1000)
	case 1: // another port of ours
		t.Remote = netip.AddrPortFrom(to, c.last+1)
	case 2: // a source that is not ours
		t.Remote = netip.AddrPortFrom(t.Local.Addr(), t.Remote.Port())
	case 3: // a redirect, or an echo's answer
		at := len(b)
		b = c.errorAbout(b, to, c.quote(t, c.seq()))
		i := at + header(b[at:])
		was := b[i]
		if to.Is4() {
			b[i] = 5
		} else {
			b[i] = 129
		}
		// The checksum's: RFC 1624.
		sum := uint32(^binary.BigEndian.Uint16(b[i+2:])) + uint32(^(uint16(was) << 8)) + uint32(b[i])<<8
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(b[i+2:], ^uint16(sum))
		return b
	}
	return c.errorAbout(b, to, c.quote(t, c.seq()))
}

// opening is a conversation whose SYN has just gone by, and whose answer has not got there.
func opening(*watched) bool { return true }

// answered is one that has been answered.
func answered(w *watched) bool { return !w.answered.IsZero() }

// young is how old a conversation may be to be open still.
const young = 15 * time.Millisecond

// near is a number near another, which it never is, nor the one after.
func (c *crook) near(n probe.Seq) probe.Seq {
	offsets := [...]uint32{2, 3, 1000, 1460, 30000, 65534, 1 << 20, 1 << 30, 1 << 31}
	d := offsets[c.rng.IntN(len(offsets))]
	if c.rng.IntN(2) == 0 {
		return n.Add(-d)
	}
	return n.Add(d)
}

// nearSYNACKs acknowledge nearly our SYN.
func nearSYNACKs(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, young, opening)
	if !ok {
		return nil
	}
	ack := [...]probe.Seq{w.iss, w.iss.Add(2), c.near(w.iss.Add(1))}[c.rng.IntN(3)]
	return c.packet(b, w.tuple, probe.Segment{Flags: probe.SYN | probe.ACK, Seq: c.seq(), Ack: ack, Options: c.options()}, 0)
}

// nearACKs are challenge ACKs of an old connection that there never was.
func nearACKs(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, young, opening)
	if !ok {
		return nil
	}
	ack := [...]probe.Seq{w.iss, w.iss.Add(2), c.near(w.iss.Add(1))}[c.rng.IntN(3)]
	return c.packet(b, w.tuple, probe.Segment{Flags: probe.ACK, Seq: c.seq(), Ack: ack}, 0)
}

// sameACKs are one and the same ACK, to every conversation that waits for its answer: what
// a peer with an old connection would repeat.
func sameACKs(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, young, opening)
	if !ok {
		return nil
	}
	return wire.AppendPacket(b, &w.tuple, &probe.Segment{Flags: probe.ACK, Seq: 1_000_003, Ack: 7, TTL: 64, Window: 1000}, nil)
}

// nearRSTs acknowledge nearly our SYN, or lie in the window of a connection.
func nearRSTs(c *crook, b []byte) []byte {
	if c.rng.IntN(2) == 0 {
		w, ok := c.spy.some(c.rng, young, opening)
		if !ok {
			return nil
		}
		ack := [...]probe.Seq{w.iss, w.iss.Add(2), c.near(w.iss.Add(1))}[c.rng.IntN(3)]
		return c.packet(b, w.tuple, probe.Segment{Flags: probe.RST | probe.ACK, Ack: ack}, 0)
	}
	w, ok := c.spy.some(c.rng, 2*time.Second, answered)
	if !ok {
		return nil
	}
	c.names = false // after a connection of which data was lost one in the window says nothing
	return c.packet(b, w.tuple, probe.Segment{Flags: probe.RST, Seq: c.near(w.irs.Add(1)), Ack: c.seq()}, 0)
}

// nearData lies in the window of a connection, and acknowledges what was never sent.
func nearData(f probe.Flags, octets int) kind {
	return func(c *crook, b []byte) []byte {
		w, ok := c.spy.some(c.rng, 2*time.Second, answered)
		if !ok {
			return nil
		}
		s := probe.Segment{Flags: f, Seq: w.irs.Add(uint32(1 + c.rng.IntN(60000))), Ack: c.near(w.iss.Add(1))}
		for uint32(s.Ack.Sub(w.iss)) < 64 { // which may have been sent
			s.Ack = c.near(w.iss.Add(1))
		}
		s.Options = probe.Options{Set: probe.OptTimestamps, TSVal: c.rng.Uint32(), TSEcr: c.rng.Uint32()}
		return c.packet(b, w.tuple, s, octets)
	}
}

// nearErrors quote nearly what was sent.
func nearErrors(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, young, opening)
	if !ok {
		return nil
	}
	seq := c.near(w.iss)
	for uint32(seq.Sub(w.iss)) < 64 {
		seq = c.near(w.iss)
	}
	return c.errorAbout(b, w.tuple.Remote.Addr(), c.quote(w.tuple, seq))
}

// replays are what the peer has sent in conversations before, on this four-tuple.
func replays(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, 30*time.Millisecond, func(w *watched) bool { return len(w.before) > 0 })
	if !ok {
		return nil
	}
	return append(b, w.before[c.rng.IntN(len(w.before))]...)
}

// otherISNs are the peer's SYN-ACK again, as if another had answered, after the true one.
func otherISNs(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, 3*time.Second, func(w *watched) bool {
		return answered(w) && time.Since(w.answered) > time.Second // a busy machine's link takes its time
	})
	if !ok {
		return nil
	}
	return c.packet(b, w.tuple, probe.Segment{Flags: probe.SYN | probe.ACK, Seq: w.irs.Add(1 + c.rng.Uint32N(1<<31)), Ack: w.iss.Add(1), Options: c.options()}, 0)
}
