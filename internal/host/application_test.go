package host_test

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// TestAccuracyOfCloseWait holds the peer's CLOSE-WAIT, as it is measured from
// here, against its application's own clock: it reads our FIN, sleeps 250 ms and
// closes. Linux delays the acknowledgement of a FIN by up to 40 ms (net/ipv4/
// tcp_input.c, tcp_fin), unless it is prompted, as it is once that was seen.
func TestAccuracyOfCloseWait(t *testing.T) {
	const sleep, allowed, rounds, tries = 250 * time.Millisecond, time.Millisecond, 10, 3
	for what, send := range map[string]uint32{"after no data": 0, "after data": 100} {
		t.Run(what, func(t *testing.T) {
			for range tries {
				least, most := closeWait(t, sleep, send, rounds)
				if least >= -300*time.Microsecond && most <= allowed || t.Failed() {
					return
				}
			}
			t.Errorf("allowed: %v beyond what the application slept", allowed)
		})
	}
}

// closeWait measures rounds times, one after the other, and returns by how much
// CLOSE-WAIT was longer than the application's sleep, at least and at most.
func closeWait(t *testing.T, sleep time.Duration, send uint32, rounds int) (least, most time.Duration) {
	t.Helper()
	a, b := lab.Pair(t)
	var mu sync.Mutex
	var slept []time.Duration
	b.Serve("tcp", "[::]:80", func(c net.Conn) {
		readAll(c)
		began := time.Now()
		time.Sleep(sleep)
		took := time.Since(began)
		mu.Lock()
		slept = append(slept, took)
		mu.Unlock()
	})
	d := &diary{}
	x := closing(1, netip.AddrPortFrom(b.Addr4(), 80), probe.Params{Kind: probe.ActiveClose, Timeout: 490 * time.Millisecond, Send: send}, nil)
	x.Interval, x.Sink, x.Recorder = 500*time.Millisecond, d, d
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	r.shard.Update([]*engine.Target{x}, nil)
	await(t, 20*time.Second, "verdicts", func() bool { return d.settled() >= rounds })
	r.rest([]*engine.Target{x})
	await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	r.end()
	mu.Lock()
	defer mu.Unlock()
	if len(slept) != len(d.chapters) {
		t.Fatalf("%d conversations, and the application saw %d", len(d.chapters), len(slept))
	}
	var beyond, delays []time.Duration
	for i := range d.chapters {
		wait, ok := d.chapters[i].of(probe.CloseWaitTime)
		ack, ok2 := d.chapters[i].of(probe.FINACKRTT)
		switch {
		case ok != ok2:
			t.Fatalf("observed %+v", d.chapters[i].observed)
		case ok:
			beyond, delays = append(beyond, wait.Duration-slept[i]), append(delays, ack.Duration)
		case i > 4: // a tick is not always late
			t.Fatalf("no figures of conversation %d: %+v", i, d.chapters[i].observed)
		}
	}
	if len(beyond) < rounds-2 {
		t.Fatalf("%d conversations of %d have figures", len(beyond), len(d.chapters))
	}
	slices.Sort(beyond)
	slices.Sort(delays)
	n := len(beyond) - 1
	t.Logf("%d of %d: CLOSE-WAIT %v to %v beyond what the application slept, the acknowledgement of our FIN %v to %v",
		len(beyond), len(d.chapters), beyond[0], beyond[n], delays[0], delays[n])
	return beyond[0], beyond[n]
}

// TestCloseWaitLeak probes an application that never closes: its kernel holds a
// CLOSE-WAIT until our exit takes it away, whatever the application does.
func TestCloseWaitLeak(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) {
		readAll(c)
		<-t.Context().Done() // its connection is open here all the time
	})
	books := newLedger()
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	var targets []*engine.Target
	for i, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		targets = append(targets, closing(uint64(i), netip.AddrPortFrom(addr, 80), probe.Params{Kind: probe.ActiveClose, Timeout: time.Second}, books))
	}
	r.shard.Update(targets, nil)
	await(t, 5*time.Second, "a CLOSE-WAIT", func() bool { return len(lab.SS(b, "CLOSE-WAIT")) > 0 })
	await(t, 5*time.Second, "verdicts", func() bool { return books.settled() >= 10 })
	r.rest(targets)
	r.end() // as a shutdown does, with conversations open
	time.Sleep(20 * time.Millisecond)
	if open := left(b); len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}
	c := books.count()
	if n := c[probe.FINMissing]; n < 10 || len(c) > 1 || len(books.rejects) > 0 {
		t.Errorf("verdicts %v, discards %v, rejects %v", c, books.discards, books.rejects)
	}
}

// TestAcceptQueue probes a listener that never accepts, whose queue has room for
// one connection, over a path so long that several handshakes are under way at
// once: one gets in, and the kernel drops the ACKs of the others and sends their
// SYN-ACKs again.
func TestAcceptQueue(t *testing.T) {
	for _, tt := range []struct {
		what  string
		abort string // net.ipv4.tcp_abort_on_overflow
		want  probe.Reason
	}{
		{"drops the ACK", "0", probe.AcceptQueueFull},
		{"resets instead", "1", probe.Reset},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			a, b := l.Host("a"), l.Host("b")
			delay := lab.Direction{Impairment: lab.Impairment{Delay: 200 * time.Millisecond}}
			l.Link(a, b, delay, delay)
			b.Sysctl("net.ipv4.tcp_abort_on_overflow", tt.abort)
			const backlog = 16
			queue := b.Backlog(netip.AddrPortFrom(netip.IPv6Unspecified(), 80), backlog)
			queue.Fill(1)
			books := newLedger()
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			p := probe.Params{Kind: probe.ActiveClose, Timeout: 2700 * time.Millisecond}
			var targets []*engine.Target
			for i := range 4 {
				x := closing(uint64(i), netip.AddrPortFrom(b.Addr4(), 80), p, books)
				x.Interval = 60 * time.Millisecond
				targets = append(targets, x)
			}
			r.shard.Update(targets, nil)
			time.Sleep(200 * time.Millisecond) // all of them are under way before the first ACK goes
			r.rest(targets)
			await(t, 20*time.Second, "the ends", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
			c := books.count()
			time.Sleep(300 * time.Millisecond) // the last RST's way
			held := 2 * (backlog)              // both ends of those that fill the queue
			if open := left(b); len(open) != held {
				t.Errorf("the peer has %d sockets, of which %d fill the queue: %v", len(open), held, open)
			}
			r.end()
			// The one that got in is acknowledged by the kernel and closed by nobody.
			if c[probe.FINMissing] != 1 || c[tt.want] < 5 || len(c) != 2 || len(books.discards) > 0 {
				t.Errorf("verdicts %v, discards %v, want one fin_missing and the rest %v", c, books.discards, tt.want)
			}
			if t.Failed() {
				for i := range min(3, len(books.transcripts)) {
					tell(t, &books.transcripts[i])
				}
			}
		})
	}
	// Of a queue that is full when the SYN comes the kernel says nothing at all,
	// and so it does where the queue of handshakes is full and there are no cookies.
	for _, tt := range []struct {
		what string
		fill func(*lab.Host)
	}{
		{"full before the SYN", func(b *lab.Host) { b.Backlog(netip.AddrPortFrom(netip.IPv6Unspecified(), 80), 0).Fill(0) }},
		{"full of handshakes", func(b *lab.Host) {
			b.Sysctl("net.ipv4.tcp_syncookies", "0")
			q := b.Backlog(netip.AddrPortFrom(netip.IPv6Unspecified(), 80), 1)
			b.NFT("add table inet lab\nadd chain inet lab input { type filter hook input priority 0; }\n" +
				"add rule inet lab input iifname lo tcp dport 80 tcp flags & (syn|ack) == ack drop\n")
			for range 4 { // connections whose ACK never comes
				if c, err := b.Dial("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), q.Addr.Port()).String(), 100*time.Millisecond); err == nil {
					t.Cleanup(func() { _ = c.Close() })
				}
			}
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			tt.fill(b)
			books := newLedger()
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			x := closing(1, netip.AddrPortFrom(b.Addr4(), 80), probe.Params{Kind: probe.ActiveClose, Timeout: 400 * time.Millisecond}, books)
			r.shard.Update([]*engine.Target{x}, nil)
			await(t, 5*time.Second, "verdicts", func() bool { return books.settled() >= 3 })
			r.end()
			if c := books.count(); c[probe.Timeout] < 3 || len(c) > 1 {
				t.Errorf("verdicts %v, want timeout", c)
			}
		})
	}
}
