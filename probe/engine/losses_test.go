package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Interfaces and addresses are lost while answers are under way: those of probes that
// left by them are discarded and no loss of anybody's, the others are as they would be.
func TestLosses(t *testing.T) {
	for _, c := range []struct {
		name string
		loss loss
		ours bool
	}{
		{"the interface", loss{ifindex: 1}, true},
		{"the one below it", loss{ifindex: 2}, true},
		{"another interface", loss{ifindex: 3}, false},
		{"the address", loss{address: local4}, true},
		{"another address", loss{address: netip.MustParseAddr("198.18.0.77")}, false},
		{"nobody knows what", loss{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.layers = 2
			w.peer = listening(20 * time.Millisecond)
			w.add(w.targets(20, func(t *Target) { t.Interval = 100 * time.Millisecond })...)
			for range 10 {
				w.after(time.Duration(w.rng.Int64N(int64(3*time.Second))), func() { w.lost = append(w.lost, c.loss) })
			}
			w.run(5 * time.Second)
			all := w.total()
			if n := sum(all.verdicts[:]); n == 0 || n != all.verdicts[probe.OK] {
				t.Errorf("verdicts %v", all.verdicts)
			}
			if n := all.discards[probe.DiscardLinkDown]; n != sum(all.discards[:]) || (n > 0) != c.ours {
				t.Errorf("discards %v", all.discards)
			}
		})
	}
}

// Whoever looked for this host while it was away goes on for a moment without finding
// it: what runs out of time then is excused, and no more than that.
func TestHoming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	w.add(w.targets(20, func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 90*time.Millisecond })...)
	w.after(2*time.Second, func() {
		w.lost = append(w.lost, loss{address: local4}, loss{address: local6})
		w.peer = silent
		w.after(time.Second, func() { w.peer = listening(time.Millisecond) })
		w.after(4*time.Second, func() { w.peer = silent }) // for another reason
	})
	w.run(8 * time.Second)
	all := w.total()
	if n := all.discards[probe.DiscardLinkDown]; n < 100 || n > 250 || n != sum(all.discards[:]) {
		t.Errorf("discards %v", all.discards)
	}
	if n := all.verdicts[probe.Timeout]; n < 300 || n > 400 {
		t.Errorf("verdicts %v", all.verdicts)
	}
}

// An interface that goes and comes again all the time does not hide a peer that is dead:
// what was under way is discarded each time, and what others look for this host in vain for
// longer than it was away once in half a minute.
func TestFlapping(t *testing.T) {
	for _, each := range []func(*Target){nil, activeClose} {
		w := newWorld(t, nil)
		w.peer = silent
		x, l := w.target(1, "198.19.0.1:443", func(t *Target) {
			if each != nil {
				each(t)
			}
			t.Params.Timeout = 900 * time.Millisecond
		})
		w.add(x)
		for i := range 120 {
			w.after(time.Duration(i)*2500*time.Millisecond, func() { w.lost = append(w.lost, loss{ifindex: 1}) })
		}
		w.run(300 * time.Second)
		// One probe of two and a half is under way, at the most, and two in half a minute.
		if n := l.discards[probe.DiscardLinkDown]; n != sum(l.discards[:]) || n == 0 || n > 120+20+1 || l.verdicts[probe.Timeout] != 300-n {
			t.Errorf("%v: verdicts %v, discards %v", x.Params.Kind, l.verdicts, l.discards)
		}
	}
}

// A peer that has answered has found this host: that it never closes is its own
// doing, however shortly before this host came back.
func TestNoExcuseForTheAnswered(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = stays(time.Millisecond)
	x, l := w.target(1, "198.19.0.1:443", activeClose)
	x.Interval, x.Params.Timeout = 100*time.Millisecond, 500*time.Millisecond
	w.add(x)
	w.after(10*time.Second, func() { w.lost = append(w.lost, loss{ifindex: 1}) })
	w.run(20 * time.Second)
	// Five are under way at that moment.
	if n := l.discards[probe.DiscardLinkDown]; n < 4 || n > 6 || l.verdicts[probe.FINMissing] < 180 {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
}

// Once somebody has found this host again the others have within a second.
func TestHomingEnds(t *testing.T) {
	w := newWorld(t, nil)
	dead, l := w.target(1, "198.19.0.1:443", func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 90*time.Millisecond })
	w.peer = func(s *sim, p *wire.Packet) {
		if p.Dst != dead.Remote.Addr() {
			listening(time.Millisecond)(s, p)
		}
	}
	other, _ := w.target(2, "198.19.0.2:443", func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 90*time.Millisecond })
	w.add(dead, other)
	w.after(2*time.Second, func() { w.lost = append(w.lost, loss{ifindex: 1}) })
	w.run(8 * time.Second)
	if n := l.discards[probe.DiscardLinkDown]; n < 9 || n > 13 || l.verdicts[probe.Timeout] != 80-n {
		t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
	}
}

// Another address of this host's own, reached over the wire, answers by loopback.
func TestAnsweredByLoopback(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  probe.Flags
		verdict probe.Reason
	}{
		"SYN-ACK": {probe.SYN | probe.ACK, probe.OK},
		"RST":     {probe.RST | probe.ACK, probe.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.device = 2
			w.peer = func(s *sim, p *wire.Packet) {
				if p.Segment.Flags != probe.SYN {
					return
				}
				tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
				answer := probe.Segment{Flags: tt.answer, Seq: 1, Ack: p.Segment.Seq.Add(1), Window: 65535}
				w.ring = append(w.ring, inRing{wire.AppendPacket(w.buffer(), &tuple, &answer, nil), int64(w.now) + w.offset, false, loopback})
			}
			x, l := w.target(1, "198.19.0.1:443", nil)
			w.add(x)
			w.run(8 * time.Second)
			if n := l.verdicts[tt.verdict]; n < 7 || n != sum(l.verdicts[:]) {
				t.Errorf("verdicts %v", l.verdicts)
			}
		})
	}
}

// A firewall of this host that rejects our segments answers them by RSTs in the peer's
// name, over the loopback interface. They are not the peer's.
func TestRejectedHere(t *testing.T) {
	for name, by := range map[string]struct {
		device  int
		verdict probe.Reason
		discard probe.DiscardReason
	}{
		"by another interface": {2, 0, probe.DiscardSendError},
		"to this host itself":  {loopback, probe.Reset, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.device = by.device
			w.peer = closes(10 * time.Millisecond)
			rejects := false
			w.refuse = func(p *Packet) bool {
				if !rejects || p.Segment[13]&byte(probe.SYN|probe.RST) != 0 {
					return false
				}
				// nft_reject: <SEQ=SEG.ACK><CTL=RST>, from where it was to go.
				tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(p.Segment[2:])), Remote: netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(p.Segment))}
				rst := probe.Segment{Flags: probe.RST, Seq: probe.Seq(binary.BigEndian.Uint32(p.Segment[8:])), TTL: 64}
				w.ring = append(w.ring, inRing{wire.AppendPacket(w.buffer(), &tuple, &rst, nil), int64(w.now) + w.offset, false, loopback})
				return true
			}
			x, l := w.target(1, "198.19.0.1:443", func(x *Target) {
				activeClose(x)
				x.Params.Hold, x.Params.Timeout = 100*time.Millisecond, 600*time.Millisecond
			})
			w.add(x)
			w.after(2*time.Second, func() { rejects = true })
			w.after(4*time.Second, func() { rejects = false })
			w.run(8 * time.Second)
			if n := l.verdicts[probe.Reset]; n > 0 != (by.verdict == probe.Reset) {
				t.Errorf("verdicts %v", l.verdicts)
			}
			if n := l.discards[probe.DiscardSendError]; n > 0 != (by.discard == probe.DiscardSendError) {
				t.Errorf("discarded %v", l.discards)
			}
		})
	}
}

// A firewall of this host rejects SYNs now and then: those that leave when they are tried again
// were refused by nobody whom they were sent to. Whoever refuses all by himself has.
func TestRejectedOnce(t *testing.T) {
	for name, peer := range map[string]peerFunc{"listening": listening(time.Millisecond), "silent": silent, "closed": closed(time.Millisecond)} {
		for kind, each := range map[string]func(*Target){"half_open": nil, "active_close": activeClose} {
			for how, by := range map[string]struct {
				remote      string
				answer      func(*world, *Packet) []byte
				noNeighbour bool
			}{
				"by a RST":         {"198.19.0.1:443", (*world).rstInItsName, false},
				"by ICMP":          {"198.19.0.1:443", rejectedBy(3), false},
				"by ICMP, 13":      {"198.19.0.1:443", rejectedBy(13), false},
				"by ICMPv6":        {"[2001:db8:1::1]:443", rejectedBy(4), false},
				"by ICMPv6, 1":     {"[2001:db8:1::1]:443", rejectedBy(1), false},
				"by ICMP, 1":       {"198.19.0.1:443", rejectedBy(1), true},
				"by ICMPv6, 3":     {"[2001:db8:1::1]:443", rejectedBy(3), true},
				"by a RST to IPv6": {"[2001:db8:1::1]:443", (*world).rstInItsName, false},
			} {
				for when, late := range map[string]time.Duration{"": 0, ", late": 20 * time.Microsecond, ", behind a queue": 0} {
					queued := when == ", behind a queue" // a program decides of it, and the kernel tells us nothing
					if queued && by.noNeighbour {
						continue // nobody can tell
					}
					t.Run(name+" "+kind+" "+how+when, func(t *testing.T) {
						w := newWorld(t, nil)
						w.device = 2
						w.peer = peer
						rejects := false
						w.atFirst = func(p *Packet) bool {
							if !rejects || probe.Flags(p.Segment[13]) != probe.SYN {
								return false
							}
							answer := by.answer(w, p)
							arrives := func() { w.ring = append(w.ring, inRing{answer, int64(w.now) + w.offset, false, loopback}) }
							if late > 0 {
								w.after(late, arrives)
							} else {
								arrives()
							}
							return !queued
						}
						x, l := w.target(1, by.remote, each)
						w.add(x)
						w.after(2*time.Second, func() { rejects = true })
						w.after(12*time.Second, func() { rejects = false })
						w.run(20 * time.Second)
						if n := l.discards[probe.DiscardSendError]; n < 9 || n > 11 || l.settled() < 15 {
							t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
						}
						if n := l.verdicts[probe.Refused]; n > 0 != (name == "closed") || n > 11 {
							t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
						}
						if n := l.verdicts[probe.Unreachable] + l.verdicts[probe.Prohibited]; n > 0 {
							t.Errorf("verdicts %v, discards %v", l.verdicts, l.discards)
						}
					})
				}
			}
		}
	}
}

// rstInItsName is nft_reject's RST for a SYN of ours.
func (w *world) rstInItsName(p *Packet) []byte {
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(p.Segment[2:])), Remote: netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(p.Segment))}
	rst := probe.Segment{Flags: probe.RST | probe.ACK, Ack: probe.Seq(binary.BigEndian.Uint32(p.Segment[4:])).Add(1), TTL: 64}
	return wire.AppendPacket(w.buffer(), &tuple, &rst, nil)
}

// rejectedBy is nft_reject's ICMP or ICMPv6 destination unreachable for a SYN of ours, with a code.
func rejectedBy(code byte) func(*world, *Packet) []byte {
	return func(w *world, p *Packet) []byte {
		tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(p.Segment)), Remote: netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(p.Segment[2:]))}
		syn := probe.Segment{Flags: probe.SYN, Seq: probe.Seq(binary.BigEndian.Uint32(p.Segment[4:]))}
		return append(w.buffer(), routerSays(p.Src, wire.AppendPacket(nil, &tuple, &syn, nil), [2]byte{3, code}, [2]byte{1, code})...)
	}
}

// A firewall of this host that rejects what peers send resets connections in our name. That
// they then say so by a RST is not their doing; one that does by itself has reset them.
func TestResetInOurName(t *testing.T) {
	for name, tt := range map[string]struct {
		kind    func(*Target)
		hop     uint64 // what goes by it is all that the firewall rejects, if there is one
		ours    int    // discarded of 20 probes
		trouble error
	}{
		"active_close":                     {activeClose, 0, 10, errInOurName},
		"passive_close":                    {passiveClose, 0, 10, errInOurName},
		"active_close, past the firewall":  {activeClose, 7, 1, errRejectedPast},
		"passive_close, past the firewall": {passiveClose, 7, 1, errRejectedPast},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.hop = tt.hop
			rejects := true
			w.refuse = func(p *Packet) bool {
				if probe.Flags(p.Segment[13]) == probe.SYN && tt.hop != 0 {
					rejects = p.Hop != 0
				}
				return false
			}
			w.peer = func(s *sim, p *wire.Packet) {
				switch {
				case p.Segment.Flags == probe.SYN && rejects:
					tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
					rst := probe.Segment{Flags: probe.RST, Seq: p.Segment.Seq.Add(1)}
					listening(time.Millisecond)(s, p)
					s.after(time.Millisecond, func() {
						w.ring = append(w.ring, inRing{wire.AppendPacket(w.buffer(), &tuple, &rst, nil), int64(w.now) + w.offset, true, 1})
					})
				case p.Segment.Flags == probe.SYN:
					listening(time.Millisecond)(s, p)
				case !p.Segment.Flags.Has(probe.RST):
					s.reply(p, time.Millisecond, &probe.Segment{Flags: probe.RST, Seq: p.Segment.Ack})
				}
			}
			x, l := w.target(1, "198.19.0.1:443", tt.kind)
			x.Direct = true
			w.add(x)
			w.after(10*time.Second, func() { rejects = false })
			w.run(20 * time.Second)
			if n := l.discards[probe.DiscardSendError]; n < tt.ours-1 || n > tt.ours+1 || n == 0 || l.verdicts[probe.Reset] != 20-n || l.settled() != 20 {
				t.Errorf("verdicts %v, discarded %v", l.verdicts, l.discards)
			}
			if len(w.troubles) != 1 || w.troubles[0] != tt.trouble.Error() {
				t.Errorf("reported %q", w.troubles)
			}
		})
	}
}

// A firewall of this host rejects SYN-ACKs by an ICMP error, to those whose SYN it has not seen or
// to all. A peer that gives up for that and says so by a RST has reset nothing; but a RST is
// believed of whoever does not give up for it, and of all once nothing goes past the firewall.
func TestRejectedByICMP(t *testing.T) {
	for name, tt := range map[string]struct {
		remote   string
		hop      uint64
		stateful bool // the firewall
		typ      uint8
		code     uint8
		resets   bool // the peer, all the same
		verdict  probe.Reason
		ours     int // discarded of 20 probes
		trouble  error
	}{
		"past the firewall":                   {"[2001:db8::9]:443", 7, true, 1, 1, false, probe.OK, 1, errRejectedPast},
		"past the firewall, and reset":        {"[2001:db8::9]:443", 7, true, 1, 1, true, probe.Reset, 1, errRejectedPast},
		"whatever way it goes":                {"[2001:db8::9]:443", 0, false, 1, 4, false, 0, 20, errRejected},
		"past it and otherwise":               {"[2001:db8::9]:443", 7, false, 1, 4, false, 0, 20, errRejectedPast},
		"for which no IPv6 peer gives up":     {"[2001:db8::9]:443", 7, true, 1, 3, true, probe.Reset, 0, nil},
		"for which no IPv4 peer gives up":     {"198.19.0.1:443", 7, true, 3, 13, true, probe.Reset, 0, nil},
		"for which an IPv4 peer does give up": {"198.19.0.1:443", 7, true, 3, 1, false, probe.OK, 1, errRejectedPast},
	} {
		for kind, each := range map[string]func(*Target){"active_close": activeClose, "passive_close": passiveClose} {
			t.Run(name+" "+kind, func(t *testing.T) {
				w := newWorld(t, nil)
				w.hop = tt.hop
				past := make(map[uint16]bool)
				w.refuse = func(p *Packet) bool {
					if probe.Flags(p.Segment[13]) == probe.SYN {
						past[binary.BigEndian.Uint16(p.Segment)] = p.Hop != 0
					}
					return false
				}
				w.peer = func(s *sim, p *wire.Packet) {
					rejected := past[p.SrcPort] || !tt.stateful
					switch f := p.Segment.Flags; {
					case f == probe.SYN:
						listening(time.Millisecond)(s, p)
						if rejected {
							s.after(time.Millisecond, func() { w.rejectSYNACK(p.Src, p.Dst, p.SrcPort, p.DstPort, isn(p), tt.typ, tt.code) })
						}
					case f.Has(probe.RST):
					case rejected || tt.resets:
						s.reply(p, time.Millisecond, &probe.Segment{Flags: probe.RST, Seq: p.Segment.Ack})
					case kind == "active_close":
						closes(time.Millisecond)(s, p)
					default:
						closesFirst(time.Millisecond)(s, p)
					}
				}
				x, l := w.target(1, tt.remote, each)
				x.Direct = true
				w.add(x)
				w.run(20 * time.Second)
				if l.discards[probe.DiscardSendError] != tt.ours || l.verdicts[tt.verdict] != 20-tt.ours || l.settled() != 20 {
					t.Errorf("verdicts %v, discarded %v", l.verdicts, l.discards)
				}
				if (len(w.troubles) > 0) != (tt.trouble != nil) || len(w.troubles) > 0 && w.troubles[0] != tt.trouble.Error() || len(w.troubles) > 2 {
					t.Errorf("reported %q", w.troubles)
				}
			})
		}
	}
}

// rejectSYNACK has a firewall of this host send an ICMP error about a peer's SYN-ACK.
func (w *world) rejectSYNACK(local, remote netip.Addr, port, remotePort uint16, isn probe.Seq, typ, code uint8) {
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(remote, remotePort), Remote: netip.AddrPortFrom(local, port)}
	quoted := wire.AppendPacket(nil, &tuple, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn}, nil)
	message := wire.AppendICMPError(nil, &wire.ICMPError{Src: local, Dst: remote, Type: typ, Code: code}, quoted)
	b := wire.AppendIPv6(w.buffer(), &wire.IPv6Header{Src: local, Dst: remote, NextHeader: 58, HopLimit: 64}, message)
	if local.Is4() {
		b = wire.AppendIPv4(w.buffer(), &wire.IPv4Header{Src: local, Dst: remote, Protocol: 1, TTL: 64}, message)
	}
	w.ring = append(w.ring, inRing{b, int64(w.now) + w.offset, true, 1})
}

// The loop stands still when this host has come back, until all answers lie in the ring that
// came too late, or none did: whoever looked for this host meanwhile is excused all the same.
func TestHomingWhileStalled(t *testing.T) {
	for name, peer := range map[string]peerFunc{
		"silence":      silent,
		"late SYN-ACK": listening(600 * time.Millisecond),
		"late RST":     closed(600 * time.Millisecond),
		"late ICMP":    unreachable(600 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = listening(time.Millisecond)
			w.add(w.targets(20, func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 400*time.Millisecond })...)
			w.after(2*time.Second, func() {
				w.lost = append(w.lost, loss{address: local4}, loss{address: local6})
				w.peer = peer
				w.after(500*time.Millisecond, func() { w.stallFor(2500 * time.Millisecond) })
				w.after(time.Second, func() { w.peer = listening(time.Millisecond) })
			})
			w.run(8 * time.Second)
			all := w.total()
			if n := sum(all.verdicts[:]); n != all.verdicts[probe.OK] || n == 0 {
				t.Errorf("verdicts %v", all.verdicts)
			}
			if n := all.discards[probe.DiscardLinkDown]; n < 20 || n != sum(all.discards[:]) {
				t.Errorf("discards %v", all.discards)
			}
		})
	}
}

// An interface goes and comes back while the loop stands still: answers that were under way are
// lost, and what peers send again after the time is no verdict of theirs.
func TestLossesWhileStalled(t *testing.T) {
	w := newWorld(t, nil)
	away := false
	w.peer = func(s *sim, p *wire.Packet) {
		if p.Segment.Flags != probe.SYN {
			return
		}
		syn := *p
		for _, d := range []time.Duration{100 * time.Millisecond, 1100 * time.Millisecond} {
			s.after(d, func() {
				if !away {
					s.reply(&syn, 0, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(&syn), Ack: syn.Segment.Seq.Add(1), Window: 65535})
				}
			})
		}
	}
	w.add(w.targets(20, func(t *Target) { t.Interval = 100 * time.Millisecond })...)
	w.after(2*time.Second, func() {
		w.stallFor(2 * time.Second)
		away = true
		w.lost = append(w.lost, loss{ifindex: 1})
		w.after(500*time.Millisecond, func() { away = false })
	})
	w.run(8 * time.Second)
	all := w.total()
	if n := sum(all.verdicts[:]); n != all.verdicts[probe.OK] || n == 0 {
		t.Errorf("verdicts %v", all.verdicts)
	}
	if n := all.discards[probe.DiscardLinkDown]; n == 0 || n != sum(all.discards[:]) {
		t.Errorf("discards %v", all.discards)
	}
}

// The wall clock is set while others still look for this host: what runs out of time is
// excused all the same.
func TestHomingAndAClockStep(t *testing.T) {
	for _, step := range []time.Duration{0, time.Hour} {
		w := newWorld(t, nil)
		w.peer = listening(time.Millisecond)
		w.add(w.targets(20, func(t *Target) { t.Interval, t.Params.Timeout = 200*time.Millisecond, 3*time.Second })...)
		w.after(2*time.Second, func() {
			w.lost = append(w.lost, loss{address: local4}, loss{address: local6})
			w.peer = silent
			w.after(time.Second, func() { w.peer = listening(time.Millisecond) })
			w.after(1500*time.Millisecond, func() { w.offset += int64(step) })
		})
		w.run(12 * time.Second)
		all := w.total()
		if n := all.verdicts[probe.Timeout]; n > 0 {
			t.Errorf("step %v: verdicts %v, discards %v", step, all.verdicts, all.discards)
		}
	}
}

// This host goes away for seconds, again and again: each time others look for it in vain, and
// are excused for as long.
func TestHomingEachTime(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(time.Millisecond)
	w.add(w.targets(20, func(t *Target) { t.Interval, t.Params.Timeout = 100*time.Millisecond, 400*time.Millisecond })...)
	for i := range 5 {
		w.after(time.Duration(2+5*i)*time.Second, func() {
			w.lost = append(w.lost, loss{address: local4}, loss{address: local6})
			w.peer, w.refuse = silent, func(*Packet) bool { return true }
			w.after(3*time.Second, func() { w.refuse = nil })
			w.after(3900*time.Millisecond, func() { w.peer = listening(time.Millisecond) })
		})
	}
	w.run(30 * time.Second)
	all := w.total()
	if n := sum(all.verdicts[:]); n != all.verdicts[probe.OK] || n == 0 {
		t.Errorf("verdicts %v", all.verdicts)
	}
}
