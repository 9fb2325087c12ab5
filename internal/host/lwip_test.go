package host_test

import (
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// The addresses of an lwIP peer.
const lwip4, lwip6 = "198.18.65.1", "2001:db8:2::1"

// lwipAt gives a host an lwIP peer, to be probed at one of its ports.
func lwipAt(t *testing.T, a *lab.Host, port uint16) stack {
	t.Helper()
	return stackAt(lwip4, lwip6, port, lab.LWIPPeer(t, a, lwip4, lwip6).Sockets)
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
			a := lab.NewHost(t, "a")
			peer := lwipAt(t, a, tt.port)
			peer.run(t, a, books, books.ledger, tt.params, 0, 40)
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
		after time.Duration // by which our ISS, 2,000 to 5,900 a millisecond, is beyond
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
			a := lab.NewHost(t, "a")
			peer := lwipAt(t, a, lab.LWIPAnswers)
			peer.run(t, a, books, books.ledger, probe.Params{
				Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: 400 * time.Millisecond,
				After: tt.after, Send: 100, Lower: tt.lower,
			}, 0, 40)
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
