package host_test

import (
	"net"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
)

// The addresses of a gVisor peer.
const gvisor4, gvisor6 = "198.18.64.1", "2001:db8:1::1"

// gvisorServes gives a host a gVisor peer that serves port 80.
func gvisorServes(t *testing.T, a *lab.Host, serve func(net.Conn)) stack {
	t.Helper()
	g := lab.GVisorPeer(t, a, gvisor4, gvisor6)
	g.Serve(80, serve)
	return stackAt(gvisor4, gvisor6, 80, g.Sockets)
}

// TestGVisorCloses probes a peer whose TCP is gVisor's.
func TestGVisorCloses(t *testing.T) {
	active := probe.Params{Kind: probe.ActiveClose, Timeout: 1500 * time.Millisecond}
	sending := active
	sending.Send = 100
	asking := probe.Params{Kind: probe.PassiveClose, Timeout: 1500 * time.Millisecond, Send: 100}
	combined := asking
	combined.Combined = true
	for _, tt := range []linuxCase{
		{what: "closes at once", params: active, serve: readAll},
		{what: "closes after 100 ms", params: active, serve: after(100 * time.Millisecond)},
		{what: "never closes", params: active, serve: after(3 * time.Second), want: probe.FINMissing},
		{what: "reads what is sent", params: sending, serve: readAll},
		{what: "sends after our FIN", params: active, serve: func(c net.Conn) { readAll(c); say(c, 5000) }},
		{what: "leaves data unread", params: sending, serve: func(c net.Conn) { time.Sleep(50 * time.Millisecond) }, want: probe.Reset},
		{what: "answers and closes", params: asking, serve: reply},
		{what: "answers and closes, combined", params: combined, serve: reply},
		{what: "never closes first", params: asking, serve: after(3 * time.Second), want: probe.PeerNeverClosed},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a := lab.NewHost(t, "a")
			peer := gvisorServes(t, a, tt.serve)
			books := newLedger()
			peer.run(t, a, books, books, tt.params, 0, 40)
			if c := books.count(); c[tt.want] < 40 || len(c) > 1 || len(books.rejects)+len(books.discards) > 0 {
				t.Errorf("verdicts %v, discards %v, rejects %v, want %v", c, books.discards, books.rejects, tt.want)
			}
		})
	}
}

// TestGVisorTimeWaitReuse uses a four-tuple again that a gVisor peer has in
// TIME-WAIT: to what it does not take, it does not answer.
func TestGVisorTimeWaitReuse(t *testing.T) {
	for _, tt := range []struct {
		what  string
		lower bool
		want  probe.Answer
	}{
		{"higher", false, probe.AnswerAccepted},
		{"lower", true, probe.AnswerSilence},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a := lab.NewHost(t, "a")
			peer := gvisorServes(t, a, reply)
			books := &answers{ledger: newLedger(), each: make(map[probe.Answer]int)}
			peer.run(t, a, books, books.ledger, probe.Params{
				Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: 400 * time.Millisecond,
				After: 10 * time.Millisecond, Send: 100, Lower: tt.lower,
			}, probe.OptTimestamps, 40)
			if n := books.settled(); books.verdicts[probe.OK] != n || books.each[tt.want] != n || len(books.rejects) > 0 {
				t.Errorf("of %d: verdicts %v, discards %v, rejects %v, answers %v, want %v", n, books.verdicts, books.discards, books.rejects, books.each, tt.want)
			}
		})
	}
}
