package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Thousands of conversations are open at once over both families, each with a
// peer at a distance of its own: every answer reaches the one it is for.
func TestDemux(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ts := w.targets(5000, nil)
	rtt := func(i int) time.Duration { return 300*time.Millisecond + time.Duration(i)*100*time.Microsecond }
	answers := []func(time.Duration) peerFunc{listening, listening, closed, unreachable}
	for i, x := range ts {
		w.peers[x.Remote] = answers[i%4](rtt(i))
	}
	w.add(ts...)
	most := 0
	w.after(2500*time.Millisecond, func() { most = w.shard.table.open })
	w.run(5 * time.Second)
	if most < 2000 {
		t.Errorf("only %d open at once", most)
	}
	answered := 0
	for i, l := range w.ledgers {
		want := [...]probe.Reason{probe.OK, probe.OK, probe.Refused, probe.Unreachable}[i%4]
		if n := l.verdicts[want]; n < 4 || l.settled() != n || sum(l.rejects[:]) != 0 {
			t.Fatalf("target %d: %d of %v; %v, discarded %v, rejected %v", i, n, want, l.verdicts, l.discards, l.rejects)
		}
		if want != probe.OK {
			continue
		}
		answered += l.verdicts[want]
		if l.reactions != l.verdicts[want] || l.peers != l.verdicts[want] {
			t.Fatalf("target %d: %d reactions, %d fingerprints", i, l.reactions, l.peers)
		}
		for _, got := range l.rtts {
			if off := got - rtt(i); off < 0 || off > 100*time.Microsecond {
				t.Fatalf("target %d: %v, want %v", i, got, rtt(i))
			}
		}
	}
	if w.resets != answered {
		t.Errorf("%d RSTs for %d SYN-ACKs", w.resets, answered)
	}
}

// opposite is a port of the range that no recent conversation has.
func opposite(port uint16) uint16 { return 61000 + (port-61000+64)%128 }

// What is not exactly ours is not believed, and booked with whom it claims to
// be from only if it came to our address.
func TestStrangers(t *testing.T) {
	type change func(tuple *probe.FourTuple, s *probe.Segment)
	other := netip.MustParseAddr("198.18.0.99")
	same := func(*probe.FourTuple, *probe.Segment) {}
	longer := func(b []byte) { // by 40 octets, which its IPv4 header says, and its checksum too (RFC 1624)
		binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])+40)
		binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])-40)
	}
	none := func(b []byte) { // of length 0
		binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])+binary.BigEndian.Uint16(b[2:]))
		binary.BigEndian.PutUint16(b[2:], 0)
	}
	cases := map[string]struct {
		change change
		damage func(b []byte)
		want   probe.RejectReason
	}{
		"another address of ours": {func(f *probe.FourTuple, _ *probe.Segment) { f.Remote = netip.AddrPortFrom(other, f.Remote.Port()) }, nil, probe.NotRejected},
		"another port of ours": {func(f *probe.FourTuple, _ *probe.Segment) {
			f.Remote = netip.AddrPortFrom(f.Remote.Addr(), opposite(f.Remote.Port()))
		}, nil, probe.RejectUnexpected},
		"a port that is not ours":   {func(f *probe.FourTuple, _ *probe.Segment) { f.Remote = netip.AddrPortFrom(f.Remote.Addr(), 60999) }, nil, probe.NotRejected},
		"another port of theirs":    {func(f *probe.FourTuple, _ *probe.Segment) { f.Local = netip.AddrPortFrom(f.Local.Addr(), 444) }, nil, probe.NotRejected},
		"another address of theirs": {func(f *probe.FourTuple, _ *probe.Segment) { f.Local = netip.AddrPortFrom(other, 443) }, nil, probe.NotRejected},
		"a wrong acknowledgement":   {func(_ *probe.FourTuple, s *probe.Segment) { s.Ack++ }, nil, probe.RejectBadACK},
		"a wrong checksum":          {same, func(b []byte) { b[len(b)-1] ^= 0x40 }, probe.RejectBadChecksum},
		"a wrong checksum of IPv4":  {same, func(b []byte) { b[10] ^= 0x40 }, probe.RejectBadChecksum},
		"shorter than it says":      {same, longer, probe.RejectMalformed},
		"of length 0":               {same, none, probe.RejectMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = func(s *sim, p *wire.Packet) {
				if p.Segment.Flags != probe.SYN {
					return
				}
				tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
				seg := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 1, Ack: p.Segment.Seq + 1, TTL: 60}
				c.change(&tuple, &seg)
				b := wire.AppendPacket(nil, &tuple, &seg, nil)
				if c.damage != nil {
					c.damage(b)
				}
				s.send(time.Millisecond, b)
			}
			target, l := w.target(1, "198.19.0.1:443", nil)
			w.add(target)
			w.run(20 * time.Second)
			if l.verdicts[probe.OK] != 0 || l.settled() != 20 {
				t.Errorf("verdicts %v", l.verdicts)
			}
			if c.want == probe.NotRejected {
				if sum(l.rejects[:]) != 0 {
					t.Errorf("rejected %v", l.rejects)
				}
			} else if l.rejects[c.want] != 20 || sum(l.rejects[:]) != 20 {
				t.Errorf("rejected %v, want 20 of %v", l.rejects, c.want)
			}
		})
	}
}

// An ICMP error is believed if it quotes our four-tuple and our ISS.
func TestICMPQuotes(t *testing.T) {
	cases := map[string]struct {
		change func(f *probe.FourTuple, s *probe.Segment)
		want   probe.Reason
		reject probe.RejectReason
	}{
		"our SYN":     {func(*probe.FourTuple, *probe.Segment) {}, probe.Unreachable, probe.NotRejected},
		"another ISS": {func(_ *probe.FourTuple, s *probe.Segment) { s.Seq++ }, probe.Timeout, probe.RejectBadQuote},
		"another port": {func(f *probe.FourTuple, _ *probe.Segment) {
			f.Local = netip.AddrPortFrom(f.Local.Addr(), opposite(f.Local.Port()))
		}, probe.Timeout, probe.RejectUnexpected},
		"another peer": {func(f *probe.FourTuple, _ *probe.Segment) { f.Remote = netip.AddrPortFrom(f.Remote.Addr(), 80) }, probe.Timeout, probe.NotRejected},
	}
	for _, remote := range []string{"198.19.0.1:443", "[2001:db8:1::1]:443"} {
		for name, c := range cases {
			t.Run(name+" "+remote, func(t *testing.T) {
				w := newWorld(t, nil)
				w.peer = func(s *sim, p *wire.Packet) {
					tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
					seg := p.Segment
					c.change(&tuple, &seg)
					s.send(time.Millisecond, icmpError(p.Src, wire.AppendPacket(nil, &tuple, &seg, nil)))
				}
				target, l := w.target(1, remote, nil)
				w.add(target)
				w.run(10 * time.Second)
				rejects := [probe.NumRejectReasons]int{}
				if c.reject != probe.NotRejected {
					rejects[c.reject] = 10
				}
				if l.verdicts[c.want] != 10 || l.rejects != rejects {
					t.Errorf("verdicts %v, rejected %v", l.verdicts, l.rejects)
				}
			})
		}
	}
}

// A network that loses, repeats and reorders answers.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.peer = listening(10 * time.Millisecond)
	w.impair = func() (int, time.Duration) {
		copies := 1
		switch w.rng.IntN(10) {
		case 0:
			copies = 0
		case 1:
			copies = 3
		}
		return copies, time.Duration(w.rng.IntN(1200)) * time.Millisecond
	}
	w.add(w.targets(500, nil)...)
	w.run(60 * time.Second)
	var ok, timeout, late, dups int
	for _, l := range w.ledgers {
		ok, timeout = ok+l.verdicts[probe.OK], timeout+l.verdicts[probe.Timeout]
		late, dups = late+l.late, dups+l.dups
		if sum(l.discards[:]) != 0 {
			t.Fatalf("discarded %v", l.discards)
		}
	}
	if ok+timeout != 30000 || timeout < 6000 || late < 3000 || dups < 3000 {
		t.Errorf("%d answered, %d timeouts, %d late, %d duplicates", ok, timeout, late, dups)
	}
}

// Where our kernel's RST does not leave, ours does.
func TestOwnReset(t *testing.T) {
	w := newWorld(t, nil)
	w.noReset = true
	w.peer = listening(10 * time.Millisecond)
	target, l := w.target(1, "198.19.0.1:443", nil)
	w.add(target)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 30 || w.resets != 30 || l.reactions != 30 {
		t.Errorf("%d answered, %d RSTs, %d reactions", l.verdicts[probe.OK], w.resets, l.reactions)
	}
	if len(w.troubles) != 1 || w.troubles[0] != errNoReset.Error() {
		t.Errorf("reported %q", w.troubles)
	}
}

// A firewall that knows nothing of what went past it keeps the SYN-ACK from our
// kernel: that target goes by raw sockets from then on, and says so once.
func TestPacketSocketsAreGivenUp(t *testing.T) {
	w := newWorld(t, nil)
	w.hop, w.stateful, w.past = 7, true, make(map[uint16]bool)
	w.peer = listening(10 * time.Millisecond)
	direct, l := w.target(1, "198.19.0.1:443", nil)
	direct.Direct = true
	usual, other := w.target(2, "198.19.0.2:443", nil)
	hops := make(map[netip.Addr]int)
	w.refuse = func(p *Packet) bool {
		if p.Hop != 0 {
			hops[p.Dst]++
		}
		return false
	}
	w.add(direct, usual)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 30 || other.verdicts[probe.OK] != 30 || w.resets != 60 {
		t.Errorf("%d and %d answered, %d RSTs", l.verdicts[probe.OK], other.verdicts[probe.OK], w.resets)
	}
	// Three SYNs and our own RSTs.
	if len(hops) != 1 || hops[direct.Remote.Addr()] != 6 {
		t.Errorf("past the host's routing: %v", hops)
	}
	if len(w.troubles) != 1 || w.troubles[0] != errBypassed.Error() {
		t.Errorf("reported %q", w.troubles)
	}
}

// byHop counts the SYNs that go past the host's routing.
func (w *world) byHop() *int {
	n := new(int)
	w.refuse = func(p *Packet) bool {
		if p.Hop != 0 && p.Segment[13]&byte(probe.SYN) != 0 {
			*n++
		}
		return false
	}
	return n
}

// A RST whose frame the tap has lost is no sign of a firewall, whatever way the SYN went.
func TestLostFramesOfResetsBlameNobody(t *testing.T) {
	for _, hop := range []uint64{0, 7} {
		w := newWorld(t, nil)
		w.hop = hop
		w.peer = listening(10 * time.Millisecond)
		w.tapLoses = func(p *wire.Packet, outgoing bool) bool { return outgoing && p.Segment.Flags.Has(probe.RST) }
		n := w.byHop()
		target, l := w.target(1, "198.19.0.1:443", func(x *Target) { x.Direct = true })
		w.add(target)
		w.run(20 * time.Second)
		if w.resets < 40 || l.settled() != 20 || hop != 0 && *n != 20 || len(w.troubles) != 0 {
			t.Errorf("%d RSTs for %d probes, %d SYNs past the routing, reported %q", w.resets, l.settled(), *n, w.troubles)
		}
	}
}

// Nor are two RSTs in a row that come late.
func TestLateResetsBlameNoFirewall(t *testing.T) {
	w := newWorld(t, nil)
	w.hop = 7
	w.peer = listening(10 * time.Millisecond)
	n := w.byHop()
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags.Has(probe.SYN) {
			w.noReset = w.syns%3 != 0
		}
	}
	target, _ := w.target(1, "198.19.0.1:443", func(x *Target) { x.Direct = true })
	w.add(target)
	w.run(30 * time.Second)
	if *n != 30 || len(w.troubles) != 0 {
		t.Errorf("%d SYNs past the routing, reported %q", *n, w.troubles)
	}
}

// What a firewall hinders is known of the peer, whatever target names it, and is tried
// again after ten minutes.
func TestPacketSocketsAreTriedAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.churn = true
	w.hop, w.stateful, w.past = 7, true, make(map[uint16]bool)
	w.peer = listening(10 * time.Millisecond)
	n := w.byHop()
	direct := func(x *Target) { x.Direct = true }
	first, _ := w.target(1, "198.19.0.1:443", direct)
	w.add(first)
	w.after(20*time.Second, func() {
		second, _ := w.target(1, "198.19.0.1:443", direct)
		ping, _ := w.target(2, "198.19.0.1:443", func(x *Target) { direct(x); x.Count = 5 })
		w.shard.Update([]*Target{second, ping}, []*Target{first})
	})
	before := 0
	w.after(9*time.Minute, func() { before = *n })
	w.after(11*time.Minute, func() { w.stateful = false })
	w.run(21*time.Minute + 30*time.Second)
	if before != 3 || *n < 6+60 || *n > 6+120 {
		t.Errorf("%d SYNs past the routing, %d of them in the first ten minutes", *n, before)
	}
}

// Where raw sockets have no RST seen either, that is another finding.
func TestPacketSocketsAreNotAlwaysTheReason(t *testing.T) {
	w := newWorld(t, nil)
	w.hop, w.noReset = 7, true
	w.peer = listening(10 * time.Millisecond)
	target, _ := w.target(1, "198.19.0.1:443", nil)
	target.Direct = true
	w.add(target)
	w.run(10 * time.Second)
	if want := []string{errBypassed.Error(), errNoReset.Error()}; !slices.Equal(w.troubles, want) {
		t.Errorf("reported %q", w.troubles)
	}
}

// Each conversation's transcript is handed over once, with its SYN in it; and what comes
// after that, if anything does, when its four-tuple is free.
func TestTranscripts(t *testing.T) {
	for name, tt := range map[string]struct {
		peer   peerFunc
		copies int
		again  probe.Note // what comes after
	}{
		"nothing more":      {listening(10 * time.Millisecond), 1, 0},
		"a late answer":     {listening(1200 * time.Millisecond), 1, probe.NoteSYNACKLate},
		"the answer, twice": {listening(10 * time.Millisecond), 2, probe.NoteSYNACKDuplicate},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = tt.peer
			w.impair = func() (int, time.Duration) { return tt.copies, 0 }
			if tt.copies > 1 {
				extra := time.Duration(0)
				w.impair = func() (int, time.Duration) { // the second comes after the RST
					extra = 50*time.Millisecond - extra
					return tt.copies, 50*time.Millisecond - extra
				}
			}
			ts := w.targets(20, nil)
			for i, x := range ts {
				l := w.ledgers[i]
				x.Recorder = l
				seen := make(map[probe.Seq]bool)
				check := func(tr *probe.Transcript) probe.Seq {
					r := tr.Records()
					if len(r) < 3 || r[0].Event.Kind != probe.Open || tr.Tuple.Remote != x.Remote || len(tr.Figures()) == 0 {
						t.Fatalf("transcript of %v: %+v", tr.Tuple, r)
					}
					return r[0].Event.Segment.Seq
				}
				l.onSettled = func(tr *probe.Transcript) {
					iss := check(tr)
					if seen[iss] {
						t.Fatalf("a conversation's second transcript")
					}
					seen[iss] = true
				}
				l.onRecord = func(tr *probe.Transcript) {
					iss := check(tr)
					if !slices.ContainsFunc(tr.Records(), func(r probe.Record) bool { return r.Note == tt.again }) {
						t.Fatalf("nothing has come since: %+v", tr.Records())
					}
					if last := tr.Records()[len(tr.Records())-1]; !seen[iss] || last.Note != probe.NoteDone && last.Note != probe.NoteAborted {
						t.Fatalf("handed over before its end, %v", last.Note)
					}
				}
			}
			w.add(ts...)
			w.run(10 * time.Second)
			for _, l := range w.ledgers {
				if again := min(int(tt.again), 1) * l.records; l.handed != 10 || l.records != again || tt.again != 0 && again < 8 {
					t.Errorf("%d transcripts, %d of them again", l.handed, l.records)
				}
			}
		})
	}
}

// Where our kernel's RST has not left once, room is kept for one of ours only until it leaves again:
// peers that are silent, or far, are probed as often as before.
func TestRoomForOwnResetsIsGivenBack(t *testing.T) {
	for name, peer := range map[string]peerFunc{"silent": silent, "far": listening(400 * time.Millisecond)} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
		w.peer = listening(10 * time.Millisecond)
		for i := range 95 {
			x, _ := w.target(uint64(i)*7919, fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
			w.add(x)
		}
		w.after(2*time.Second, func() { w.noReset = true })
		w.after(3100*time.Millisecond, func() { w.noReset = false })
		before := 0
		w.after(10*time.Second, func() { before, w.peer = sum(w.skips[:]), peer })
		w.run(30 * time.Second)
		if n := sum(w.skips[:]) - before; n > 0 {
			t.Errorf("%s: %d of 1900 are skipped", name, n)
		}
	}
}

// Where our kernel's RST does not leave, ours does, also where the targets use the limit up.
func TestOwnResetWithinAFullLimit(t *testing.T) {
	for _, n := range []int{50, 66, 75, 85, 95, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
			w.churn = true
			w.noReset = true
			var peers []*synReceived
			for i := range n {
				x, _ := w.target(uint64(i)*7919, fmt.Sprintf("198.19.0.1:%d", 1000+i), nil)
				peers = append(peers, newSYNReceived())
				w.peers[x.Remote] = peers[i].answer
				w.add(x)
			}
			held := 0
			w.after(119*time.Second, func() {
				for _, p := range peers {
					for _, h := range p.held {
						if w.now.Sub(h.since) < 64*time.Second {
							held++
						}
					}
				}
			})
			w.goOn(120 * time.Second)
			all := w.total()
			t.Logf("%d targets: %d SYNs, %d RSTs, skipped %v, verdicts %v, discards %v, %d SYN-ACKs again; the peer holds %d", n, w.syns, w.resets, w.skips, all.verdicts, all.discards, all.dups, held)
			if held > 2*n || sum(all.verdicts[:]) != all.verdicts[probe.OK] {
				t.Errorf("the peers hold %d half-open connections, verdicts %v", held, all.verdicts)
			}
		})
	}
}
