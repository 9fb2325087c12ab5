package host_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// readAll reads to the peer's FIN.
func readAll(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// after closes that long after the peer's FIN.
func after(d time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		readAll(c)
		time.Sleep(d)
	}
}

// request reads n octets.
func request(c net.Conn, n int) { _, _ = io.ReadFull(c, make([]byte, n)) }

// say writes n octets.
func say(c net.Conn, n int) { _, _ = c.Write(make([]byte, n)) }

// closing returns a target of a kind.
func closing(id uint64, remote netip.AddrPort, p probe.Params, l *ledger) *engine.Target {
	t := target(id, remote, 100*time.Millisecond, p.Timeout, l)
	p.Linger = 4 * time.Second
	t.Params = p
	t.Send = string(make([]byte, p.Send))
	return t
}

// TestLinuxCloses probes a Linux peer whose application closes in every way.
func TestLinuxCloses(t *testing.T) {
	const timeout = 2500 * time.Millisecond
	active := probe.Params{Kind: probe.ActiveClose, Timeout: timeout}
	sending := active
	sending.Send = 100
	withData := sending
	withData.FINWithData = true
	holding := active
	holding.Hold = 100 * time.Millisecond
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: timeout}
	asking := passive
	asking.Send = 100
	combined := asking
	combined.Combined = true
	for i, tt := range []struct {
		what   string
		params probe.Params
		serve  func(net.Conn)
		want   probe.Reason
	}{
		{"closes at once", active, readAll, probe.OK},
		{"closes after 250 ms", active, after(250 * time.Millisecond), probe.OK},
		{"never closes", active, after(4 * time.Second), probe.FINMissing},
		{"reads what is sent", sending, readAll, probe.OK},
		{"gets FIN and data in one", withData, readAll, probe.OK},
		{"sends after our FIN", active, func(c net.Conn) { readAll(c); say(c, 5000) }, probe.OK},
		{"greets", active, func(c net.Conn) { say(c, 20); readAll(c) }, probe.OK},
		{"closes first", holding, func(c net.Conn) {}, probe.OK},
		{"resets", active, func(c net.Conn) { readAll(c); _ = c.(*net.TCPConn).SetLinger(0) }, probe.Reset},
		{"leaves data unread", sending, func(c net.Conn) { time.Sleep(50 * time.Millisecond) }, probe.Reset},
		{"closes at once, first", passive, func(c net.Conn) {}, probe.OK},
		{"answers and closes", asking, func(c net.Conn) { request(c, 100); say(c, 3000) }, probe.OK},
		{"answers and closes, combined", combined, func(c net.Conn) { request(c, 100); say(c, 3000) }, probe.OK},
		{"never closes first", asking, after(4 * time.Second), probe.PeerNeverClosed},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			b.Serve("tcp", "[::]:80", tt.serve)
			books := newLedger()
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			for k, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
				x := closing(uint64(i*2+k), netip.AddrPortFrom(addr, 80), tt.params, books)
				x.Recorder = books
				r.shard.Update([]*engine.Target{x}, nil)
			}
			await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= 40 })
			r.end()
			c := books.count()
			if c[tt.want] < 40 || len(c) > 1 {
				t.Errorf("verdicts %v, discards %v, rejects %v", c, books.discards, books.rejects)
			}
			if len(books.rejects) > 0 {
				t.Errorf("rejected %v", books.rejects)
			}
			var left []lab.Socket
			for _, s := range lab.SS(b) {
				if s.State != "TIME-WAIT" && s.State != "LISTEN" {
					left = append(left, s)
				}
			}
			if len(left) > 0 {
				t.Errorf("the peer is left with %v", left)
			}
			if t.Failed() && len(books.transcripts) > 0 {
				tr := &books.transcripts[0]
				for _, rec := range tr.Records() {
					fmt.Printf("  %v %v %v len %d seq %d ack %d -> %v %v %q\n", rec.At.Sub(tr.Records()[0].At), rec.Event.Kind, rec.Event.Segment.Flags, rec.Event.Segment.Len, rec.Event.Segment.Seq, rec.Event.Segment.Ack, rec.Local, rec.Peer, rec.Note)
				}
			}
		})
	}
}

// A path damages what the peer says, as long as it is: an answer that no client gets is none of ours.
func TestDamagedAnswers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	k := l.Link(a, b, lab.Direction{}, lab.Direction{Impairment: lab.Impairment{Damage: 300}})
	b.Serve("tcp", "[::]:80", func(c net.Conn) { request(c, 100); say(c, 30_000) })
	books := newLedger()
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	for i, addr := range []netip.Addr{k.B.Addr4, k.B.Addr6} {
		x := closing(uint64(i), netip.AddrPortFrom(addr, 80), probe.Params{Kind: probe.PassiveClose, Timeout: 2 * time.Second, Send: 100}, books)
		x.Recorder = books
		r.shard.Update([]*engine.Target{x}, nil)
	}
	await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= 20 })
	r.end()
	if c := books.count(); c[probe.PeerNeverClosed] < 20 || len(c) > 1 || books.rejects[probe.RejectBadChecksum] < 40 {
		t.Errorf("verdicts %v, discards %v, rejects %v", c, books.discards, books.rejects)
	}
}
