package trust

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Whoever sends probed's host segments in the name of others has next to nothing sent to
// them. To the guarded ports: nothing, and to a target that he names a ration within its
// limit. To the reserved ones our kernel answers as on every port of every host that
// nobody listens on: by one RST, shorter than what it answers, and none to a RST.
func TestFloodReflection(t *testing.T) {
	t.Parallel()
	const each = 100
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24", "198.18.65.0/24")
	there.Serve("tcp", "[::]:80", lab.Discard)
	d := start(t, here, fmt.Sprintf(`
global: {interval: 100ms, timeout: 90ms, limits: {packets_per_second_per_address: %d}}
modules: {close: {probe: active_close, interval: 500ms, timeout: 2s}}
jobs:
- {name: half, targets: ["198.18.64.1:80"]}
- {name: close, module: close, targets: ["198.18.64.2:80"]}
`, each))
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 20) })
	before := d.scrape()
	guarded := here.Capture(t, here.Iface(), "tcp and src portrange 61128-61255 and dst net 198.18.65.0/24", lab.Immediate)
	reserved := here.Capture(t, here.Iface(), "tcp and src portrange 61000-61127 and dst net 198.18.65.0/24", lab.Immediate)
	named := here.Capture(t, here.Iface(), fromOurs+" and dst net 198.18.64.0/24", lab.Immediate)

	kinds := []probe.Segment{
		{Flags: probe.SYN | probe.ACK, Window: 65535}, {Flags: probe.FIN | probe.ACK, Window: 65535},
		{Flags: probe.ACK | probe.PSH, Len: 100, Window: 65535}, {Flags: probe.ACK, Window: 65535},
		{Flags: probe.SYN, Window: 65535}, {Flags: probe.RST | probe.ACK}, {Flags: probe.RST}, {},
	}
	sent := times(1_000_000, 100_000)
	answerable, octets := 0, 0
	began := time.Now()
	inTheNameOf(t, there, sent, func(i int) (from netip.AddrPort, to uint16, seg probe.Segment) {
		seg = kinds[i/256%len(kinds)]
		seg.Seq, seg.Ack = probe.Seq(i)*2654435761, probe.Seq(i)*40503
		to = uint16(61000 + i%256)
		from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 65, byte(i / 7)}), uint16(1024+i%50000))
		switch i % 16 {
		case 0: // in the name of a target
			return netip.MustParseAddrPort("198.18.64.1:80"), uint16(61128 + i/16%128), seg
		case 1:
			return netip.MustParseAddrPort("198.18.64.2:80"), uint16(61128 + i/16%128), seg
		}
		if to < 61128 && !seg.Flags.Has(probe.RST) {
			answerable++
			octets += 40 + int(seg.Len)
		}
		return from, to, seg
	})
	took := time.Since(began)
	time.Sleep(time.Second)
	after := d.scrape()
	fromGuarded, fromReserved := leavers(t, guarded), leavers(t, reserved)
	for _, s := range fromReserved {
		if !s.Segment.Flags.Has(probe.RST) {
			t.Fatalf("%v to %v", s.Segment.Flags, s.Dst)
		}
	}
	if len(fromReserved) == 0 {
		t.Error("nothing was forged")
	}
	amplified := max(len(fromReserved)-answerable, 0) + max(40*len(fromReserved)-octets, 0)
	l := loadOf(leavers(t, named), 0, 20000, each)
	grew := func(name string, labels ...string) float64 {
		return after.sum(name, labels...) - before.sum(name, labels...)
	}
	failures := int(grew("probed_probe_failures_total"))
	// What left of the targets' own sockets is theirs: each ends with a close.
	book(t, Row{
		Part: "flood", What: "segments forged in the name of others, to be answered to them", Tried: sent, Of: "segments",
		Probes: int(grew("probed_probes_total")), False: len(fromGuarded) + amplified + l.above + failures,
		Discarded: int(grew("probed_probes_discarded_total") + grew("probed_probes_skipped_total")), Left: lasting(there),
		Note: fmt.Sprintf("%s a second; from guarded ports %d answers; from reserved ones our kernel's RSTs, %s to %s segments; to targets that were named %v (limit %d), probes included",
			thousands(int(float64(sent)/took.Seconds())), len(fromGuarded), thousands(len(fromReserved)), thousands(answerable), l, each),
	})
}

// inTheNameOf sends n segments from a host in the name of others, as fast as it can.
func inTheNameOf(t *testing.T, h *lab.Host, n int, of func(i int) (from netip.AddrPort, to uint16, seg probe.Segment)) {
	t.Helper()
	h.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 1}}
		payload := make([]byte, 1500)
		var b []byte
		for i := range n {
			from, port, seg := of(i)
			tuple := probe.FourTuple{Local: from, Remote: netip.AddrPortFrom(netip.AddrFrom4(to.Addr), port)}
			b = wire.AppendPacket(b[:0], &tuple, &seg, payload[:seg.Len])
			if err := unix.Sendto(fd, b, 0, to); err != nil && err != unix.ENOBUFS {
				t.Fatal(err)
			}
		}
	})
}
