package engine

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// behind a router whose next link takes packets of so many octets is a peer that closes when it
// has had all that it is sent. The router says so of a packet no sooner than every so often, and
// quotes its sequence number, off by so many.
func behind(mtu uint32, every time.Duration, off uint32) peerFunc {
	const rtt = 10 * time.Millisecond
	next, tells := make(map[addrPort]probe.Seq), probe.Instant(0)
	return func(s *sim, p *wire.Packet) {
		seg, us, peer := p.Segment, netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
		headers := uint32(20 + 20)
		if p.Src.Is6() {
			headers = 40 + 20
		}
		switch {
		case seg.Flags == probe.SYN:
			next[us] = seg.End()
			s.reply(p, rtt, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: isn(p), Ack: seg.End(), Window: 65535,
				Options: probe.Options{Set: probe.OptMSS, MSS: 1460}})
		case headers+seg.Len > mtu && s.now >= tells:
			tells = s.now.Add(every)
			seg.Seq = seg.Seq.Add(off)
			quoted := wire.AppendPacket(nil, &probe.FourTuple{Local: us, Remote: peer}, &seg, nil)
			s.send(rtt/2, routerSays(p.Src, quoted, [2]byte{3, 4}, [2]byte{2, 0}))
		case headers+seg.Len > mtu:
		case seg.SegLen() > 0 && !seg.Flags.Has(probe.RST):
			answer := probe.Segment{Flags: probe.ACK, Seq: seg.Ack, Window: 65535}
			if seg.Seq == next[us] {
				if next[us] = seg.End(); seg.Flags.Has(probe.PSH) {
					answer.Flags |= probe.FIN
				}
			}
			answer.Ack = next[us]
			s.reply(p, rtt, &answer)
		}
	}
}

// talks sends so much that it takes several segments.
func talks(t *Target) {
	passiveClose(t)
	t.Send = strings.Repeat("x", 3000)
	t.Params.Send, t.Params.Timeout, t.Params.IPv6 = uint32(len(t.Send)), 2*time.Second, t.Remote.Addr().Is6()
}

// A router that rations its ICMP errors says of few packets that the path is narrow: what one
// conversation was told the others with that address know for ten minutes.
func TestNarrowPathIsKnown(t *testing.T) {
	t.Parallel()
	const targets = 20
	for _, of := range []string{"198.19.0.1", "2001:db8:1::1"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Guarded = Ports{61128, 65535} })
			w.peer = behind(1280, 2*time.Second, 0)
			for i := range uint16(targets) {
				x, _ := w.target(uint64(i), netip.AddrPortFrom(netip.MustParseAddr(of), 1000+i).String(), talks)
				w.add(x)
			}
			began, tried := w.now, make(map[time.Duration]int) // larger segments, by the ten seconds
			w.onWire = func(at probe.Instant, p *wire.Packet) {
				if p.Segment.Len > 1220 {
					tried[at.Sub(began).Truncate(10*time.Second)]++
				}
			}
			w.run(narrowFor + 20*time.Second)
			if all := w.total(); all.verdicts[probe.OK] != targets*620 || all.settled() != targets*620 {
				t.Errorf("verdicts %v, discards %v", all.verdicts, all.discards)
			}
			// Two targets come up within a round trip. The second hears of it when it sends again.
			// Later one tries for all.
			if len(tried) != 2 || tried[0] != 4 || tried[narrowFor] != 2 {
				t.Errorf("segments that are too large, by ten seconds: %v", tried)
			}
		})
	}
}

// Larger segments are tried again by one conversation, and the others wait for what becomes of it:
// with the usual timeout of 900 ms they have no time to send again. Once it has come through, all do.
func TestNarrowPathIsTriedByOne(t *testing.T) {
	t.Parallel()
	const targets = 100
	for _, of := range []string{"198.19.0.1", "2001:db8:1::1"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Guarded = Ports{61128, 65535} })
			paths := map[bool]peerFunc{true: behind(1280, 100*time.Millisecond, 0), false: behind(9000, 0, 0)}
			narrow := true
			var all []*Target
			for i := range uint16(targets) {
				x, _ := w.target(uint64(i)*7919, netip.AddrPortFrom(netip.MustParseAddr(of), 1000+i).String(), talks)
				x.Params.Timeout = 900 * time.Millisecond
				all = append(all, x)
			}
			w.churn = true
			w.add(all[0]) // and the others when it matters
			for i := range 4 {
				at := time.Duration(i) * narrowFor
				w.after(max(at-5*time.Second, 0), func() { w.add(all[1:]...) })
				w.after(at+30*time.Second, func() { w.shard.Update(nil, all[1:]) })
			}
			w.peer = func(s *sim, p *wire.Packet) { paths[narrow](s, p) }
			began, tried := w.now, make(map[time.Duration]int) // larger segments, by the ten minutes
			w.onWire = func(at probe.Instant, p *wire.Packet) {
				if p.Segment.Len > 1220 {
					tried[at.Sub(began).Truncate(narrowFor)]++
				}
			}
			failures := func() int {
				all := w.total()
				return sum(all.verdicts[:]) - all.verdicts[probe.OK]
			}
			failed, most := 0, 0
			w.after(time.Minute, func() { failed = failures() })
			w.after(2*narrowFor+time.Minute, func() { most, narrow = failures(), false })
			w.run(3*narrowFor + time.Minute)
			if most != failed || failed > targets/4 {
				t.Errorf("%d fail, %d of them in the first minute", most, failed)
			}
			if all := w.total(); failures() != most || all.verdicts[probe.OK] < 4*30*targets {
				t.Errorf("verdicts %v, discards %v", all.verdicts, all.discards)
			}
			if tried[narrowFor] != 2 || tried[2*narrowFor] != 2 || tried[3*narrowFor] < 2*29*targets {
				t.Errorf("segments that are too large, by ten minutes: %v", tried)
			}
		})
	}
}

// What quotes no segment in flight says nothing of the path, and what is said of the path to one
// address is said of no other.
func TestNarrowPathIsBelieved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		off       uint32
		large, ok int // segments to the narrow path, and verdicts, in ten seconds
	}{{"exact", 0, 2, 10}, {"the octet after", 1, 30, 0}, {"the octet before", 1<<32 - 1, 30, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			a, la := w.target(1, "198.19.0.1:443", talks)
			b, lb := w.target(2, "198.19.0.2:443", talks)
			paths := map[addr]peerFunc{a.Remote.Addr(): behind(1280, 0, tt.off), b.Remote.Addr(): behind(1500, 0, 0)}
			w.peer = func(s *sim, p *wire.Packet) { paths[p.Dst](s, p) }
			w.add(a, b)
			large := make(map[addr]int)
			w.onWire = func(_ probe.Instant, p *wire.Packet) {
				if p.Segment.Len == 1460 {
					large[p.Dst]++
				}
			}
			w.run(10 * time.Second)
			if n := large[a.Remote.Addr()]; n != tt.large || la.verdicts[probe.OK] != tt.ok {
				t.Errorf("the narrow path: %d large segments, verdicts %v", n, la.verdicts)
			}
			if n := large[b.Remote.Addr()]; n != 20 || lb.verdicts[probe.OK] != 10 {
				t.Errorf("the other: %d large segments, verdicts %v", n, lb.verdicts)
			}
		})
	}
}
