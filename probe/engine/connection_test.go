package engine

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// closes answers a SYN, and our FIN by its own in one segment.
func closes(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		f := p.Segment.Flags
		switch {
		case f == probe.SYN:
			listening(rtt)(s, p)
		case f.Has(probe.FIN):
			s.reply(p, rtt, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535})
		}
	}
}

// closesFirst answers a SYN, what is sent then by a FIN, and our FIN by an ACK.
func closesFirst(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		f := p.Segment.Flags
		switch {
		case f == probe.SYN:
			listening(rtt)(s, p)
		case f.Has(probe.FIN):
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535})
		case p.Segment.Len > 0:
			s.reply(p, rtt, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535})
		}
	}
}

// stays answers a SYN and never closes.
func stays(rtt time.Duration) peerFunc {
	return func(s *sim, p *wire.Packet) {
		f := p.Segment.Flags
		switch {
		case f == probe.SYN:
			listening(rtt)(s, p)
		case p.Segment.SegLen() > 0 && !f.Has(probe.RST):
			s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535})
		}
	}
}

func activeClose(t *Target) {
	t.Params = probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: 2 * time.Second}
}

func passiveClose(t *Target) {
	t.Send = "HEAD / HTTP/1.0\r\n\r\n"
	t.Params = probe.Params{Kind: probe.PassiveClose, Timeout: 5 * time.Second, Linger: 2 * time.Second, Send: uint32(len(t.Send))}
}

// What goes past the SYN-ACK leaves from guarded ports, each in its turn, with
// what it is to send, and is answered at once.
func TestConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		kind func(*Target)
		peer peerFunc
		want []string // what leaves, but for the SYN
	}{
		"active_close":  {activeClose, closes(10 * time.Millisecond), []string{".", "F.", "."}},
		"passive_close": {passiveClose, closesFirst(10 * time.Millisecond), []string{".", "P.", ".", "F."}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = tt.peer
			target, l := w.target(1, "198.19.0.1:443", tt.kind)
			w.add(target)
			sent := make(map[uint16][]string)
			var ports []uint16
			w.onWire = func(_ probe.Instant, p *wire.Packet) {
				if p.Segment.Flags == probe.SYN {
					ports = append(ports, p.SrcPort)
					return
				}
				sent[p.SrcPort] = append(sent[p.SrcPort], p.Segment.Flags.String())
				if p.Segment.Len > 0 && string(p.Payload) != target.Send {
					t.Errorf("sent %q", p.Payload)
				}
			}
			w.run(30 * time.Second)
			if l.verdicts[probe.OK] != 30 || len(sent) != 30 {
				t.Errorf("verdicts %v, discards %v, from %d ports", l.verdicts, l.discards, len(sent))
			}
			for i, p := range ports {
				if p < 61128 || !slices.Equal(sent[p], tt.want) {
					t.Errorf("from port %d: %v, want %v", p, sent[p], tt.want)
				}
				if i > 0 && p != ports[i-1]+1 && p != 61128 {
					t.Errorf("port %d after %d", p, ports[i-1])
				}
			}
			if most := slices.Max(l.reacted); most > 200*time.Microsecond {
				t.Errorf("answered after up to %v", most)
			}
		})
	}
}

// While it has connections the loop sleeps with an ear open, though something has
// just arrived: a sleep of a fixed length would end by a timer beside the next
// segment. Only where segments come all the time does it let some gather.
func TestReactionGap(t *testing.T) {
	t.Parallel()
	const begin, end = 3 * time.Second, 4 * time.Second
	for _, tt := range []struct {
		name  string
		every time.Duration // a stray segment arrives; 0: never
	}{{"connections", 0}, {"a flood", 5 * time.Microsecond}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = closes(60 * time.Microsecond)
			for i := range 100 {
				x, _ := w.target(uint64(i), remote(i).String(), activeClose)
				w.add(x)
			}
			stray := probe.FourTuple{Local: remote(0), Remote: netip.AddrPortFrom(local4, 61255)}
			until := w.now.Add(end)
			var flood func()
			flood = func() {
				w.arrives(wire.AppendPacket(w.buffer(), &stray, &probe.Segment{Flags: probe.RST, Seq: 77}, nil))
				if w.now < until {
					w.after(tt.every, flood)
				}
			}
			if tt.every > 0 {
				w.after(begin-time.Second, flood)
			}
			var waits, naps int
			w.after(begin, func() { waits, naps = w.waits, w.naps })
			w.after(end, func() { waits, naps = w.waits-waits, w.naps-naps })
			w.run(end + time.Second)
			if (naps > 0) != (tt.every > 0) {
				t.Errorf("of %d sleeps %d would not have ended for a segment", waits, naps)
			}
			if turns, most := waits-naps, int((end-begin)/reactionGap)+hasty; turns > most {
				t.Errorf("%d turns in a second, allowed %d", turns, most)
			}
		})
	}
}

// The end of probing leaves nothing open at the peers: those that don't close
// are reset.
func TestDrainOfConnections(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Drain = time.Second })
	w.peer = stays(10 * time.Millisecond)
	for i := range 20 {
		x, _ := w.target(uint64(i), netip.AddrPortFrom(netip.MustParseAddr("198.19.0.1"), uint16(1000+i)).String(), passiveClose)
		w.add(x)
	}
	open := make(map[netip.AddrPort]map[uint16]bool)
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		to := netip.AddrPortFrom(p.Dst, p.DstPort)
		switch {
		case p.Segment.Flags == probe.SYN && open[to] == nil:
			open[to] = make(map[uint16]bool)
			fallthrough
		case p.Segment.Flags == probe.SYN:
			open[to][p.SrcPort] = true
		case p.Segment.Flags.Has(probe.RST):
			delete(open[to], p.SrcPort)
		}
	}
	w.run(8 * time.Second)
	for to, ports := range open {
		if len(ports) > 0 {
			t.Errorf("%v is left with %d connections", to, len(ports))
		}
	}
	discards := w.total().discards
	if discards[probe.DiscardShutdown] < 20*3 || sum(discards[:]) != discards[probe.DiscardShutdown] {
		t.Errorf("discarded %v", discards)
	}
}

// A peer that still has a connection which nobody here remembers is told so, as
// a kernel would; on a reserved port our kernel does.
func TestRefusal(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 20} })
	w.peer = silent
	target, l := w.target(1, "198.19.0.1:443", func(t *Target) { activeClose(t); t.Interval = time.Hour })
	w.add(target)
	asked := 0
	w.peer = func(s *sim, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			asked++
		}
	}
	var resets []probe.Seq
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == probe.RST {
			resets = append(resets, p.Segment.Seq)
		}
	}
	stray := func(port uint16, seg *probe.Segment) {
		from := probe.FourTuple{Local: target.Remote, Remote: netip.AddrPortFrom(local4, port)}
		w.arrives(wire.AppendPacket(w.buffer(), &from, seg, nil))
	}
	w.noReset = true // what our kernel would send from reserved ports is not the point
	fin := probe.Segment{Flags: probe.FIN | probe.ACK, Seq: 77, Ack: 4242, Window: 1000}
	w.after(2*time.Hour, func() {
		stray(61200, &fin)
		stray(61000, &fin)
		stray(61201, &probe.Segment{Flags: probe.RST, Seq: 77})
		stray(61201, &probe.Segment{Flags: probe.SYN, Seq: 77})
	})
	w.after(2*time.Hour+10*time.Second, func() {
		for range 100 {
			stray(61202, &fin)
		}
	})
	w.run(3*time.Hour - time.Minute)
	if asked == 0 || len(resets) < 1 || resets[0] != 4242 {
		t.Fatalf("%d SYNs, resets %v", asked, resets)
	}
	if n := len(resets); n != 1+refusedAtOnce {
		t.Errorf("%d resets, want one, and then as many as the ration has", n)
	}
	if n := l.rejects[probe.RejectUnexpected]; n != 104 {
		t.Errorf("%d rejected of 104", n)
	}
}

// Data that a peer sends without end costs no more segments than the limit allows, and
// others nothing: what acknowledges it beyond a conversation's due waits for room.
func TestMoreThanItsDue(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 100} })
	next := make(map[uint16]probe.Seq)
	streaming := func(rtt time.Duration) peerFunc {
		return func(s *sim, p *wire.Packet) {
			f := p.Segment.Flags
			if f == probe.SYN {
				listening(rtt)(s, p)
				return
			}
			if f.Has(probe.RST) || p.DstPort != 1000 {
				return
			}
			if next[p.SrcPort] == 0 {
				next[p.SrcPort] = p.Segment.Ack
			}
			for next[p.SrcPort].Less(p.Segment.Ack.Add(20000)) { // a window of it
				s.reply(p, rtt, &probe.Segment{Flags: probe.ACK, Seq: next[p.SrcPort], Ack: p.Segment.End(), Window: 65535, Len: 1000})
				next[p.SrcPort] = next[p.SrcPort].Add(1000)
			}
		}
	}
	w.peer = streaming(5 * time.Millisecond)
	log := w.logWire()
	noisy, _ := w.target(1, "198.19.0.1:1000", func(t *Target) { passiveClose(t); t.Interval = 10 * time.Second })
	w.add(noisy)
	for i := range 40 {
		x, _ := w.target(uint64(i+2), netip.AddrPortFrom(noisy.Remote.Addr(), uint16(2000+i)).String(), nil)
		w.add(x)
	}
	w.run(30 * time.Second)
	most := log.most(time.Second, packets)
	if most > 100 || most < 90 {
		t.Errorf("%d packets in a second under a limit of 100", most)
	}
	if n := w.skips[SkipRateLimit]; n > 0 {
		t.Errorf("%d of the others' probes made room", n)
	}
}

// lazy answers a SYN, acknowledges our FIN 40 ms late unless it is prompted, and
// closes 250 ms after it.
func lazy(rtt time.Duration) peerFunc {
	fins := make(map[uint16]probe.Seq)
	return func(s *sim, p *wire.Packet) {
		f, end := p.Segment.Flags, p.Segment.End()
		ack := &probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Window: 65535}
		switch {
		case f == probe.SYN:
			listening(rtt)(s, p)
		case f.Has(probe.FIN):
			fins[p.SrcPort] = end
			ack.Ack = end
			s.reply(p, rtt+40*time.Millisecond, ack)
			s.reply(p, rtt+250*time.Millisecond, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: p.Segment.Ack, Ack: end, Window: 65535})
		case fins[p.SrcPort] != 0 && p.Segment.Seq.Less(fins[p.SrcPort].Add(^uint32(0))):
			ack.Ack = fins[p.SrcPort]
			s.reply(p, rtt, ack)
		}
	}
}

// A peer that delays acknowledgements is prompted from the second conversation
// on, and its application's time is what it is; of the first no figure is made.
func TestPrompting(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = lazy(10 * time.Millisecond)
	target, l := w.target(1, "198.19.0.1:443", activeClose)
	var waits, acks []time.Duration
	l.onEach = func(o *probe.Observation) {
		switch o.Kind {
		case probe.CloseWaitTime:
			waits = append(waits, o.Duration)
		case probe.FINACKRTT:
			acks = append(acks, o.Duration)
		}
	}
	w.add(target)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 30 || len(waits) != 29 || len(acks) != 29 {
		t.Errorf("verdicts %v, %d times of CLOSE-WAIT, %d of acknowledgements", l.verdicts, len(waits), len(acks))
	}
	for i := range waits {
		if waits[i].Round(time.Millisecond) != 250*time.Millisecond || acks[i].Round(time.Millisecond) != 10*time.Millisecond {
			t.Fatalf("CLOSE-WAIT of %v after %v", waits[i], acks[i])
		}
	}
}

// A peer that is prompted and resets each other connection, whose RSTs look like what
// prompts call for where there are SYN cookies, is told each time.
func TestResetsAreToldOfPromptedPeers(t *testing.T) {
	const rtt = 10 * time.Millisecond
	w := newWorld(t, nil)
	closing, opened, prompts := lazy(rtt), 0, 0
	w.peer = func(s *sim, p *wire.Packet) {
		f := p.Segment.Flags
		if f == probe.SYN {
			opened++
		}
		switch {
		case opened%2 == 1 || f == probe.SYN:
			closing(s, p)
		case !f.Has(probe.RST):
			if f == probe.ACK {
				prompts++
			}
			s.reply(p, rtt, &probe.Segment{Flags: probe.RST, Seq: p.Segment.Ack})
		}
	}
	target, l := w.target(1, "198.19.0.1:443", func(t *Target) { activeClose(t); t.Params.Timeout = 900 * time.Millisecond })
	w.add(target)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 15 || l.verdicts[probe.Reset] != 15 || prompts != 15*3 {
		t.Errorf("verdicts %v, discards %v, %d ACKs that were reset", l.verdicts, l.discards, prompts)
	}
}

// A settled transcript has all that the conversation measures, and comes at once.
func TestSettledIsComplete(t *testing.T) {
	for name, tt := range map[string]struct {
		kind func(*Target)
		peer peerFunc
		want []probe.ObservationKind
	}{
		"half_open":     {func(*Target) {}, listening(10 * time.Millisecond), []probe.ObservationKind{probe.HandshakeRTT, probe.Reaction, probe.PeerSeen}},
		"active_close":  {activeClose, closes(10 * time.Millisecond), []probe.ObservationKind{probe.HandshakeRTT, probe.Reaction, probe.FINACKRTT, probe.Teardown}},
		"passive_close": {passiveClose, closesFirst(10 * time.Millisecond), []probe.ObservationKind{probe.HandshakeRTT, probe.PeerCloseTime, probe.LastACKRTT, probe.Teardown}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = tt.peer
			x, l := w.target(1, "198.19.0.1:443", tt.kind)
			x.Recorder = l
			l.onSettled = func(tr *probe.Transcript) {
				for _, k := range tt.want {
					if _, ok := tr.Figure(k); !ok {
						t.Errorf("no %v in it", k)
					}
				}
				if took := w.now.Sub(tr.Records()[0].At); took > 100*time.Millisecond {
					t.Errorf("it came after %v", took)
				}
			}
			w.add(x)
			w.run(3 * time.Second)
			if l.handed != 3 {
				t.Errorf("%d transcripts", l.handed)
			}
		})
	}
}

// Where a firewall lets no RST out, connections that failed go on to be reset, for two
// minutes, and do not starve the probes of source ports meanwhile. Those for which there
// is another port are left alone.
func TestNoResetGetsOut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports uint16
		flows int
		again time.Duration // the shortest time until a port comes back
	}{
		{"in turn", 128, 0, 31 * time.Second},
		{"few", 8, 0, 1900 * time.Millisecond},
		{"flows", 128, 16, 3900 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Guarded.Last = c.Guarded.First + tt.ports - 1 })
			w.peer = stays(time.Millisecond)
			w.refuse = func(p *Packet) bool { return probe.Flags(p.Segment[13]).Has(probe.RST) }
			used, soonest := map[uint16]probe.Instant{}, time.Hour
			w.onWire = func(at probe.Instant, p *wire.Packet) {
				if p.Segment.Flags != probe.SYN {
					return
				}
				if was, ok := used[p.SrcPort]; ok {
					soonest = min(soonest, at.Sub(was))
				}
				used[p.SrcPort] = at
			}
			x, l := w.target(1, "198.19.0.1:443", activeClose)
			x.Interval, x.Params.Timeout, x.Flows = 250*time.Millisecond, 240*time.Millisecond, int32(tt.flows)
			w.add(x)
			w.run(300 * time.Second)
			if n := l.verdicts[probe.FINMissing]; n != 1200 || sum(w.skips[:]) != 0 {
				t.Errorf("verdicts %v, discards %v, skipped %v", l.verdicts, l.discards, w.skips)
			}
			if soonest < tt.again || len(used) < int(tt.ports) && tt.flows == 0 {
				t.Errorf("%d ports, one of them again after %v", len(used), soonest)
			}
		})
	}
}

// firstFragment sends the first fragment of a segment, which has so many of its octets.
func (s *sim) firstFragment(p *wire.Packet, answer *probe.Segment, payload, octets int) {
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
	s.send(10*time.Millisecond, wire.AppendIPv4(nil, &wire.IPv4Header{
		Src: p.Dst, Dst: p.Src, Protocol: 6, TTL: 64, ID: 1, MoreFragments: true,
	}, wire.AppendTCP(nil, &tuple, answer, make([]byte, payload))[:octets]))
}

// A path that cuts the peer's segments into fragments shows us the first of each alone. What
// came of the connection nobody knows then: it is no failure of the peer's, and no success.
// What is left open is reset.
func TestFragmentsAreNoVerdict(t *testing.T) {
	data := probe.ACK | probe.PSH
	for name, tt := range map[string]struct {
		kind   func(*Target)
		synAck bool
		flags  probe.Flags
		octets int
	}{
		"data":               {kind: passiveClose, flags: data, octets: 976},
		"data and FIN":       {kind: passiveClose, flags: data | probe.FIN, octets: 976},
		"nothing but header": {kind: passiveClose, flags: data, octets: 20},
		"SYN-ACK, half_open": {kind: func(*Target) {}, synAck: true, octets: 24},
		"SYN-ACK":            {kind: passiveClose, synAck: true, octets: 24},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.peer = func(s *sim, p *wire.Packet) {
				switch {
				case p.Segment.Flags == probe.SYN && tt.synAck:
					s.firstFragment(p, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 7, Ack: p.Segment.End(), Window: 65535}, 100, tt.octets)
				case p.Segment.Flags == probe.SYN:
					listening(10*time.Millisecond)(s, p)
				case p.Segment.Len > 0:
					s.firstFragment(p, &probe.Segment{Flags: tt.flags, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535}, 1400, tt.octets)
				}
			}
			resets := 0
			w.onWire = func(_ probe.Instant, p *wire.Packet) {
				if p.Segment.Flags.Has(probe.FIN) {
					t.Error("a FIN was taken that had not come whole")
				}
				if p.Segment.Flags.Has(probe.RST) {
					resets++
				}
			}
			x, l := w.target(1, "198.19.0.1:443", tt.kind)
			w.add(x)
			w.run(20 * time.Second)
			if n := sum(l.verdicts[:]); n > 0 || l.discards[probe.DiscardTapDrop] < 10 || resets < 10 {
				t.Errorf("verdicts %v, discards %v, %d RSTs", l.verdicts, l.discards, resets)
			}
		})
	}
}

// A fragment that does not have the conversation's numbers is nobody's, as a segment is that
// has not: else whoever forges them could have every probe discarded.
func TestForgedFragments(t *testing.T) {
	for name, forge := range map[string]func(*probe.Segment){
		"acknowledges nothing of ours": func(s *probe.Segment) { s.Ack = s.Ack.Add(1 << 20) },
		"acknowledges nothing":         func(s *probe.Segment) { s.Flags &^= probe.ACK },
		"outside the window":           func(s *probe.Segment) { s.Seq = s.Seq.Add(1 << 30) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			honest := closesFirst(10 * time.Millisecond)
			w.peer = func(s *sim, p *wire.Packet) {
				forged := probe.Segment{Flags: probe.ACK, Seq: p.Segment.Ack, Ack: p.Segment.End(), Window: 65535}
				if p.Segment.Flags == probe.SYN {
					forged = probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 7, Ack: p.Segment.End().Add(1 << 20)}
				} else {
					forge(&forged)
				}
				s.firstFragment(p, &forged, 1400, 976)
				honest(s, p)
			}
			x, l := w.target(1, "198.19.0.1:443", passiveClose)
			w.add(x)
			w.run(20 * time.Second)
			if l.verdicts[probe.OK] != 20 || sum(l.discards[:]) > 0 || sum(l.rejects[:]) < 20 {
				t.Errorf("verdicts %v, discards %v, rejects %v", l.verdicts, l.discards, l.rejects)
			}
		})
	}
}
