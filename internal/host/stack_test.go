package host_test

import (
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A stack is a peer by its TCP: where it answers, in both families, and what it
// shows of its connections.
type stack struct {
	at      [2]netip.AddrPort
	sockets func() []lab.Socket
}

// stackOf is a host whose kernel answers at a port.
func stackOf(b *lab.Host, port uint16) stack {
	return stack{
		at:      [2]netip.AddrPort{netip.AddrPortFrom(b.Addr4(), port), netip.AddrPortFrom(b.Addr6(), port)},
		sockets: func() []lab.Socket { return lab.SS(b) },
	}
}

// stackAt is a neighbour with a TCP of its own that answers at a port of two
// addresses.
func stackAt(addr4, addr6 string, port uint16, sockets func() []lab.Socket) stack {
	return stack{
		at: [2]netip.AddrPort{
			netip.AddrPortFrom(netip.MustParseAddr(addr4), port),
			netip.AddrPortFrom(netip.MustParseAddr(addr6), port),
		},
		sockets: sockets,
	}
}

// run probes the stack from a in both families, without some of the options of
// Linux's SYN, for n verdicts, and lets what is open end.
func (s *stack) run(t *testing.T, a *lab.Host, sink engine.Sink, books *ledger, p probe.Params, without probe.OptionSet, n int) {
	t.Helper()
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	var targets []*engine.Target
	for i, at := range s.at {
		x := closing(uint64(i), at, p, books)
		x.Interval, x.Sink = 20*time.Millisecond, sink
		syn := x.SYN.Value()
		syn.Options.Set &^= without
		x.SYN = unique.Make(syn)
		targets = append(targets, x)
	}
	r.shard.Update(targets, nil)
	await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= n })
	r.rest(targets)
	await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	open := unfinished(s.sockets())
	for end := time.Now().Add(2 * time.Second); len(open) > 0 && time.Now().Before(end); open = unfinished(s.sockets()) {
		time.Sleep(20 * time.Millisecond) // for the peer, a program that the race detector slows down
	}
	if len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}
	r.end()
	if t.Failed() {
		tell(t, &books.transcripts[0])
	}
}
