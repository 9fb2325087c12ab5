package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// scanned is how many addresses are scanned: all of prefix.
const scanned = 1 << 16

// probedRates are what the daemon is tried at.
func probedRates() []int { return []int{50_000, 80_000, 110_000, 200_000} }

// bareRates are what bare is tried at; without the last it would overrun the targets' kernel.
func bareRates() []int { return []int{60_000, 100_000, 140_000, 0} }

// A place is where the kernel does its part of a handshake.
type place struct {
	name        string
	there, here int // the core that takes what arrives at the targets, and at us; -1: the sender's
	// fastest asks for as much as there is: a core that rests between interrupts
	// books them to nobody.
	fastest bool
}

// likeScanners is a half_open whose SYN offers as little as it can, an MSS: a scanner's offers nothing.
const likeScanners = "probe: half_open, tcp_options: {sack: false, timestamps: false, window_scale: off}"

// TestHandshakes has probed and the scanners make handshakes as fast as they can
// and asks what each takes of a processor: SYN, SYN-ACK, and the kernel's RST.
func TestHandshakes(t *testing.T) {
	b := open(t)
	tools := []scanner{
		{name: "probed", rates: probedRates(), settle: 2, start: scanning(likeScanners), agrees: agrees},
		{name: "probed-packet", rates: probedRates(), settle: 2, start: scanning(likeScanners + ", transmit: packet"), agrees: agrees},
		{name: "bare", rates: bareRates(), settle: 1, start: theLeast("-plain")},
		{name: "bare-packet", rates: bareRates(), settle: 1, start: theLeast("-plain", "-packet")},
		{name: "zmap", rates: []int{60_000, 120_000, 0}, start: zmap, length: 250 * time.Millisecond},
		{name: "masscan", rates: []int{40_000, 160_000, 400_000}, settle: 1, start: masscan()},
		{name: "masscan-noreset", rates: []int{40_000, 160_000, 400_000}, settle: 1, start: masscan("--noreset")},
	}
	for _, p := range []place{
		{"inline", -1, -1, false},
		{"split", theirs, -1, false},
		{"steered", theirs, ours, true},
	} {
		t.Run(p.name, func(t *testing.T) {
			tools := tools
			if p.fastest { // by which bare, which waits for nothing, overruns either kernel
				tools = slices.DeleteFunc(slices.Clone(tools), func(s scanner) bool { return strings.HasPrefix(s.name, "bare") })
			}
			best := make([]int, len(tools))
			for i, s := range tools {
				best[i] = s.best(t, p)
			}
			for range rounds(t) {
				for i, s := range tools {
					l, err := s.measure(t, p, s.rates[best[i]], window(t))
					for ; err != nil && best[i] > 0; l, err = s.measure(t, p, s.rates[best[i]], window(t)) {
						t.Log(err)
						best[i]-- // on a machine that is slower now the queues overflow at that
					}
					if err != nil {
						t.Fatal(err)
					}
					l.Name = fmt.Sprintf("Handshakes/kernel=%s/tool=%s", p.name, s.name)
					b.add(l)
				}
			}
		})
	}
}

// best finds out which of its rates a scanner makes most of, unless this is one round only. One at
// which queues overflow is none.
func (s scanner) best(t *testing.T, p place) int {
	t.Helper()
	if p.fastest {
		return len(s.rates) - 1
	}
	if rounds(t) == 1 {
		return 0
	}
	best, most := 0, 0.0
	for i, rate := range s.rates {
		l, void := s.once(t, p, rate, window(t))
		if void != nil { // it may have been the machine
			t.Logf("void: %s at %d/s: %v", s.name, rate, void)
			if l, void = s.once(t, p, rate, window(t)); void != nil {
				continue
			}
		}
		done, _ := l.Get("handshakes/cpu-s")
		t.Logf("asked for %d/s: %s", rate, l)
		if done > most {
			best, most = i, done
		}
	}
	return best
}

// measure runs a scanner for some length, again if that run is void: on a machine
// that is taken away for a while, queues overflow.
func (s scanner) measure(t *testing.T, p place, rate int, length time.Duration) (l Line, void error) {
	t.Helper()
	for range 3 {
		if l, void = s.once(t, p, rate, length); void == nil {
			return l, nil
		}
		t.Logf("void: %s at %d/s: %v", s.name, rate, void)
	}
	return Line{}, fmt.Errorf("three void runs of %s at %d/s", s.name, rate)
}

// once runs a scanner once. Handshakes are counted by the targets' kernel, in the
// same way for all: those that a RST ended (RFC 4022's tcpAttemptFails).
func (s scanner) once(t *testing.T, p place, rate int, length time.Duration) (l Line, void error) {
	t.Helper()
	// A subtest, so that the world ends with it.
	ok := t.Run(fmt.Sprintf("%s-%d", s.name, rate), func(t *testing.T) {
		w := newWorld(t)
		w.listen()
		w.steer(w.there, p.there)
		w.steer(w.here, p.here)
		if s.length == 0 || s.length > length {
			l, void = w.over(s.span(w, rate, length))
			return
		}
		var whole span
		for whole.length < length {
			whole = whole.plus(s.span(w, rate, s.length))
		}
		l, void = w.over(whole)
	})
	if !ok {
		t.FailNow()
	}
	return l, void
}

// span starts a scanner, lets it get into its stride and accounts for what it does
// in a length of time.
func (s scanner) span(w *world, rate int, length time.Duration) span {
	w.t.Helper()
	before := w.there.Counters()[reset]
	r := w.run(s.start(w, rate))
	lab.Eventually(w.t, 20*time.Second, func() error {
		if n := w.there.Counters()[reset] - before; n < 1000 {
			return fmt.Errorf("%d handshakes", n)
		}
		return nil
	})
	time.Sleep(s.settle * length)
	from := w.take(r.pid)
	time.Sleep(length)
	span := from.until(w.take(r.pid))
	void := honest(span) != nil // what is lost then nobody counts in the same way
	if s.agrees != nil && !void {
		s.agrees(w, r)
	}
	r.stop()
	if !void {
		w.settle(10 * time.Second)
	}
	return span
}

// over is what a span comes to, and why it is void if it is.
func (w *world) over(s span) (Line, error) {
	w.t.Helper()
	done := float64(s.peer[reset])
	if done == 0 {
		w.t.Fatalf("no handshake in %v", s.length)
	}
	return Line{Figures: []Figure{
		{float64(s.process) / done, "cpu-ns/probe"},
		{done / s.process.Seconds(), "handshakes/cpu-s"},
		{done / s.length.Seconds(), "handshakes/s"},
		{100 * float64(w.dropped(w.there)) / float64(w.there.Counters()["TcpInSegs"]), "dropped-%"},
		{s.busy[ours].Seconds() / s.length.Seconds(), "core0"},
		{s.busy[theirs].Seconds() / s.length.Seconds(), "core1"},
	}}, honest(s)
}

// honest tells whether the work was the one that is compared: each SYN answered by a
// SYN-ACK of a socket, once, and each of these by a RST. What got lost is a fiftieth at
// most, and what was under way at the beginning and the end of the span no more than
// the queues of two cores hold (net.core.netdev_max_backlog).
func honest(s span) error {
	const queues = 2 * 1000
	done := s.peer["TcpAttemptFails"]
	for _, c := range []struct {
		what string
		got  int64
		want int64
	}{
		{"SYN-ACKs", s.peer["TcpOutSegs"], done},
		{"SYNs and RSTs", min(s.peer["TcpInSegs"], 2*done), 2 * done}, // masscan sends more
		{"SYN cookies", s.peer["TcpExtSyncookiesSent"], 0},
		{"retransmissions", s.peer["TcpRetransSegs"], 0},
		{"SYNs dropped", s.peer["TcpExtListenDrops"], 0},
		{"connections", s.peer["TcpPassiveOpens"], 0},
	} {
		if off := c.got - c.want; off > done/50+queues || -off > done/50+queues {
			return fmt.Errorf("%d %s, %d handshakes ended by a RST", c.got, c.what, done)
		}
	}
	return nil
}
