package host_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
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

// TestAccuracyOfGVisorTimeWaitDuration measures how long a gVisor peer's TIME-WAIT lasts,
// which no touch is answered from: 60.0 s, as one lasts that nobody touches.
func TestAccuracyOfGVisorTimeWaitDuration(t *testing.T) {
	t.Parallel()
	const (
		phases = 10
		limit  = 70 * time.Second
		lasts  = time.Minute // tcp.DefaultTCPTimeWaitTimeout
		// One silence may be the network's, so that the last but one counts.
		width = 2500 * time.Millisecond
	)
	a := lab.NewHost(t, "a")
	g := lab.GVisorPeer(t, a, gvisor4, gvisor6)
	g.Serve(80, reply)
	books := &lasting{ledger: newLedger()}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	p := probe.Params{Kind: probe.TimeWaitProbe, Measure: probe.MeasureDuration, Timeout: 5 * time.Second, Send: 100, Limit: limit}
	var targets []*engine.Target
	for i, addr := range []string{gvisor4, gvisor6} {
		x := closing(uint64(i), netip.AddrPortFrom(netip.MustParseAddr(addr), 80), p, books.ledger)
		x.Interval, x.Sink = 617*time.Millisecond, books // in step with nothing
		x.SYN.Options.Set = probe.OptMSS
		targets = append(targets, x)
	}
	r.shard.Update(targets, nil)
	time.Sleep(phases*targets[0].Interval + 100*time.Millisecond)
	r.shard.Update(nil, targets)
	await(t, limit+5*time.Second, "the ends of TIME-WAIT", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	if open := unfinished(g.Sockets()); len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}
	r.end()
	if n := books.settled(); n < 2*phases || books.verdicts[probe.OK] != n || len(books.rejects) > 0 || len(books.lasted) != n {
		t.Errorf("verdicts %v, discards %v, rejects %v, %d durations", books.verdicts, books.discards, books.rejects, len(books.lasted))
	}
	var widest time.Duration
	for _, o := range books.lasted {
		widest = max(widest, o.Duration-o.Least)
		if o.Least > lasts+50*time.Millisecond || o.Duration < lasts-50*time.Millisecond {
			t.Errorf("TIME-WAIT lasted from %v to %v, by gVisor's own timer %v", o.Least, o.Duration, lasts)
		}
	}
	t.Logf("%d intervals, the widest %v", len(books.lasted), widest)
	if widest > width {
		t.Errorf("an interval of %v, allowed %v", widest, width)
	}
}
