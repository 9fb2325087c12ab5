package host_test

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// crossing is what the link did to one handshake.
type crossing struct {
	lost         bool
	syn, answers time.Duration // when the link had the SYN; when we had the SYN-ACK
}

// crossings reads the link's own records of the handshakes that began at a.
func crossings(t *testing.T, l *lab.Link) map[handshakeID]*crossing {
	t.Helper()
	all := make(map[handshakeID]*crossing)
	for _, r := range l.AtoB.Records() {
		p, err := r.Packet()
		if err != nil {
			t.Fatal(err)
		}
		if p.Segment.Flags == probe.SYN {
			id := handshakeID{probe.FourTuple{
				Local:  netip.AddrPortFrom(p.Src, p.SrcPort),
				Remote: netip.AddrPortFrom(p.Dst, p.DstPort),
			}, p.Segment.Seq}
			all[id] = &crossing{lost: r.Departed.IsZero(), syn: time.Duration(r.Arrived.Wall)}
		}
	}
	for _, r := range l.BtoA.Records() {
		p, err := r.Packet()
		if err != nil {
			t.Fatal(err)
		}
		id := handshakeID{probe.FourTuple{
			Local:  netip.AddrPortFrom(p.Dst, p.DstPort),
			Remote: netip.AddrPortFrom(p.Src, p.SrcPort),
		}, p.Segment.Ack - 1}
		// The first SYN-ACK decides: the peer's retransmission comes after our
		// timeout.
		if c := all[id]; c != nil && !c.lost && c.answers == 0 && p.Segment.Flags.Has(probe.SYN|probe.ACK) {
			c.lost, c.answers = r.Departed.IsZero(), time.Duration(r.Departed.Wall)
			if c.lost {
				c.answers = -1
			}
		}
	}
	return all
}

// TestLoss measures a path of 20 ms and 10 % loss each way and holds what comes
// out against what the link did.
func TestLoss(t *testing.T) {
	t.Parallel()
	const probes, loss = 2000, 0.1
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	how := lab.Impairment{Delay: 20 * time.Millisecond, Loss: loss}
	link := l.Link(a, b, lab.Direction{Impairment: how, Seed: 1}, lab.Direction{Impairment: how, Seed: 2})
	b.AnyIP("198.18.64.0/24", "2001:db8:1::/112")
	b.Listen("tcp4", "0.0.0.0:80")
	b.Listen("tcp6", "[::]:80")

	books := newLedger()
	var targets []*engine.Target
	for i := range 20 {
		text := fmt.Sprintf("198.18.64.%d:80", i+1)
		if i%2 == 1 {
			text = fmt.Sprintf("[2001:db8:1::%x]:80", i+1)
		}
		targets = append(targets, target(uint64(i), netip.MustParseAddrPort(text), 100*time.Millisecond, 900*time.Millisecond, books))
	}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	r.shard.Update(targets, nil)
	await(t, time.Minute, "the probes", func() bool { return books.settled() >= probes })
	r.end()
	link.BtoA.Settle(5 * time.Second)
	truth := crossings(t, link)

	n := books.settled() - books.discards[probe.DiscardShutdown]
	failed := books.verdicts[probe.Timeout]
	if books.verdicts[probe.OK]+failed != n {
		t.Errorf("verdicts %v, discards %v: only ok, timeout and shutdown can be", books.verdicts, books.discards)
	}
	expected := 1 - (1-loss)*(1-loss)
	bound := 5 * math.Sqrt(expected*(1-expected)/float64(n))
	if got := float64(failed) / float64(n); math.Abs(got-expected) > bound {
		t.Errorf("loss %.4f over %d probes, expected %.4f ± %.4f", got, n, expected, bound)
	}

	var theirs []time.Duration
	for i := range books.transcripts {
		tr := &books.transcripts[i]
		records := tr.Records()
		id := handshakeID{tr.Tuple, records[0].Event.Segment.Seq}
		c := truth[id]
		if c == nil {
			t.Fatalf("%v: the link never saw its SYN", tr.Tuple)
		}
		switch {
		case slices.ContainsFunc(records, func(r probe.Record) bool { return r.Note == probe.NoteSYNACK }):
			if c.lost {
				t.Errorf("%v: answered, and the link lost it", tr.Tuple)
			}
			theirs = append(theirs, c.answers-c.syn)
		case slices.ContainsFunc(records, func(r probe.Record) bool { return r.Note == probe.NoteTimeout }):
			if !c.lost {
				t.Errorf("%v: timed out, and the link lost nothing of it", tr.Tuple)
			}
		}
	}
	slices.Sort(theirs)
	slices.Sort(books.rtts)
	ours, record := books.rtts[len(books.rtts)/2], theirs[len(theirs)/2]
	t.Logf("%d probes: loss %.2f %% (expected %.2f ± %.2f), p50 %v, on the link's record %v",
		n, 100*float64(failed)/float64(n), 100*expected, 100*bound, ours, record)
	if diff := (ours - record).Abs(); diff > record/100 {
		t.Errorf("p50 %v, on the link's record %v: more than 1 %% apart", ours, record)
	}
}
