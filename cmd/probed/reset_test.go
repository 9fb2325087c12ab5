package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
	"github.com/probed/probed/rawsock"
)

// TestOneResetPerAnswer counts the RSTs of half_open on veth and loopback, IPv4
// and IPv6, and looks for any from the guarded half of the source ports.
func TestOneResetPerAnswer(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	a.Listen("tcp", "[::]:80")
	b.Listen("tcp", "[::]:80")
	targets := []string{
		netip.AddrPortFrom(b.Addr4(), 80).String(), netip.AddrPortFrom(b.Addr6(), 80).String(),
		"127.0.0.1:80", "[::1]:80",
		netip.AddrPortFrom(a.Addr4(), 80).String(), netip.AddrPortFrom(a.Addr6(), 80).String(), // by lo too
	}
	veth, lo := a.Capture(t, a.Iface(), ourPorts, lab.Immediate), a.Capture(t, "lo", ourPorts, lab.Immediate)
	p := start(t, a, simpleConfig("50ms", "900ms", targets...))
	lab.Eventually(t, 10*time.Second, func() error {
		if n := p.scrape().sum("probed_segments_sent_total", nil); n < 6*2*20 {
			return fmt.Errorf("%v segments sent", n)
		}
		return nil
	})
	// What nobody asked for: our kernel answers it from a reserved port, and
	// not from a guarded one.
	for i, dst := range []netip.Addr{a.Addr4(), a.Addr6()} {
		src := []netip.Addr{b.Addr4(), b.Addr6()}[i]
		inject(t, b, netip.AddrPortFrom(src, 9), netip.AddrPortFrom(dst, guardedFirst+7))
		inject(t, b, netip.AddrPortFrom(src, 9), netip.AddrPortFrom(dst, reservedFirst+7))
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lab.Eventually(t, time.Second, func() error {
		if left := slices.Concat(lab.SS(a, "syn-recv"), lab.SS(b, "syn-recv")); len(left) > 0 {
			return fmt.Errorf("half-open state left: %v", left)
		}
		return nil
	})

	var strays int
	all := slices.DeleteFunc(slices.Concat(segments(t, veth.Packets()), segments(t, lo.Packets())), func(s segment) bool {
		// The self-test's segments and those injected above.
		stray := s.DstPort == 9 && s.is(probe.RST)
		if stray && s.SrcPort >= guardedFirst {
			t.Errorf("a RST from the guarded port %d", s.SrcPort)
		}
		if stray {
			strays++
		}
		return stray || s.SrcPort == 9 || selfTest(&s)
	})
	answered := make(map[string]int)
	for _, x := range exchanges(t, all) {
		if len(x.synAcks) != 1 || len(x.resets) != 1 {
			t.Errorf("%v > %v: %d SYN-ACKs and %d RSTs", x.syn.SrcPort, x.syn.to(), len(x.synAcks), len(x.resets))
		}
		answered[x.syn.to().String()]++
	}
	for _, to := range targets {
		if answered[to] < 10 {
			t.Errorf("%s: only %d probes", to, answered[to])
		}
	}
	if strays != 2 {
		t.Errorf("%d RSTs to what was injected, want 2: those of the reserved port", strays)
	}
}

// selfTest reports whether the segment is of probed's start-up self-test, which
// uses the first ports of both halves over loopback and no SYN.
func selfTest(s *segment) bool {
	onLoopback := s.Src.IsLoopback() && s.Dst.IsLoopback()
	first := func(p uint16) bool { return p == reservedFirst || p == guardedFirst }
	return onLoopback && (first(s.SrcPort) || first(s.DstPort)) && s.SrcPort != 80 && s.DstPort != 80
}

// inject sends a SYN-ACK from a host.
func inject(t *testing.T, h *lab.Host, from, to netip.AddrPort) {
	t.Helper()
	h.Do(func() {
		sender, err := rawsock.NewSender()
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		syn := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 1, Ack: 2, Window: 1024}
		tuple := probe.FourTuple{Local: from, Remote: to}
		packet := rawsock.Packet{Segment: wire.AppendTCP(nil, &tuple, &syn, nil), Src: from.Addr(), Dst: to.Addr()}
		sender.Send([]rawsock.Packet{packet}, func(_ int, err error) { t.Errorf("inject: %v", err) })
	})
}

// TestSignalsEndProbed has every target silent, so that conversations are open
// when the signal comes. While they are waited for, the web pages are there.
func TestSignalsEndProbed(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			b.Refuse(80, lab.Drop)
			p := start(t, a, simpleConfig("20ms", "5s", b.Addr4().String()+":80", fmt.Sprintf("[%v]:80", b.Addr6())))
			lab.Eventually(t, 5*time.Second, func() error {
				if n := p.scrape().sum("probed_conversations", nil); n < 20 {
					return fmt.Errorf("%v conversations", n)
				}
				return nil
			})
			p.signal(s)
			lab.Eventually(t, time.Second, func() error {
				if code, body := p.do("GET", "/-/ready"); code != http.StatusServiceUnavailable {
					return fmt.Errorf("ready: %d %s", code, body)
				}
				return nil
			})
			if n := p.scrape().sum("probed_conversations", nil); n < 10 {
				t.Errorf("%v conversations while those that are open are waited for", n)
			}
			if code := p.end(2500 * time.Millisecond); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, left := range lab.SS(a) {
				if left.State != "TIME-WAIT" { // the kernel's, of a scrape
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}

// TestTermClosesWhatIsOpen has the host's firewall keep the SYN-ACKs from its
// kernel, so that only probed's own RSTs close what is open at SIGTERM.
func TestTermClosesWhatIsOpen(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	a.NFT("table inet lab { chain input { type filter hook input priority 0; tcp sport 80 drop; }; }")
	p := start(t, a, simpleConfig("20ms", "900ms", b.Addr4().String()+":80", fmt.Sprintf("[%v]:80", b.Addr6())))
	lab.Eventually(t, 5*time.Second, func() error {
		if n := p.scrape().sum("probed_probes_total", nil); n < 20 {
			return fmt.Errorf("%v probes", n)
		}
		return nil
	})
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lab.Eventually(t, time.Second, func() error {
		if left := lab.SS(b, "syn-recv"); len(left) > 0 {
			return fmt.Errorf("half-open state left: %v", left)
		}
		return nil
	})
}

// TestKillLeavesNothing stops and kills probed while peers hold half-open
// state: their first retransmission gets the kernel's RST. Then probed starts
// again on the same ports at once.
func TestKillLeavesNothing(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	deaf := "table inet lab { chain input { type filter hook input priority 0; tcp sport 80 drop; }; }"
	config := simpleConfig("10ms", "900ms", b.Addr4().String()+":80", fmt.Sprintf("[%v]:80", b.Addr6()))
	p := start(t, a, config)
	a.NFT(deaf)
	lab.Eventually(t, 5*time.Second, func() error {
		p.signal(syscall.SIGSTOP)
		if n := len(lab.SS(b, "syn-recv")); n == 0 {
			p.signal(syscall.SIGCONT)
			return fmt.Errorf("no half-open state")
		}
		return nil
	})
	p.signal(syscall.SIGKILL)
	p.end(time.Second)
	if n := len(lab.SS(b, "syn-recv")); n == 0 {
		t.Error("no half-open state left to close: nothing is shown")
	}
	a.NFT("delete table inet lab")
	again := start(t, a, config)
	lab.Eventually(t, 3500*time.Millisecond, func() error {
		if left := lab.SS(b, "syn-recv"); len(left) > 0 {
			return fmt.Errorf("half-open state left: %v", left)
		}
		return nil
	})
	lab.Eventually(t, 5*time.Second, func() error {
		s := again.scrape()
		if n := s.sum("probed_handshake_rtt_seconds", nil); n < 10 {
			return fmt.Errorf("%v handshakes after the restart", n)
		}
		return nil
	})
	if code := stop(again); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
