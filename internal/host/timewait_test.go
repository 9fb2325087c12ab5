package host_test

import (
	"net"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// reply answers a request of 100 octets and closes.
func reply(c net.Conn) { request(c, 100); say(c, 200) }

// reused counts what came of using four-tuples again: how often each answer, and
// how often with a note.
func (l *ledger) reused(d *answers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.transcripts {
		for _, r := range l.transcripts[i].Records() {
			switch r.Note {
			case probe.NoteReuseRecycled:
				d.recycled++
			case probe.NoteReuseFresh:
				d.fresh++
			}
		}
	}
}

// answers is a sink that counts what peers answer to a SYN in TIME-WAIT.
type answers struct {
	*ledger
	each            map[probe.Answer]int
	timed           int // with a round-trip time
	recycled, fresh int
}

// Observe implements engine.Sink.
func (a *answers) Observe(o *probe.Observation) {
	a.ledger.Observe(o)
	if o.Kind == probe.TimeWaitReuse {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.each[o.Answer]++
		if o.Duration >= 0 {
			a.timed++
		}
	}
}

// TestTimeWaitReuse uses a four-tuple again that a Linux peer has in TIME-WAIT.
func TestTimeWaitReuse(t *testing.T) {
	const probes = 40
	for _, tt := range []struct {
		what       string
		lower      bool
		timestamps bool
		after      time.Duration
		drop       bool // a firewall rule drops the second SYN
		want       probe.Answer
	}{
		{"higher", false, false, 0, false, probe.AnswerAccepted},
		{"higher, with timestamps", false, true, 0, false, probe.AnswerAccepted},
		{"higher, a second later", false, true, time.Second, false, probe.AnswerAccepted},
		{"lower", true, false, 0, false, probe.AnswerChallengeACK},
		{"lower, a second later", true, false, time.Second, false, probe.AnswerChallengeACK},
		{"lower, with timestamps", true, true, 5 * time.Millisecond, false, probe.AnswerChallengeACK},
		{"through a rule that drops it", false, true, 0, true, probe.AnswerSilence},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			if tt.drop { // one SYN a minute from a port
				b.NFT("add table inet lab\n" +
					"add chain inet lab input { type filter hook input priority 0; }\n" +
					"add rule inet lab input tcp flags & (syn|ack) == syn meter again { tcp sport . ip saddr limit rate over 1/minute burst 1 packets } drop\n" +
					"add rule inet lab input tcp flags & (syn|ack) == syn meter again6 { tcp sport . ip6 saddr limit rate over 1/minute burst 1 packets } drop\n")
			}
			b.Serve("tcp", "[::]:80", reply)
			peer := stackOf(b, 80)
			books := &answers{ledger: newLedger(), each: make(map[probe.Answer]int)}
			without := probe.OptTimestamps
			if tt.timestamps {
				without = 0
			}
			peer.run(t, a, books, books.ledger, probe.Params{
				Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: 400 * time.Millisecond,
				Send: 100, After: tt.after, Lower: tt.lower,
			}, without, probes)
			books.reused(books)
			n := books.settled()
			if c := books.count(); c[probe.OK] != n || len(books.rejects) > 0 {
				t.Errorf("verdicts %v, discards %v, rejects %v", c, books.discards, books.rejects)
			}
			if books.each[tt.want] != n {
				t.Errorf("of %d: %v, want %v", n, books.each, tt.want)
			}
			recycled := 0
			if tt.want == probe.AnswerAccepted {
				recycled = n
			}
			if books.timed != recycled || books.recycled != recycled || books.fresh != 0 {
				t.Errorf("%d round-trip times, %d ISNs recycled, %d fresh; want %d recycled", books.timed, books.recycled, books.fresh, recycled)
			}
			if t.Failed() {
				tell(t, &books.transcripts[0])
			}
		})
	}
}
