package host_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A passage is one copy of a segment on the link.
type passage struct {
	segment  probe.Segment
	outgoing bool
	lost     bool
	arrived  int64 // ns since the epoch: at the link
	departed int64 // and at the other end; 0 if lost
}

// passages reads the link's records of the conversations that began at a, each
// in the order of arrival at the link. Four-tuples come once in a test.
func passages(t *testing.T, l *lab.Link) map[probe.FourTuple][]passage {
	t.Helper()
	all := make(map[probe.FourTuple][]passage)
	for i, records := range [][]lab.Record{l.AtoB.Records(), l.BtoA.Records()} {
		for j := range records {
			p, err := records[j].Packet()
			if err != nil {
				t.Fatal(err)
			}
			src, dst := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
			tuple := probe.FourTuple{Local: src, Remote: dst}
			if i == 1 {
				tuple = probe.FourTuple{Local: dst, Remote: src}
			}
			r := &records[j]
			// The record has the head only: the rest of the length is payload.
			p.Segment.Len = uint32(r.Length - headers(&p.Segment, src.Addr().Is4()))
			all[tuple] = append(all[tuple], passage{p.Segment, i == 0, r.Departed.IsZero(), r.Arrived.Wall, r.Departed.Wall})
		}
	}
	return all
}

// headers is how many octets of a packet are no payload. Options are filled up to
// whole words.
func headers(s *probe.Segment, v4 bool) int {
	n := 40 + 20
	if v4 {
		n = 20 + 20
	}
	return n + (int(s.Options.RawLen)+3)&^3
}

// A judgement is what the link's records say that a conversation must come to.
type judgement struct {
	reason probe.Reason
	drops  int  // packets lost, in both directions
	close  bool // something came so near the deadline that both verdicts are right
	resent bool // what is not acknowledged went more than once, or too late for that
}

// judge reads a conversation's fate off the wire: what had come by the deadline,
// in the order in which it came, and so what was still waited for.
func judge(p probe.Params, all []passage) judgement {
	const margin = int64(25 * time.Millisecond)
	var j judgement
	again := backedOff(all)
	var iss, irs, theirFIN probe.Seq
	var deadline, firstSYNACK int64
	var finEnd probe.Seq
	var fins, requests int
	var sawFIN, sawSYNACK, twice, progress, finAcked, dataAcked bool
	var octets gapless
	for i := range all {
		x := &all[i]
		if x.lost {
			j.drops++
		}
		if !x.outgoing {
			continue
		}
		s := &x.segment
		switch {
		case s.Flags == probe.SYN:
			iss, deadline = s.Seq, x.arrived+int64(p.Timeout)
		case s.Flags.Has(probe.FIN):
			finEnd = s.End()
			if fins++; x.arrived > deadline-again {
				fins++ // no time is left
			}
		case s.Len > 0:
			if requests++; x.arrived > deadline-again {
				requests++
			}
		}
	}
	came := slices.DeleteFunc(slices.Clone(all), func(x passage) bool { return x.outgoing || x.lost })
	slices.SortStableFunc(came, func(x, y passage) int { return int(x.departed - y.departed) })
	closed := func() bool { return sawFIN && octets.reach(irs.Add(1)) == theirFIN }
	for i := range came {
		x := &came[i]
		s := &x.segment
		if d := x.departed - deadline; d > -margin && d < margin {
			j.close = true
		}
		if x.departed > deadline || finAcked && closed() {
			break
		}
		switch {
		case s.Flags.Has(probe.SYN | probe.ACK):
			if sawSYNACK && x.departed-firstSYNACK > int64(500*time.Millisecond) {
				twice = true
			}
			if !sawSYNACK {
				sawSYNACK, firstSYNACK, irs = true, x.departed, s.Seq
			}
			continue
		case s.Flags.Has(probe.RST):
			j.reason = probe.Reset
			return j
		}
		// By a bare ACK of our SYN Linux answers a prompt in SYN-RECEIVED, too.
		progress = progress || s.SegLen() > 0 || s.Ack != iss.Add(1)
		finAcked = finAcked || fins > 0 && s.Ack == finEnd
		dataAcked = dataAcked || iss.Add(1+p.Send).LessEq(s.Ack)
		if s.Len > 0 {
			octets = append(octets, [2]probe.Seq{s.Seq, s.Seq.Add(s.Len)})
		}
		if s.Flags.Has(probe.FIN) {
			sawFIN, theirFIN = true, s.Seq.Add(s.Len)
		}
	}
	j.resent = true
	switch {
	case !sawSYNACK:
		j.reason = probe.Timeout
	case closed() && finAcked:
	case !progress && twice:
		j.reason = probe.AcceptQueueFull // so it looks: our ACKs were lost
	case sawFIN && !closed():
		j.reason = probe.Timeout // what came before the FIN is lost
	case p.Kind == probe.ActiveClose && finAcked:
		j.reason = probe.FINMissing
	case p.Kind == probe.ActiveClose || closed():
		j.reason, j.resent = probe.FINUnacked, fins > 1
	case dataAcked:
		j.reason = probe.PeerNeverClosed
	default:
		j.reason, j.resent = probe.Timeout, requests > 1
	}
	return j
}

// backedOff is the retransmission timer, once backed off, and some: RFC 6298 §2's, of
// the handshake's round trip, which a lost SYN-ACK makes long.
func backedOff(all []passage) int64 {
	var syn, synAck int64
	for i := range all {
		switch x := &all[i]; {
		case x.outgoing && x.segment.Flags == probe.SYN:
			syn = x.arrived
		case !x.outgoing && !x.lost && x.segment.Flags.Has(probe.SYN|probe.ACK) && (synAck == 0 || x.departed < synAck):
			synAck = x.departed
		}
	}
	return max(2*int64(time.Second), 3*(synAck-syn)) + int64(100*time.Millisecond)
}

// gapless are stretches of octets in any order.
type gapless [][2]probe.Seq

// reach is how far there is no gap from a sequence number on.
func (g gapless) reach(from probe.Seq) probe.Seq {
	for moved := true; moved; {
		moved = false
		for _, s := range g {
			if s[0].LessEq(from) && from.Less(s[1]) {
				from, moved = s[1], true
			}
		}
	}
	return from
}

// TestAccuracyOfVerdictsThroughLoss holds five thousand conversations over a path that
// loses, reorders and duplicates one packet in twenty each way. Every verdict is
// the one that the link's own record of what crossed leads to, and nothing is left
// open at the peer.
func TestAccuracyOfVerdictsThroughLoss(t *testing.T) {
	t.Parallel()
	const (
		conversations = 5000
		targetsEach   = 500 // in each family
		timeout       = 4 * time.Second
	)
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	how := lab.Impairment{
		Delay: 10 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.05, Duplicate: 0.05,
		Reorder: 0.05, Hold: 15 * time.Millisecond,
	}
	link := l.Link(a, b, lab.Direction{Impairment: how, Seed: 1}, lab.Direction{Impairment: how, Seed: 2})
	b.AnyIP("198.18.64.0/22", "2001:db8:1::/112")
	b.Serve("tcp", "[::]:80", readAll)
	b.Serve("tcp", "[::]:82", reply)

	active := probe.Params{Kind: probe.ActiveClose, Timeout: timeout}
	asking := probe.Params{Kind: probe.PassiveClose, Timeout: timeout, Send: 100}
	combined := asking
	combined.Combined = true
	kinds := []struct {
		params probe.Params
		port   uint16
	}{{active, 80}, {asking, 82}, {combined, 82}}
	addr4, addr6 := netip.MustParseAddr("198.18.64.1"), netip.MustParseAddr("2001:db8:1::1")
	var targets []*engine.Target
	var diaries []*diary
	for i := range 2 * targetsEach {
		k := kinds[i%len(kinds)]
		addr := &addr4
		if i%2 == 1 {
			addr = &addr6
		}
		d := &diary{}
		x := closing(uint64(i), netip.AddrPortFrom(*addr, k.port), k.params, nil)
		*addr = addr.Next()
		x.Interval, x.Sink, x.Recorder = timeout+time.Second, d, d
		targets, diaries = append(targets, x), append(diaries, d)
	}
	settled := func() int {
		n := 0
		for _, d := range diaries {
			n += d.settled()
		}
		return n
	}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	r.shard.Update(targets, nil)
	await(t, time.Minute, "the conversations", func() bool { return settled() >= conversations })
	r.rest(targets)
	await(t, 30*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	await(t, 40*time.Second, "the peer's end", func() bool { return len(left(b)) == 0 })
	r.end()
	link.AtoB.Settle(5 * time.Second)
	link.BtoA.Settle(5 * time.Second)

	wire := passages(t, link)
	verdicts, near, rejects := make(map[probe.Reason]int), 0, make(map[probe.RejectReason]int)
	shown := 0
	for i, d := range diaries {
		d.order()
		if len(d.transcripts) != len(d.chapters) {
			t.Fatalf("%v: %d transcripts of %d conversations", targets[i].Remote, len(d.transcripts), len(d.chapters))
		}
		for j := range d.chapters {
			tr := &d.transcripts[j]
			got, ok := d.chapters[j].reason()
			spoiled := false // our clock stepped, or our loop was late to read: no verdict of anybody's
			for _, o := range d.chapters[j].observed {
				if o.Kind == probe.Rejected {
					rejects[o.Reject]++
				}
				spoiled = spoiled || o.Kind == probe.Discarded && (o.Discard == probe.DiscardClockStep || o.Discard == probe.DiscardTapDrop)
			}
			verdicts[got]++
			want := judge(targets[i].Params, wire[tr.Tuple])
			if want.close || spoiled {
				near++
				continue
			}
			if ok && got == want.reason && (got == probe.OK || want.drops > 0 && want.resent) {
				continue
			}
			t.Errorf("%v: %v (a verdict: %v), and by the link's record %+v", tr.Tuple, got, ok, want)
			if shown++; shown <= 3 {
				tell(t, tr)
				t.Log(crossed(wire[tr.Tuple]))
			}
		}
	}
	t.Logf("verdicts %v, %d within a hair of the deadline or discarded as ours, rejected %v", verdicts, near, rejects)
	if near > conversations/100 {
		t.Errorf("%d conversations were not judged", near)
	}
}

// crossed is a conversation as the link has it.
func crossed(all []passage) string {
	slices.SortStableFunc(all, func(x, y passage) int { return int(x.arrived - y.arrived) })
	text := ""
	for i := range all {
		x := &all[i]
		way, fate := "<-", "lost"
		if x.outgoing {
			way = "->"
		}
		if !x.lost {
			fate = fmt.Sprint("+", time.Duration(x.departed-x.arrived))
		}
		text += fmt.Sprintf("\n  %v %s %v len %d seq %d ack %d %s", time.Duration(x.arrived-all[0].arrived), way,
			x.segment.Flags, x.segment.Len, x.segment.Seq, x.segment.Ack, fate)
	}
	return text
}
