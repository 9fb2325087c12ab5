package trust

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// twice is before a peer in SYN-RECEIVED sends its SYN-ACK for the third time, 3 s after
// the first: what that has left behind the second was to clear.
const twice = 2500 * time.Millisecond

// withHolds is everyKind's with connections besides whose peer's application is silent
// while probed holds them: nothing comes of those that the kernel of a dead probed could
// reset. Their source ports come round in 6.4 s.
func withHolds(n int) string {
	return strings.Replace(everyKind(n), "modules:\n", "modules:\n  hold: {probe: active_close, interval: 50ms, timeout: 1500ms, hold: 600ms}\n", 1) +
		"- {name: holds, module: hold, targets: ['198.18.0.2:85']}\n"
}

// isHeld is a peer's socket of such.
func isHeld(s lab.Socket) bool { return strings.HasSuffix(s.Local, ":85") }

// probed is killed at random moments of all kinds of conversations. Nobody holds its ports
// then, so that its own kernel resets what still comes; and where it is started again at
// once, it does so itself. What the peers hold in silence ends with a later life, to
// none of whose failures it adds.
func TestCrashKilled(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	servers(there)
	there.Serve("tcp", "0.0.0.0:85", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	capture := here.Capture(t, here.Iface(), "tcp and not port 85", lab.Immediate)
	rng := rand.New(rand.NewPCG(1, 2))
	n := times(200, 8)
	probes, ours := 0, 0
	var lives []scrape
	stays := make(map[lab.Socket]bool)
	var slowest, ready time.Duration
	d := start(t, here, withHolds(20))
	killed, open := time.Now(), []lab.Socket(nil)
	for i := range n {
		// A life that has said something of each target.
		slowest = max(slowest, d.recovers(scrape{}, killed))
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		for _, s := range staying(there, open, killed.Add(twice)) {
			stays[s] = true
			t.Logf("life %d: the peer still holds %v", i, s)
		}
		s := d.scrape()
		probes, ours = probes+int(s.sum("probed_probes_total")), ours+s.ours()
		lives = append(lives, s)
		time.Sleep(time.Duration(rng.IntN(250)) * time.Millisecond)
		d.signal(syscall.SIGKILL)
		d.end(patience)
		killed = time.Now()
		open = slices.DeleteFunc(left(there), isHeld)
		if i%2 == 0 { // it stays dead for a while
			for _, s := range staying(there, open, killed.Add(twice)) {
				stays[s] = true
				t.Logf("life %d: the peer is left with %v", i, s)
			}
			open = nil
		}
		began := time.Now()
		if i%2 == 0 {
			killed = began
		}
		if i == n-1 {
			open = slices.DeleteFunc(left(there), func(s lab.Socket) bool { return !isHeld(s) })
		}
		d = start(t, here, withHolds(20))
		ready = max(ready, time.Since(began))
	}
	held := len(open)
	for _, s := range staying(there, open, time.Now().Add(patience)) {
		stays[s] = true
		t.Logf("the last life: the peer still holds %v", s)
	}
	time.Sleep(2 * time.Second) // until those probes have their verdicts
	s := d.scrape()
	probes, ours, lives = probes+int(s.sum("probed_probes_total")), ours+s.ours(), append(lives, s)
	if k := int(s.sum("probed_probes_discarded_total", "job_name", "holds", "reason", "send_error")); k == 0 || held == 0 {
		t.Errorf("of %d held connections the last life found %d: nothing is shown", held, k)
	}
	d.signal(syscall.SIGKILL)
	d.end(patience)
	falling, x := rises(capture.Packets())
	unheard := len(stays)
	for s, text := range unclosed(capture.Packets(), stays) {
		unheard--
		t.Logf("%v: on the wire:\n%s", s, text)
	}
	x.aside = "holds" // the capture has no port 85
	if ready > 30*time.Second {
		t.Errorf("a start took %v", ready)
	}
	book(t, Row{
		Part: "crash", What: "killed (SIGKILL) under load", Tried: n, Of: "times", Probes: probes, False: falsehoods(x, lives...) + falling,
		Discarded: ours, Recovery: slowest, Left: len(stays) - unheard,
		Note: fmt.Sprintf("ready again within %s; the ISS of a four-tuple never fell; %d connections held in silence ended by the last life; %d of whose FIN the peer's kernel took no notice; %v", short(ready), held, unheard, x),
	})
	if t.Failed() {
		t.Log(finsAgain(capture.Packets()))
	}
	for i, s := range lives {
		if t.Failed() && s.falsehoods(exchange{slowest: x.slowest, slowestFIN: x.slowestFIN, aside: x.aside}) > 0 {
			t.Logf("life %d: %s", i, s.told(x))
		}
	}
}

// unclosed is what a capture has of those of a peer's sockets that have stayed and whose connection probed
// had not closed: the others are in FIN-WAIT-2, say nothing, and our FIN has left, but the peer's kernel took
// no notice of it: what it gets lies in a queue of this machine's that the tests beside flood, and a FIN that comes while
// the socket becomes one of FIN-WAIT-2 may be lost (net/ipv4/tcp_input.c, tcp_rcv_state_process). Who was killed before
// the FIN went again could not close those.
func unclosed(packets []lab.CapturedPacket, stay map[lab.Socket]bool) map[lab.Socket]string {
	type end struct {
		said         []string
		fin          probe.Seq // what acknowledges our FIN
		left, answer bool      // the FIN left; the peer has said something since
		lost         bool      // so it was with one of its connections
	}
	ends := make(map[string]*end)
	for s := range stay {
		ends[s.Local+s.Remote] = new(end)
	}
	for _, c := range packets {
		var p wire.Packet
		if wire.ParseUnverified(c.Data, &p) != nil || p.Kind != wire.KindTCP {
			continue
		}
		who, theirs, ours, seg := "peer", netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort), &p.Segment
		if c.Outgoing {
			who, theirs, ours = "we  ", ours, theirs
		}
		e := ends[mapped(theirs)+mapped(ours)]
		switch {
		case e == nil:
			continue
		case c.Outgoing && seg.Flags == probe.SYN:
			e.lost, e.left, e.answer = e.lost || e.left && !e.answer, false, false
		case c.Outgoing && seg.Flags.Has(probe.FIN):
			e.left, e.answer, e.fin = true, false, seg.End()
		case !c.Outgoing && e.left:
			e.answer = e.answer || seg.Ack == e.fin || seg.Flags.Has(probe.RST)
		}
		e.said = append(e.said, fmt.Sprintf("%s %s %v seq %d len %d ack %d", time.Unix(0, c.Wall).UTC().Format("15:04:05.000000"), who, seg.Flags, seg.Seq, seg.Len, seg.Ack))
		e.said = e.said[max(0, len(e.said)-400):]
	}
	open := make(map[lab.Socket]string)
	for s := range stay {
		if e := ends[s.Local+s.Remote]; s.State != "FIN-WAIT-2" || !e.lost && (!e.left || e.answer) {
			open[s] = strings.Join(e.said, "\n")
		}
	}
	return open
}

// mapped is an IPv4 address and port as the kernel names those of a socket of both families.
func mapped(a netip.AddrPort) string {
	return fmt.Sprintf("[::ffff:%s]:%d", a.Addr(), a.Port())
}

// A connection is told from one that was closed by what the wire has of its last, or a former, FIN.
func TestUnclosed(t *testing.T) {
	t.Parallel()
	tuple := probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61158"), Remote: netip.MustParseAddrPort("198.18.0.2:83")}
	back := probe.FourTuple{Local: tuple.Remote, Remote: tuple.Local}
	we := func(f probe.Flags, seq, ack probe.Seq) lab.CapturedPacket {
		return lab.CapturedPacket{Outgoing: true, Data: wire.AppendPacket(nil, &tuple, &probe.Segment{Flags: f, Seq: seq, Ack: ack, TTL: 64}, nil)}
	}
	peer := func(f probe.Flags, seq, ack probe.Seq) lab.CapturedPacket {
		return lab.CapturedPacket{Data: wire.AppendPacket(nil, &back, &probe.Segment{Flags: f, Seq: seq, Ack: ack, TTL: 64}, nil)}
	}
	begins := []lab.CapturedPacket{we(probe.SYN, 10, 0), peer(probe.SYN|probe.ACK, 50, 11), we(probe.ACK, 11, 51), peer(probe.FIN|probe.ACK, 51, 11), we(probe.ACK, 11, 52)}
	fin, heard := we(probe.FIN|probe.ACK, 11, 52), peer(probe.ACK, 52, 12)
	for name, c := range map[string]struct {
		state string
		then  []lab.CapturedPacket
		open  bool
	}{
		"no FIN of ours":                 {"FIN-WAIT-2", nil, true},
		"a FIN that nobody heard":        {"FIN-WAIT-2", []lab.CapturedPacket{fin}, false},
		"one that the peer repeats":      {"FIN-WAIT-2", []lab.CapturedPacket{fin, peer(probe.ACK, 52, 11)}, false},
		"one that was acknowledged":      {"FIN-WAIT-2", []lab.CapturedPacket{fin, heard}, true},
		"another connection since":       {"FIN-WAIT-2", []lab.CapturedPacket{fin, we(probe.SYN, 900, 0), peer(probe.ACK, 52, 11)}, false},
		"another since, heard before":    {"FIN-WAIT-2", []lab.CapturedPacket{fin, heard, we(probe.SYN, 900, 0)}, true},
		"a peer that has not closed":     {"ESTAB", []lab.CapturedPacket{fin}, true},
		"a peer whose FIN still travels": {"FIN-WAIT-1", []lab.CapturedPacket{fin}, true},
	} {
		s := lab.Socket{State: c.state, Local: mapped(tuple.Remote), Remote: mapped(tuple.Local)}
		open := unclosed(append(slices.Clone(begins), c.then...), map[lab.Socket]bool{s: true})
		if _, is := open[s]; is != c.open {
			t.Errorf("%s: open %v, want %v", name, is, c.open)
		} else if is && strings.Count(open[s], "\n") != len(begins)+len(c.then)-1 {
			t.Errorf("%s: it says\n%s", name, open[s])
		}
	}
}

// rises counts the SYNs of a capture whose ISS is not above the last one's of the same
// four-tuple, those that measure TIME-WAIT aside: a peer in TIME-WAIT would refuse them.
func rises(packets []lab.CapturedPacket) (falling int, x exchange) {
	last := make(map[probe.FourTuple]probe.Seq)
	for _, c := range packets {
		var p wire.Packet
		if wire.ParseUnverified(c.Data, &p) != nil || p.Kind != wire.KindTCP || !c.Outgoing || p.Segment.Flags != probe.SYN {
			continue
		}
		tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
		if before, ok := last[tuple]; ok && p.Segment.Seq.LessEq(before) {
			falling++
		}
		last[tuple] = p.Segment.Seq
	}
	return falling, exchanges(packets)
}

// probed is ended in the midst of everything, in other ways than by SIGKILL. Asked to end
// it closes what is open; where it ends of a fault its kernel does.
func TestCrashSignals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		signals []syscall.Signal
		clean   bool // the exit code is 0, and nothing is left at once
	}{
		{"asked to end (SIGTERM)", []syscall.Signal{syscall.SIGTERM}, true},
		{"asked to end twice (SIGTERM, SIGTERM)", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, true},
		{"asked to end while stopped (SIGSTOP, SIGTERM, SIGCONT)", []syscall.Signal{syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGCONT}, true},
		{"the watchdog's abort (SIGABRT)", []syscall.Signal{syscall.SIGABRT}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			here, there := lab.Pair(t)
			servers(there)
			n := times(20, 1)
			capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
			probes, ours, stuck := 0, 0, 0
			var lives []scrape
			var slowest time.Duration
			d := start(t, here, everyKind(20))
			ended := time.Now()
			for i := range n {
				slowest = max(slowest, d.recovers(scrape{}, ended))
				time.Sleep(time.Duration(i*97%500) * time.Millisecond)
				s := d.scrape()
				probes, ours, lives = probes+int(s.sum("probed_probes_total")), ours+s.ours(), append(lives, s)
				for j, signal := range c.signals {
					err := d.cmd.Process.Signal(signal)
					if j > 0 && errors.Is(err, os.ErrProcessDone) {
						break // the first was enough
					}
					if err != nil {
						t.Fatalf("%v: %v", signal, err)
					}
					time.Sleep(time.Duration(i%5) * 20 * time.Millisecond)
				}
				d.end(30 * time.Second)
				if c.clean && d.err != nil {
					t.Errorf("probed ended with %v", d.err)
				}
				for _, s := range staying(there, left(there), time.Now().Add(twice)) {
					stuck++
					t.Logf("the peer is left with %v", s)
				}
				ended = time.Now()
				d = start(t, here, everyKind(20))
			}
			x := exchanges(capture.Packets())
			book(t, Row{
				Part: "crash", What: c.what, Tried: n, Of: "times", Probes: probes, False: falsehoods(x, lives...), Discarded: ours,
				Recovery: slowest, Left: stuck, Note: x.String(),
			})
			if t.Failed() {
				t.Log(finsAgain(capture.Packets()))
			}
			for i, s := range lives {
				if t.Failed() {
					t.Logf("life %d: %s", i, s.told(x))
				}
			}
		})
	}
}
