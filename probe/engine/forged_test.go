package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// forge is a segment from a target to a port of ours.
func forge(from netip.AddrPort, port uint16, s *probe.Segment) []byte {
	tuple := probe.FourTuple{Local: from, Remote: netip.AddrPortFrom(local4, port)}
	return wire.AppendPacket(nil, &tuple, s, make([]byte, s.Len))
}

// A flood of what would be answered takes no room from probes, neither of an address
// nor of all, and is a ration's worth of RSTs.
func TestFloodsStarveNobody(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 1000, PerAddress: 20} })
	w.peer = closes(10 * time.Millisecond)
	ts := make([]*Target, 50)
	for i := range ts {
		ts[i], _ = w.target(uint64(i+1), remote(i*10).String(), activeClose)
	}
	w.add(ts...)
	const forged = 100_000
	expected := 0
	for i := range forged {
		w.after(2*time.Second+time.Duration(i)*200*time.Microsecond, func() {
			x := ts[i%len(ts)]
			port := uint16(61128 + i/len(ts)%128)
			w.arrives(forge(x.Remote, port, &probe.Segment{Flags: probe.ACK, Seq: probe.Seq(w.rng.Uint32()), Ack: probe.Seq(w.rng.Uint32()), Window: 1000, TTL: 60}))
			expected++
		})
	}
	resets := w.leaving(probe.RST)
	w.run(25 * time.Second)
	if all := w.total(); all.verdicts[probe.OK] != 50*25 || sum(all.verdicts[:]) != 50*25 || sum(w.skips[:]) != 0 {
		t.Errorf("verdicts %v, skipped %v", all.verdicts, w.skips)
	}
	rejected := 0
	for _, l := range w.ledgers {
		rejected += sum(l.rejects[:])
	}
	if rejected != expected || rejected != forged {
		t.Errorf("%d rejected of %d", rejected, expected)
	}
	// 1 % of the limit, and what may go at once.
	if n := resets(); n == 0 || n > 20*10+refusalsAtOnce {
		t.Errorf("%d RSTs in answer", n)
	}
}

// Nor do challenges on connections that wait for their peers for long, by who knows no number: they
// are answered by the same ration, and no figure is missing for that.
func TestForgedChallenges(t *testing.T) {
	t.Parallel()
	figures := func(forged bool) (closes, probes, acks int) {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
		w.churn = true
		w.peer = listening(time.Millisecond)
		for i := range 110 {
			x, l := w.target(uint64(i), fmt.Sprintf("198.19.0.1:%d", 1000+i), passiveClose)
			x.Params.Timeout, x.Interval = time.Minute, 30*time.Second
			w.peers[x.Remote] = closesEvery(25 * time.Second)
			l.onEach = func(o *probe.Observation) {
				if o.Kind == probe.PeerCloseTime {
					closes++
				}
			}
			w.add(x)
			for at := 2 * time.Second; forged && at < 85*time.Second; at += 500 * time.Millisecond {
				w.after(at, func() {
					for port := w.shard.cfg.Guarded.First; port <= w.shard.cfg.Guarded.Last; port++ {
						w.arrives(forge(x.Remote, port, &probe.Segment{Flags: probe.ACK, Seq: probe.Seq(w.rng.Uint32()), Ack: probe.Seq(w.rng.Uint32()), Window: 1000, TTL: 60}))
					}
				})
			}
		}
		var beside []*ledger
		for i := range 45 {
			x, l := w.target(uint64(1000+i), fmt.Sprintf("198.19.0.1:%d", 2000+i), nil)
			beside = append(beside, l)
			w.add(x)
		}
		count := w.leaving(probe.ACK)
		w.run(90 * time.Second)
		for _, l := range beside {
			probes += l.verdicts[probe.OK]
		}
		return closes, probes, count()
	}
	closes, probes, acks := figures(false)
	if c, p, a := figures(true); closes < 200 || c < closes*95/100 || p < probes*99/100 || a > acks+200 {
		t.Errorf("%d figures, %d probes and %d ACKs, without forgeries %d, %d and %d", c, p, a, closes, probes, acks)
	}
}

// What cannot be read is nobody's answer: it is booked with whom it names, and gets none.
func TestDamaged(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = silent
	guarded, l := w.target(1, "198.19.0.1:443", activeClose)
	w.add(guarded)
	resets := w.leaving(probe.RST)
	ack := forge(guarded.Remote, 61200, &probe.Segment{Flags: probe.ACK, Seq: 1, Ack: 2, TTL: 60})
	bad := append([]byte(nil), ack...)
	bad[36] ^= 0x55
	offset, beyond := append([]byte(nil), ack...), append([]byte(nil), ack...)
	offset[32] = 0x40 // a header of 16 octets
	beyond[32] = 0xf0 // and one that is longer than the segment
	stub := append([]byte(nil), ack[:28]...)
	stub[3] = 28 // 8 octets of TCP
	syn := wire.AppendPacket(nil, &probe.FourTuple{Local: netip.AddrPortFrom(local4, 61000), Remote: guarded.Remote}, &probe.Segment{Flags: probe.SYN}, nil)
	short := icmpError(local4, syn[:20+4])
	w.after(10*time.Second, func() {
		for _, b := range [][]byte{bad, offset, beyond, stub, short} {
			w.arrives(b)
		}
	})
	w.run(12 * time.Second)
	want := [probe.NumRejectReasons]int{probe.RejectBadChecksum: 1, probe.RejectMalformed: 3, probe.RejectBadQuote: 1}
	if l.rejects != want {
		t.Errorf("rejected %v, want %v", l.rejects, want)
	}
	if n := resets(); n != 0 {
		t.Errorf("%d RSTs in answer to what cannot be read", n)
	}
}

// Forged data and SYNs neither hold a four-tuple that is over nor make us speak.
func TestForgeriesHoldNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = closes(10 * time.Millisecond)
	x, l := w.target(1, "198.19.0.1:443", activeClose)
	x.Recorder = l
	w.add(x)
	const forged = 5_000
	for i := range forged {
		w.after(5*time.Second+time.Duration(i)*4*time.Millisecond, func() {
			s := &probe.Segment{Flags: probe.ACK | probe.PSH, Seq: probe.Seq(w.rng.Uint32()), Ack: probe.Seq(w.rng.Uint32()), Len: 100, Window: 1000, TTL: 60}
			if i%2 == 1 {
				s = &probe.Segment{Flags: probe.SYN, Seq: probe.Seq(w.rng.Uint32()), Window: 1000, TTL: 60}
			}
			for port := range uint16(40) { // those of the last probes
				w.arrives(forge(x.Remote, 61128+port*3, s))
			}
		})
	}
	most := 0
	for i := range 20 {
		w.after(time.Duration(i+5)*time.Second, func() { most = max(most, w.shard.table.index.n) })
	}
	acks := w.leaving(probe.ACK)
	w.run(26 * time.Second)
	if l.verdicts[probe.OK] != 26 {
		t.Errorf("verdicts %v", l.verdicts)
	}
	if most > 5 { // an interval of 1 s, a linger of some
		t.Errorf("%d four-tuples held", most)
	}
	if l.records != 0 {
		t.Errorf("%d transcripts of what nobody believes", l.records)
	}
	t.Logf("%d four-tuples held, %d ACKs left", most, acks())
	if n := acks(); n > 26*3+8 {
		t.Errorf("%d ACKs left", n)
	}
}

// Our kernel resets what is forged to a reserved port. Those RSTs make no transcripts of
// the four-tuples that linger, nor do they push conversations out of theirs.
func TestForgeriesThatOurKernelResets(t *testing.T) {
	w := newWorld(t, nil)
	type syn struct {
		seq probe.Seq
		at  probe.Instant
	}
	syns := make(map[uint16]syn)
	w.peer = func(s *sim, p *wire.Packet) {
		if p.Segment.Flags == probe.SYN {
			syns[p.SrcPort] = syn{p.Segment.Seq, s.now}
		}
		listening(200*time.Millisecond)(s, p)
	}
	x, l := w.target(1, "198.19.0.1:443", nil)
	x.Recorder = l
	longest := 0
	l.onSettled = func(tr *probe.Transcript) { longest = max(longest, len(tr.Records())) }
	w.add(x)
	for i := range 2_000 {
		w.after(5*time.Second+time.Duration(i)*10*time.Millisecond, func() {
			for port := range uint16(128) {
				w.arrives(forge(x.Remote, 61000+port, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: probe.Seq(w.rng.Uint32()), Window: 1000, TTL: 60}))
			}
			for port, syn := range syns { // by who sees them, after the true answer
				if w.now.Sub(syn.at) > 300*time.Millisecond {
					w.arrives(forge(x.Remote, port, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 4711, Ack: syn.seq.Add(1), Window: 1000, TTL: 60}))
				}
			}
		})
	}
	w.run(26 * time.Second)
	if l.verdicts[probe.OK] != 26 {
		t.Errorf("verdicts %v", l.verdicts)
	}
	if l.records != 0 {
		t.Errorf("%d transcripts of our kernel's answers to what nobody believes", l.records)
	}
	if most := 5 + 2*probe.MaxDisbelieved; longest <= probe.MaxDisbelieved || longest > most {
		t.Errorf("a transcript has %d records, %d at most", longest, most)
	}
}

// After a crash each of many services of one address may hold a connection of before:
// those that tell are reset at the first SYN-ACK that they send again.
func TestCrash(t *testing.T) {
	const services = 60
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	reset := map[uint16]bool{}
	w.onWire = func(_ probe.Instant, p *wire.Packet) {
		if p.Segment.Flags == probe.RST {
			reset[p.DstPort] = true
		}
	}
	for i := range services {
		remote := netip.AddrPortFrom(netip.MustParseAddr("198.19.0.1"), uint16(1000+i))
		x, _ := w.target(uint64(i), remote.String(), func(t *Target) { activeClose(t); t.Interval = time.Hour })
		w.add(x)
		w.after(time.Second+time.Duration(i)*time.Millisecond, func() {
			w.arrives(forge(remote, 61200, &probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 7, Ack: 77, TTL: 60}))
		})
	}
	w.run(2 * time.Second)
	if len(reset) != services {
		t.Errorf("%d of %d are reset", len(reset), services)
	}
}
