package host_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// The addresses of an lwIP peer.
const lwip4, lwip6 = "198.18.65.1", "2001:db8:2::1"

// lwipRun probes an lwIP peer at both addresses, for n verdicts, and lets what is
// open end.
func lwipRun(t *testing.T, port uint16, sink engine.Sink, books *ledger, p probe.Params, n int) {
	t.Helper()
	a := lab.NewHost(t, "a")
	l := lab.LWIPPeer(t, a, lwip4, lwip6)
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	var targets []*engine.Target
	for i, addr := range []string{lwip4, lwip6} {
		x := closing(uint64(i), netip.AddrPortFrom(netip.MustParseAddr(addr), port), p, books)
		x.Interval, x.Sink = 20*time.Millisecond, sink
		targets = append(targets, x)
	}
	r.shard.Update(targets, nil)
	await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= n })
	r.shard.Update(nil, targets)
	await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	time.Sleep(20 * time.Millisecond) // for the peer
	open := slices.DeleteFunc(l.Sockets(), func(s lab.Socket) bool { return s.State == "TIME_WAIT" })
	if len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}
	r.end()
	if t.Failed() {
		tell(t, &books.transcripts[0])
	}
}

// TestLWIPCloses probes a peer whose TCP is lwIP's.
func TestLWIPCloses(t *testing.T) {
	active := probe.Params{Kind: probe.ActiveClose, Timeout: 1500 * time.Millisecond}
	sending := active
	sending.Send = 100
	asking := probe.Params{Kind: probe.PassiveClose, Timeout: 1500 * time.Millisecond, Send: 100}
	combined := asking
	combined.Combined = true
	for _, tt := range []struct {
		what   string
		params probe.Params
		port   uint16
		want   probe.Reason
		form   probe.Form
	}{
		{"closes at once", active, lab.LWIPCloses, probe.OK, probe.ThreeWay},
		{"reads what is sent", sending, lab.LWIPCloses, probe.OK, probe.ThreeWay},
		{"answers and closes", asking, lab.LWIPAnswers, probe.OK, probe.FourWay},
		{"answers and closes, combined", combined, lab.LWIPAnswers, probe.OK, probe.ThreeWay},
		{"never closes first", asking, lab.LWIPCloses, probe.PeerNeverClosed, probe.NoForm},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			books := &seen{ledger: newLedger(), forms: make(map[probe.Form]int)}
			lwipRun(t, tt.port, books, books.ledger, tt.params, 40)
			n := books.settled()
			if books.verdicts[tt.want] != n || len(books.rejects) > 0 {
				t.Errorf("of %d: verdicts %v, discards %v, rejects %v, want %v", n, books.verdicts, books.discards, books.rejects, tt.want)
			}
			if tt.want == probe.OK && books.forms[tt.form] != n || tt.want != probe.OK && len(books.forms) > 0 {
				t.Errorf("of %d: forms %v, want %v", n, books.forms, tt.form)
			}
		})
	}
}

// reusedAt reads out of a transcript how far beyond the peer's RCV.NXT the SYN was
// that used the four-tuple again, below 0 before it, and whether a RST refused it.
func reusedAt(tr *probe.Transcript) (distance int32, refused bool) {
	var next, syn probe.Seq
	for _, r := range tr.Records() {
		s := &r.Event.Segment
		switch {
		case r.Note == probe.NoteReuseRefused:
			refused = true
		case r.Event.Kind == probe.SegmentSent && s.Flags.Has(probe.FIN):
			next = s.End()
		case r.Event.Kind == probe.SegmentSent && s.Flags.Has(probe.SYN):
			syn = s.Seq
		}
	}
	return int32(syn - next), refused
}

// TestLWIPTimeWaitReuse uses a four-tuple again that an lwIP peer has in TIME-WAIT:
// it takes no SYN, refuses one in its window (tcp_timewait_input of its tcp_in.c)
// and acknowledges any other.
func TestLWIPTimeWaitReuse(t *testing.T) {
	const window = 0xffff // TCP_WND of the package's lwipopts.h
	for _, tt := range []struct {
		what  string
		after time.Duration // by which our ISS, 250 a millisecond, is beyond
		lower bool
		want  probe.Answer // but for a SYN that the machine let go later
	}{
		{"higher, in the window", 10 * time.Millisecond, false, probe.AnswerReset},
		{"higher, beyond the window", time.Second, false, probe.AnswerChallengeACK},
		{"lower", 10 * time.Millisecond, true, probe.AnswerChallengeACK},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			books := &answers{ledger: newLedger(), each: make(map[probe.Answer]int)}
			lwipRun(t, lab.LWIPAnswers, books, books.ledger, probe.Params{
				Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: 400 * time.Millisecond,
				After: tt.after, Send: 100, Lower: tt.lower,
			}, 40)
			n := books.settled()
			if books.verdicts[probe.OK] != n || len(books.rejects) > 0 || len(books.transcripts) != n {
				t.Errorf("of %d: verdicts %v, discards %v, rejects %v, %d transcripts", n, books.verdicts, books.discards, books.rejects, len(books.transcripts))
			}
			if books.each[tt.want] == 0 || books.each[probe.AnswerReset]+books.each[probe.AnswerChallengeACK] != n {
				t.Errorf("of %d: answers %v, want %v", n, books.each, tt.want)
			}
			for i := range books.transcripts {
				at, refused := reusedAt(&books.transcripts[i])
				if refused != (at >= 0 && at <= window) || at < 0 != tt.lower {
					t.Errorf("a SYN %d beyond RCV.NXT: refused %v", at, refused)
				}
			}
		})
	}
}
