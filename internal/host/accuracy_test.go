package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// A handshake is one SYN and the SYN-ACK that answers it.
type handshake struct{ syn, synAck probe.Stamp }

// A handshakeID tells the handshakes of a test apart.
type handshakeID struct {
	tuple probe.FourTuple
	iss   probe.Seq
}

// captured reads the handshakes out of a capture: of each, the SYN's stamp and
// the first SYN-ACK's.
func captured(t *testing.T, packets []lab.CapturedPacket) map[handshakeID]handshake {
	t.Helper()
	all := make(map[handshakeID]handshake)
	for i := range packets {
		var p wire.Packet
		if err := wire.Parse(packets[i].Data, &p); err != nil {
			t.Fatalf("captured packet %d: %v", i, err)
		}
		stamp := probe.Stamp{Wall: packets[i].Wall, Clock: 1}
		src, dst := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
		switch p.Segment.Flags & (probe.SYN | probe.ACK) {
		case probe.SYN:
			id := handshakeID{probe.FourTuple{Local: src, Remote: dst}, p.Segment.Seq}
			all[id] = handshake{syn: stamp}
		case probe.SYN | probe.ACK:
			id := handshakeID{probe.FourTuple{Local: dst, Remote: src}, p.Segment.Ack - 1}
			if h := all[id]; h.synAck.Wall == 0 {
				h.synAck = stamp
				all[id] = h
			}
		}
	}
	return all
}

// measured reads the handshakes out of transcripts.
func measured(transcripts []probe.Transcript) map[handshakeID]handshake {
	all := make(map[handshakeID]handshake)
	for i := range transcripts {
		tr := &transcripts[i]
		var id handshakeID
		var h handshake
		for _, r := range tr.Records() {
			switch r.Note {
			case probe.NoteSYNSent:
				id = handshakeID{tr.Tuple, r.Event.Segment.Seq}
				h.syn = r.Event.Stamp
			case probe.NoteSYNACK:
				h.synAck = r.Event.Stamp
			}
		}
		all[id] = h
	}
	return all
}

// compare holds the measured round-trip times against the captured ones.
func compare(t *testing.T, ours, theirs map[handshakeID]handshake, medianBound, p99Bound time.Duration) {
	t.Helper()
	var errs []time.Duration
	kernel := 0
	for id, h := range ours {
		c, ok := theirs[id]
		if !ok {
			t.Fatalf("%v is not in the capture", id)
		}
		if h.syn.Wall != c.syn.Wall {
			t.Errorf("%v: SYN stamped %d, in the capture %d", id.tuple, h.syn.Wall, c.syn.Wall)
		}
		rtt, ok := h.synAck.Sub(h.syn)
		if !ok {
			t.Errorf("%v: the stamps are not on one clock", id.tuple)
		}
		truth, _ := c.synAck.Sub(c.syn)
		if h.synAck.Kernel {
			kernel++
			if rtt != truth {
				t.Errorf("%v: the kernel stamped both, and %v is not %v", id.tuple, rtt, truth)
			}
		}
		errs = append(errs, rtt-truth)
	}
	slices.Sort(errs)
	median := errs[len(errs)/2]
	slices.SortFunc(errs, func(a, b time.Duration) int { return int(a.Abs() - b.Abs()) })
	p99 := errs[len(errs)*99/100].Abs()
	t.Logf("%d handshakes: median bias %v, p99 of the error %v, largest %v, %d SYN-ACKs stamped by the kernel",
		len(errs), median, p99, errs[len(errs)-1].Abs(), kernel)
	if median.Abs() > medianBound {
		t.Errorf("median bias %v, allowed %v", median, medianBound)
	}
	if p99 > p99Bound {
		t.Errorf("p99 of the error %v, allowed %v", p99, p99Bound)
	}
}

// TestAccuracy compares a thousand round-trip times a family with a nanosecond
// capture taken beside them, on an idle machine and on one whose cores are all
// busy.
func TestAccuracy(t *testing.T) {
	const perFamily = 1000
	for _, tt := range []struct {
		name        string
		busy        int
		median, p99 time.Duration
	}{
		{"idle", 0, 500 * time.Nanosecond, time.Microsecond},
		{"both cores busy", 2, time.Microsecond, 2 * time.Microsecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := lab.Pair(t)
			b.AnyIP("198.18.64.0/24", "2001:db8:1::/112")
			b.Listen("tcp4", "0.0.0.0:80")
			b.Listen("tcp6", "[::]:80")
			ledgers := []*ledger{newLedger(), newLedger()}
			var targets []*engine.Target
			for i := range 20 {
				for family, text := range []string{fmt.Sprintf("198.18.64.%d:80", i+1), fmt.Sprintf("[2001:db8:1::%x]:80", i+1)} {
					targets = append(targets, target(uint64(2*i+family), netip.MustParseAddrPort(text),
						100*time.Millisecond, time.Second, ledgers[family]))
				}
			}
			for range tt.busy {
				spin := a.Command(context.Background(), "sh", "-c", "while :; do :; done")
				if err := spin.Start(); err != nil {
					t.Fatal(err)
				}
			}
			capture := a.Capture(t, a.Iface(), "tcp")
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			r.shard.Update(targets, nil)
			await(t, 30*time.Second, "all handshakes", func() bool {
				return ledgers[0].settled() >= perFamily && ledgers[1].settled() >= perFamily
			})
			r.end()
			theirs := captured(t, capture.Packets())
			for family, l := range ledgers {
				if l.verdicts[probe.OK] != l.settled() {
					t.Errorf("family %d: verdicts %v, discards %v", family, l.verdicts, l.discards)
				}
				compare(t, measured(l.transcripts), theirs, tt.median, tt.p99)
			}
		})
	}
}
