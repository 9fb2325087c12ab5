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
	probes, ours, stuck := 0, 0, 0
	var lives []scrape
	var slowest, ready time.Duration
	d := start(t, here, withHolds(20))
	killed, open := time.Now(), []lab.Socket(nil)
	for i := range n {
		// A life that has said something of each target.
		slowest = max(slowest, d.recovers(scrape{}, killed))
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		for _, s := range staying(there, open, killed.Add(twice)) {
			stuck++
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
				stuck++
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
		stuck++
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
	x.aside = "holds" // the capture has no port 85
	if ready > 30*time.Second {
		t.Errorf("a start took %v", ready)
	}
	book(t, Row{
		Part: "crash", What: "killed (SIGKILL) under load", Tried: n, Of: "times", Probes: probes, False: falsehoods(x, lives...) + falling,
		Discarded: ours, Recovery: slowest, Left: stuck,
		Note: fmt.Sprintf("ready again within %s; the ISS of a four-tuple never fell; %d connections held in silence ended by the last life; %v", short(ready), held, x),
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
