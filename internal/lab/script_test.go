package lab

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// byPort answers by the port that a segment is for.
func byPort(in wire.Packet) []Reply {
	if in.Kind != wire.KindTCP || !in.Segment.Flags.Has(probe.SYN) {
		return nil
	}
	unreachable := uint8(3)
	if in.Dst.Is6() {
		unreachable = 1
	}
	switch in.DstPort {
	case 80:
		return Listen(in)
	case 81:
		return []Reply{RST(in)}
	case 82: // host unreachable; address unreachable
		return []Reply{ICMPError(unreachable, map[uint8]uint8{3: 1, 1: 3}[unreachable])}
	case 83:
		r := SYNACK(in)
		r.BadChecksum = true
		return []Reply{r}
	case 84:
		r := SYNACK(in)
		r.Delay = 50 * time.Millisecond
		return []Reply{r}
	case 85: // from a router, not from the peer
		r := ICMPError(unreachable, 0)
		r.ICMP.Src = netip.MustParseAddr("198.18.127.1")
		if in.Dst.Is6() {
			r.ICMP.Src = netip.MustParseAddr("2001:db8:ffff::1")
		}
		return []Reply{r}
	}
	return nil
}

var peerPrefixes = []string{"198.18.64.0/18", "2001:db8:1::/48"}

func scriptedOutcomes(t *testing.T, client *Host) {
	t.Helper()
	want := map[uint16]string{
		80: "connected", 81: "refused", 82: "host unreachable", 83: "timeout", 84: "connected",
		85: "network unreachable", 86: "timeout",
	}
	var wg sync.WaitGroup
	for port, outcome := range want {
		for _, addr := range []string{"198.18.99.7", "2001:db8:1:2:3:4:5:6"} {
			wg.Go(func() {
				if got := dial(t, client, hostPort(netip.MustParseAddr(addr), port), 1500*time.Millisecond); got != outcome {
					t.Errorf("%s port %d: %s, want %s", addr, port, got, outcome)
				}
			})
		}
	}
	wg.Wait()
}

func TestScriptedPeerBesideTheClient(t *testing.T) {
	t.Parallel()
	h := NewHost(t, "h")
	p := ScriptedPeer(t, h, peerPrefixes, byPort)
	scriptedOutcomes(t, h)
	delayed := slices.ContainsFunc(p.Heard(), func(x Heard) bool {
		return x.Packet.DstPort == 84 && x.Packet.Segment.Flags == probe.ACK
	})
	if !delayed {
		t.Error("the peer did not hear the handshake's ACK")
	}
}

func TestScriptedPeerBehindALink(t *testing.T) {
	t.Parallel()
	l := New(t)
	client, server := l.Host("client"), l.Host("server")
	slow := Direction{Impairment: Impairment{Delay: 3 * time.Millisecond}}
	k := l.Link(client, server, slow, slow)
	ScriptedPeer(t, server, peerPrefixes, byPort)
	scriptedOutcomes(t, client)
	k.AtoB.Settle(time.Second)
	for _, r := range k.AtoB.Records() {
		if p, err := r.Packet(); err != nil || !p.Dst.IsValid() {
			t.Errorf("%x: %v", r.Head(), err)
		}
	}
}

func TestScriptedRepliesAreAsWritten(t *testing.T) {
	t.Parallel()
	h := NewHost(t, "h")
	raw := wire.AppendIPv4(nil, &wire.IPv4Header{
		Src: netip.MustParseAddr("198.18.64.1"), Dst: netip.MustParseAddr("198.18.0.1"), Protocol: 99, TTL: 9,
	}, []byte("raw"))
	const iss = 1000
	script := func(in wire.Packet) []Reply {
		if in.Kind != wire.KindTCP || in.Segment.Flags != probe.SYN {
			return nil
		}
		data := Answer(in, probe.PSH|probe.ACK, 5, 7)
		data.Segment.Seq, data.Segment.TTL, data.Payload = iss, 33, []byte("payload")
		bad := Answer(in, probe.ACK, 0, 1)
		bad.BadChecksum, bad.Delay = true, time.Millisecond
		elsewhere := Answer(in, probe.RST, 0, 0)
		elsewhere.From, elsewhere.Delay = netip.MustParseAddrPort("198.18.64.9:99"), 2*time.Millisecond
		return []Reply{data, bad, elsewhere, {Raw: raw, Delay: 3 * time.Millisecond}}
	}
	p := ScriptedPeer(t, h, []string{"198.18.64.0/18"}, script)
	capture := h.Capture(t, h.Iface(), "", Immediate)
	dial(t, h, "198.18.64.1:80", 100*time.Millisecond)
	heard := p.Heard()
	if len(heard) == 0 {
		t.Fatal("no SYN")
	}
	syn := heard[0].Packet
	var got []wire.Packet
	for _, c := range capture.Packets() {
		if c.Outgoing {
			continue
		}
		var in wire.Packet
		if err := wire.Parse(c.Data, &in); err != nil {
			t.Errorf("%x: %v", c.Data, err)
		}
		got = append(got, in)
	}
	if len(got) < 4 {
		t.Fatalf("%d replies", len(got))
	}
	data, bad, elsewhere, last := got[0], got[1], got[2], got[3]
	if data.Segment.Seq != iss || data.Segment.Ack != syn.Segment.Seq+7 || data.Segment.TTL != 33 ||
		string(data.Payload) != "payload" || data.Checksum != wire.ChecksumValid {
		t.Errorf("data: %+v", data)
	}
	if bad.Checksum != wire.ChecksumBad || bad.Segment.Seq != ISS(syn) {
		t.Errorf("bad checksum: %+v", bad)
	}
	if elsewhere.Src != netip.MustParseAddr("198.18.64.9") || elsewhere.SrcPort != 99 || elsewhere.DstPort != syn.SrcPort {
		t.Errorf("from elsewhere: %+v", elsewhere)
	}
	if last.Protocol != 99 || last.Segment.TTL != 9 {
		t.Errorf("raw: %+v", last)
	}
}
