package host_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// left lists what a host's kernel still holds of connections.
func left(h *lab.Host) []lab.Socket { return unfinished(lab.SS(h)) }

// unfinished is what of a TCP's sockets is there for a connection: those in any
// state but TIME-WAIT, in which nobody waits for anything.
func unfinished(sockets []lab.Socket) []lab.Socket {
	return slices.DeleteFunc(sockets, func(s lab.Socket) bool { return s.State == "TIME-WAIT" || s.State == "LISTEN" })
}

// tell prints a conversation for a test that failed.
func tell(t *testing.T, tr *probe.Transcript) {
	t.Helper()
	var b strings.Builder
	records := tr.Records()
	for i := range records {
		r, s := &records[i], &records[i].Event.Segment
		fmt.Fprintf(&b, "  %v %v %v len %d seq %d ack %d -> %v %v %q\n", r.At.Sub(records[0].At), r.Event.Kind, s.Flags, s.Len, s.Seq, s.Ack, r.Local, r.Peer, r.Note)
	}
	t.Logf("%v %v\n%s", tr.Tuple, tr.Kind, b.String())
}

// A linuxCase is a peer, how it is probed, and what must come of it.
type linuxCase struct {
	what    string
	params  probe.Params
	prepare func(t *testing.T, b *lab.Host) // before anything listens; nil: nothing
	listen  func(net.Listener)              // nil: nothing
	serve   func(net.Conn)                  // nil: closes at once
	want    probe.Reason
}

// run probes a case's peer at its addresses, for n verdicts.
func (k *linuxCase) run(t *testing.T, a, b *lab.Host, addrs []netip.Addr, n int) *ledger {
	t.Helper()
	if k.prepare != nil {
		k.prepare(t, b)
	}
	ln := b.Serve("tcp", "[::]:80", k.serve)
	if k.listen != nil {
		k.listen(ln)
	}
	books := newLedger()
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	if a == b { // the self-test's own connection, of which the guard kept the end from our kernel
		await(t, 5*time.Second, "the self-test's end", func() bool { return len(left(a)) == 0 })
	}
	var targets []*engine.Target
	for i, addr := range addrs {
		x := closing(uint64(i), netip.AddrPortFrom(addr, 80), k.params, books)
		x.Interval = 20 * time.Millisecond
		targets = append(targets, x)
	}
	r.shard.Update(targets, nil)
	await(t, 20*time.Second, "verdicts", func() bool { return books.settled() >= n })
	r.rest(targets)
	await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	time.Sleep(20 * time.Millisecond) // for the peer's kernel
	if open := left(b); len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}
	r.end()
	if c := books.count(); c[k.want] < n || len(c) > 1 {
		t.Errorf("verdicts %v, discards %v, want %v", c, books.discards, k.want)
	}
	if len(books.discards) > 0 || len(books.rejects) > 0 {
		t.Errorf("discarded %v, rejected %v", books.discards, books.rejects)
	}
	if t.Failed() {
		for i := range min(2, len(books.transcripts)) {
			tell(t, &books.transcripts[i])
		}
	}
	return books
}

// hand gives a connection to a program of its own, which knows nothing of it,
// and lets go: the kernel closes it with the program.
func hand(t *testing.T, b *lab.Host, c net.Conn, argv ...string) *lab.Cmd {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Error(err)
		return nil
	}
	cmd := b.Command(t.Context(), argv[0], argv[1:]...)
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	_ = f.Close()
	_ = c.Close()
	return cmd
}

// TestLinuxPeers probes Linux peers whose connections end otherwise than by an
// application's close, or whose kernels are set up otherwise.
func TestLinuxPeers(t *testing.T) {
	const timeout = 1500 * time.Millisecond
	active := probe.Params{Kind: probe.ActiveClose, Timeout: timeout}
	sending := active
	sending.Send = 100
	holding := active
	holding.Hold = 300 * time.Millisecond
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: timeout}
	asking := passive
	asking.Send = 100
	combined := asking
	combined.Combined = true

	option := func(level, name, value int) func(net.Listener) {
		return func(ln net.Listener) {
			raw, err := ln.(*net.TCPListener).SyscallConn()
			if err != nil {
				t.Error(err)
				return
			}
			if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, value) }); cerr != nil || err != nil {
				t.Error(cerr, err)
			}
		}
	}
	deferred := option(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
	cookies := func(_ *testing.T, b *lab.Host) { b.Sysctl("net.ipv4.tcp_syncookies", "2") }
	reply := func(c net.Conn) { request(c, 100); say(c, 3000) }
	lingers := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	idle := func(c net.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		readAll(c)
	}
	for _, tt := range []linuxCase{
		{what: "SYN cookies, active_close", params: sending, prepare: cookies, serve: readAll},
		{what: "SYN cookies, passive_close", params: asking, prepare: cookies, serve: reply},
		{what: "deferred accept, no data", params: active, listen: deferred, serve: readAll},
		{what: "deferred accept, held without data", params: holding, listen: deferred, serve: readAll},
		{what: "deferred accept, data", params: sending, listen: deferred, serve: readAll},
		{what: "deferred accept, answers", params: combined, listen: deferred, serve: reply},
		{what: "closes first with linger 0", params: asking, serve: func(c net.Conn) { request(c, 100); lingers(c) }, want: probe.Reset},
		{what: "closes first and leaves data unread", params: asking, serve: func(c net.Conn) { request(c, 50) }, want: probe.Reset},
		{what: "idle timeout", params: passive, serve: idle},
		{what: "idle timeout while we hold", params: func() probe.Params { p := holding; p.Hold = time.Second; return p }(), serve: idle},
		{what: "sends after our FIN, slowly", params: sending, serve: func(c net.Conn) {
			readAll(c)
			for range 5 {
				say(c, 3000)
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{what: "sends after our FIN and resets", params: sending, serve: func(c net.Conn) {
			readAll(c)
			say(c, 3000)
			time.Sleep(50 * time.Millisecond)
			lingers(c)
		}, want: probe.Reset},
		{what: "no timestamps", params: asking, prepare: func(_ *testing.T, b *lab.Host) { b.Sysctl("net.ipv4.tcp_timestamps", "0") }, serve: reply},
		{what: "no options at all", params: combined, prepare: func(_ *testing.T, b *lab.Host) {
			for _, of := range []string{"timestamps", "sack", "window_scaling"} {
				b.Sysctl("net.ipv4.tcp_"+of, "0")
			}
		}, serve: reply},
		{what: "a small receive window", params: func() probe.Params { p := sending; p.Send = 20000; return p }(), prepare: func(_ *testing.T, b *lab.Host) {
			b.Sysctl("net.ipv4.tcp_rmem", "4096 4096 4096")
		}, serve: readAll},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			tt.run(t, a, b, []netip.Addr{b.Addr4(), b.Addr6()}, 40)
		})
	}
}

// TestLinuxProcessEnds probes connections that a program has open when it ends.
func TestLinuxProcessEnds(t *testing.T) {
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: 1500 * time.Millisecond}
	sending := passive
	sending.Send = 100
	kill := func(t *testing.T, b *lab.Host) func(net.Conn) {
		return func(c net.Conn) {
			cmd := hand(t, b, c, "sleep", "600")
			if cmd == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGKILL)
			_ = cmd.Wait()
		}
	}
	exit := func(t *testing.T, b *lab.Host) func(net.Conn) {
		return func(c net.Conn) {
			if cmd := hand(t, b, c, "sleep", "0.05"); cmd != nil {
				_ = cmd.Wait()
			}
		}
	}
	for _, tt := range []struct {
		what   string
		params probe.Params
		serve  func(*testing.T, *lab.Host) func(net.Conn)
		want   probe.Reason
	}{
		{"exits", passive, exit, probe.OK},
		{"exits with data unread", sending, exit, probe.Reset},
		{"is killed", passive, kill, probe.OK},
		{"is killed with data unread", sending, kill, probe.Reset},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			k := linuxCase{params: tt.params, serve: tt.serve(t, b), want: tt.want}
			k.run(t, a, b, []netip.Addr{b.Addr4(), b.Addr6()}, 10)
		})
	}
}

// TestLoopbackCloses probes the host's own addresses in every kind.
func TestLoopbackCloses(t *testing.T) {
	reply := func(c net.Conn) { request(c, 100); say(c, 3000) }
	for _, tt := range []linuxCase{
		{what: "active_close", params: probe.Params{Kind: probe.ActiveClose, Timeout: time.Second}, serve: readAll},
		{what: "active_close with data", params: probe.Params{Kind: probe.ActiveClose, Timeout: time.Second, Send: 100}, serve: readAll},
		{what: "passive_close", params: probe.Params{Kind: probe.PassiveClose, Timeout: time.Second, Send: 100}, serve: reply},
		{what: "passive_close, combined", params: probe.Params{Kind: probe.PassiveClose, Timeout: time.Second, Send: 100, Combined: true}, serve: reply},
		{what: "time_wait", params: probe.Params{Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: time.Second, Send: 100}, serve: reply},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			h := lab.NewHost(t, "self")
			tt.run(t, h, h, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.9.8.7"), netip.IPv6Loopback()}, 40)
		})
	}
}
