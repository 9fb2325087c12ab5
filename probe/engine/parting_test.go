package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A quietPeer is one whose application closes when we have, and says nothing before: in
// ESTABLISHED it is silent for ever, and goes only by our FIN or a RST at its RCV.NXT.
type quietPeer struct {
	held map[[2]netip.AddrPort]opened
	cut  bool // what we send is lost on the way
}

type opened struct {
	next  probe.Seq // RCV.NXT
	since probe.Instant
}

func (q *quietPeer) answer(s *sim, p *wire.Packet) {
	if q.cut {
		return
	}
	from, seg := [2]netip.AddrPort{netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)}, &p.Segment
	o, holds := q.held[from]
	switch {
	case seg.Flags == probe.SYN && !holds:
		q.held[from] = opened{seg.Seq.Add(1), s.now}
		listening(10*time.Millisecond)(s, p)
	case seg.Flags == probe.SYN:
		s.reply(p, 10*time.Millisecond, &probe.Segment{Flags: probe.ACK, Seq: 7, Ack: o.next, Window: 65535})
	case seg.Flags.Has(probe.RST) && seg.Seq == o.next:
		delete(q.held, from)
	case seg.Flags.Has(probe.FIN) && seg.Seq == o.next:
		delete(q.held, from)
		closes(10*time.Millisecond)(s, p)
	}
}

// A path that takes what we send for some seconds, the RSTs too, leaves no peer with a
// connection that it would keep for ever: they go again once more, and later.
func TestPathBroken(t *testing.T) {
	for _, lasts := range []time.Duration{time.Second, 2500 * time.Millisecond, 5 * time.Second} {
		w := newWorld(t, nil)
		peer := &quietPeer{held: make(map[[2]netip.AddrPort]opened)}
		w.peer = peer.answer
		var ledgers []*ledger
		for i := range 20 {
			x, l := w.target(uint64(i), remote(i).String(), func(x *Target) {
				activeClose(x)
				x.Interval, x.Params.Timeout = 190*time.Millisecond, 500*time.Millisecond
			})
			x.Recorder = l
			w.add(x)
			ledgers = append(ledgers, l)
		}
		w.after(5*time.Second, func() { peer.cut = true })
		w.after(5*time.Second+lasts, func() { peer.cut = false })
		left := 0 // before the four-tuples come round
		w.after(20*time.Second, func() {
			for _, o := range peer.held {
				if w.now.Sub(o.since) > time.Second {
					left++
				}
			}
		})
		w.run(21 * time.Second)
		unacked := 0
		for _, l := range ledgers {
			unacked += l.verdicts[probe.FINUnacked]
		}
		if left != 0 || unacked == 0 {
			t.Errorf("a path broken for %v: peers hold %d, %d FINs unacknowledged", lasts, left, unacked)
		}
	}
}

// What goes again to peers that are silent makes no transcripts: there would be one of each
// conversation for nine seconds, and no more to be seen in it.
func TestInsistingKeepsNoTranscript(t *testing.T) {
	w := newWorld(t, nil)
	w.peer = listening(10 * time.Millisecond)
	const targets = 200
	for i := range targets {
		x, l := w.target(uint64(i), remote(i).String(), func(x *Target) {
			activeClose(x)
			x.Interval, x.Params.Timeout = 2*time.Second, 900*time.Millisecond
		})
		x.Recorder = l
		w.add(x)
	}
	insisting, most := 0, 0
	for i := range 10 {
		w.after(time.Duration(10+i)*time.Second, func() {
			for j := range w.shard.table.len() {
				if sl := w.shard.table.slot(j); sl.target != free && w.shard.table.insists(sl) {
					insisting++
				}
			}
			most = max(most, w.shard.table.transcripts.used())
		})
	}
	again := 0
	w.after(20*time.Second, func() {
		for _, l := range w.ledgers {
			again += l.records
		}
	})
	w.run(21 * time.Second)
	if insisting < 10*targets || most > targets || again > 0 {
		t.Errorf("%d transcripts of %d targets, %d handed over again; %d conversations insist: nothing is shown if they are few", most, targets, again, insisting/10)
	}
}
