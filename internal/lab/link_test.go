package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/probe/wire"
	"golang.org/x/sys/unix"
)

// linked returns two hosts joined by a link and a port at b that takes UDP.
func linked(t *testing.T, aToB, bToA Direction) (*Link, *net.UDPConn) {
	t.Helper()
	l := New(t)
	k := l.Link(l.Host("a"), l.Host("b"), aToB, bToA)
	var to *net.UDPConn
	k.B.Host.Do(func() {
		var err error
		if to, err = net.ListenUDP("udp", &net.UDPAddr{Port: 9}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = to.Close() })
	return k, to
}

// datagrams sends n numbered datagrams of size octets from a's port to b.
func datagrams(t *testing.T, k *Link, port uint16, n, size int, pause time.Duration) {
	t.Helper()
	k.A.Host.Do(func() {
		from, to := netip.AddrPortFrom(k.A.Addr4, port), netip.AddrPortFrom(k.B.Addr4, 9)
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		payload := make([]byte, size)
		for i := range n {
			binary.BigEndian.PutUint32(payload, uint32(i))
			if _, err := c.Write(payload); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pause)
		}
	})
}

// number is a datagram's.
func number(ip []byte) uint32 { return binary.BigEndian.Uint32(ip[28:]) }

// within99 fails unless k of n is within the 99.9 % interval of probability p.
func within99(t *testing.T, what string, k, n int, p float64) {
	t.Helper()
	mean, sd := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(k)-mean) > 3.29*sd+0.5 {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, k, n, mean, 3.29*sd)
	}
}

func TestLinkDelaysAndNeverEarly(t *testing.T) {
	t.Parallel()
	const delay, jitter = 10 * time.Millisecond, 2 * time.Millisecond
	k, _ := linked(t, Direction{Impairment: Impairment{Delay: delay, Jitter: jitter}}, Direction{})
	datagrams(t, k, 5000, 300, 12, time.Millisecond)
	k.AtoB.Settle(5 * time.Second)
	var took []time.Duration
	for _, r := range k.AtoB.Records() {
		d := time.Duration(r.Departed.Mono - r.Arrived.Mono)
		if d < delay-jitter {
			t.Errorf("a packet left after %v", d)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	if n := len(took); n != 300 {
		t.Fatalf("%d packets", n)
	}
	if took[75] > delay+jitter || took[270]-took[30] < jitter {
		t.Errorf("delays from %v by %v to %v: not spread over %v ± %v", took[0], took[75], took[299], delay, jitter)
	}
}

func TestLinkLosesDuplicatesAndReorders(t *testing.T) {
	t.Parallel()
	const n = 5000
	m := Impairment{Delay: time.Millisecond, Loss: 0.1, Duplicate: 0.05, Reorder: 0.2, Hold: 3 * time.Millisecond}
	k, _ := linked(t, Direction{Impairment: m, Seed: 1}, Direction{})
	capture := k.B.Host.Capture(t, k.B.Iface, "udp port 9", Immediate)
	datagrams(t, k, 5000, n, 12, 20*time.Microsecond)
	k.AtoB.Settle(5 * time.Second)
	records := k.AtoB.Records()
	var lost, copies, held int
	var passed []Record
	for _, r := range records {
		switch {
		case r.Fate == Lost:
			lost++
			if !r.Departed.IsZero() {
				t.Errorf("lost and departed: %+v", r)
			}
			continue
		case r.Duplicate:
			copies++
		case r.Held:
			held++
		}
		if r.Fate != Passed {
			t.Errorf("fate %v", r.Fate)
		}
		passed = append(passed, r)
	}
	within99(t, "lost", lost, n, m.Loss)
	within99(t, "duplicated", copies, n-lost, m.Duplicate)
	within99(t, "held", held, n-lost, m.Reorder)
	if len(records) != n+copies {
		t.Errorf("%d records of %d packets and %d copies", len(records), n, copies)
	}

	// The record and the capture agree: each packet, in order of departure.
	slices.SortStableFunc(passed, func(a, b Record) int { return int(a.Departed.Mono - b.Departed.Mono) })
	arrived := capture.Packets()
	if len(arrived) != len(passed) {
		t.Fatalf("%d packets arrived, %d departed", len(arrived), len(passed))
	}
	overtaken, highest := 0, uint32(0)
	for i, p := range arrived {
		if number(p.Data) != number(passed[i].Head()) || p.Outgoing {
			t.Fatalf("packet %d: %d arrived, %d departed", i, number(p.Data), number(passed[i].Head()))
		}
		if number(p.Data) < highest {
			overtaken++
		}
		highest = max(highest, number(p.Data))
	}
	if overtaken == 0 {
		t.Error("nothing was overtaken")
	}
}

func TestLinkOfTheSameSeedFaresTheSame(t *testing.T) {
	t.Parallel()
	var fates [2][]Fate
	for i := range fates {
		k, _ := linked(t, Direction{Impairment: Impairment{Loss: 0.5}, Seed: 7}, Direction{Impairment: Impairment{Loss: 0.5}, Seed: 7})
		datagrams(t, k, 5000, 200, 12, 0)
		k.AtoB.Settle(time.Second)
		for _, r := range k.AtoB.Records() {
			fates[i] = append(fates[i], r.Fate)
		}
	}
	if len(fates[0]) != 200 || !slices.Equal(fates[0], fates[1]) {
		t.Error("two runs of one seed differ")
	}
}

func TestLinkTreatsFlowsApart(t *testing.T) {
	t.Parallel()
	const flows, each = 64, 10
	k, _ := linked(t, Direction{PerFlow: Paths(3, Impairment{}, Impairment{Loss: 1})}, Direction{})
	for port := range uint16(flows) {
		datagrams(t, k, 5000+port, each, 12, 0)
	}
	k.AtoB.Settle(time.Second)
	passed := map[Flow]int{}
	for _, r := range k.AtoB.Records() {
		flow, ok := flowOf(r.Head())
		if !ok {
			t.Fatalf("no flow: %x", r.Head())
		}
		passed[flow] += 0
		if r.Fate == Passed {
			passed[flow]++
		}
	}
	lossy := 0
	for flow, n := range passed {
		if n != 0 && n != each {
			t.Errorf("%v: %d of %d passed", flow, n, each)
		}
		if n == 0 {
			lossy++
		}
	}
	if len(passed) != flows {
		t.Errorf("%d flows", len(passed))
	}
	within99(t, "flows on the lossy path", lossy, flows, 0.5)
}

func TestLinkAboveMTUIsARouter(t *testing.T) {
	t.Parallel()
	narrow := Direction{Impairment: Impairment{MTU: 1300}}
	k, _ := linked(t, narrow, Direction{})
	sent := bytes.Repeat([]byte("every octet arrives "), 10000)
	for _, to := range []netip.Addr{k.B.Addr4, k.B.Addr6} {
		got := make(chan []byte, 1)
		ln := k.B.Host.Serve("tcp", hostPort(to, 0), func(c net.Conn) {
			b, _ := io.ReadAll(c)
			got <- b
		})
		c, err := k.A.Host.Dial("tcp", ln.Addr().String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		select {
		case b := <-got:
			if !bytes.Equal(b, sent) {
				t.Errorf("%s: %d octets arrived of %d", to, len(b), len(sent))
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: path MTU discovery failed", to)
		}
	}
	tooBig := map[byte]int{}
	for _, r := range k.AtoB.Records() {
		if r.Fate == TooBig {
			tooBig[r.Head()[0]>>4]++
		} else if r.Length > 1300 {
			t.Errorf("%d octets: %v", r.Length, r.Fate)
		}
	}
	if tooBig[4] == 0 || tooBig[6] == 0 {
		t.Errorf("too big, by IP version: %v", tooBig)
	}
	counters := k.A.Host.Counters()
	if counters["IcmpInDestUnreachs"] == 0 || counters["Icmp6InPktTooBigs"] == 0 {
		t.Error("the sender's kernel saw no ICMP")
	}
}

func TestLinkFragmentsWhatMayBe(t *testing.T) {
	t.Parallel()
	k, to := linked(t, Direction{Impairment: Impairment{MTU: 600}}, Direction{})
	k.A.Host.Sysctl("net.ipv4.ip_no_pmtu_disc", "1") // sends without DF
	datagrams(t, k, 5000, 1, 1400, 0)
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	if n, err := to.Read(b); err != nil || n != 1400 {
		t.Errorf("read %d octets, %v", n, err)
	}
	if n := len(k.AtoB.Records()); n != 3 {
		t.Errorf("%d fragments, want 3", n)
	}
}

func TestLinkTakesHopsOffTheTTL(t *testing.T) {
	t.Parallel()
	k, _ := linked(t, Direction{Impairment: Impairment{Hops: 7}}, Direction{})
	k.B.Host.Listen("tcp", "[::]:80")
	capture := k.B.Host.Capture(t, k.B.Iface, "", Immediate)
	for _, to := range []netip.Addr{k.B.Addr4, k.B.Addr6} {
		if got := dial(t, k.A.Host, hostPort(to, 80), time.Second); got != "connected" {
			t.Errorf("%s: %s", to, got)
		}
	}
	for _, c := range capture.Packets() {
		var p wire.Packet
		if err := wire.Parse(c.Data, &p); err != nil || p.Kind != wire.KindTCP {
			continue
		}
		want := uint8(64 - 7)
		if c.Outgoing {
			want = 64
		}
		if p.Segment.TTL != want {
			t.Errorf("TTL %d, want %d", p.Segment.TTL, want)
		}
	}
	k.AtoB.Set(Direction{Impairment: Impairment{Hops: 64}})
	datagrams(t, k, 5000, 1, 12, 0)
	for deadline := time.Now().Add(5 * time.Second); k.A.Host.Counters()["IcmpInTimeExcds"] == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no time exceeded came back")
		}
	}
}

// linkWithoutThreads is a pipe between real devices that the test drives.
func linkWithoutThreads(tb testing.TB, how Direction) *Pipe {
	tb.Helper()
	l := New(tb)
	ea, eb := l.ends(l.Host("a"), l.Host("b"), "tun")
	a, b := openTUN(ea), openTUN(eb)
	tb.Cleanup(func() {
		_ = unix.Close(a.fd)
		_ = unix.Close(b.fd)
	})
	return l.pipe(a, b, how, 1)
}

func TestLinkDoesNotAllocate(t *testing.T) {
	p := linkWithoutThreads(t, Direction{
		Impairment: Impairment{Loss: 0.1, Duplicate: 0.1, Hops: 1},
		PerFlow:    Paths(1, Impairment{}, Impairment{Jitter: time.Microsecond}),
	})
	packet := wire.AppendIPv4(nil, &wire.IPv4Header{Src: p.from.end.Addr4, Dst: p.to.end.Addr4, Protocol: 17, TTL: 64}, make([]byte, 40))
	one := func() {
		p.arrive(p.pump.clock.now(), packet)
		for len(p.pump.queue) > 0 {
			p.pump.sendDue()
		}
	}
	if n := testing.AllocsPerRun(5000, one); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestLinkBadImpairments(t *testing.T) {
	t.Parallel()
	for _, m := range []Impairment{{Loss: 1.1}, {Loss: -0.1}, {Duplicate: math.NaN()}, {Reorder: 0.5}, {MTU: 500}} {
		if m.check() == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}

func TestFlowHashSpreads(t *testing.T) {
	t.Parallel()
	var path [4]int
	const n = 4000
	for port := range uint16(n) {
		f := Flow{netip.MustParseAddrPort(fmt.Sprint("198.18.0.1:", 61000)), netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), port), 6}
		path[f.Hash(1)%4]++
	}
	for i, k := range path {
		within99(t, fmt.Sprint("path ", i), k, n, 0.25)
	}
}
