package trust

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// probed does not run while more comes to its source ports than its tap's ring holds:
// what became of the probes that were under way nobody knows, and none is called lost.
func TestFaultTapOverrun(t *testing.T) {
	t.Parallel()
	const ring = 24_960 // frames: rawsock's default
	here, there := lab.Pair(t)
	servers(there)
	capture := here.Capture(t, here.Iface(), "tcp and not src host 198.18.0.9", lab.Immediate)
	d := start(t, here, everyKind(20))
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 100) })
	n := times(10, 2)
	var slowest time.Duration
	for range n {
		before := d.scrape()
		d.signal(syscall.SIGSTOP)
		flood(t, there, netip.MustParseAddrPort("198.18.0.9:80"), netip.AddrPortFrom(here.Addr4(), 61200), 2*ring)
		d.signal(syscall.SIGCONT)
		slowest = max(slowest, d.recovers(before, time.Now()))
	}
	d.signal(syscall.SIGSTOP)
	s, x := d.stopped(), exchanges(capture.Packets())
	if s.sum("probed_tap_drops_total") < ring/2 {
		t.Errorf("%.0f frames dropped: the ring did not run over", s.sum("probed_tap_drops_total"))
	}
	book(t, Row{
		Part: "fault", What: "tap's ring overrun", Tried: 2 * ring * n, Of: "segments",
		Probes: int(s.sum("probed_probes_total")), False: s.falsehoods(x), Discarded: s.ours(), Recovery: slowest,
		Left: lasting(there), Note: x.String(),
	})
	if t.Failed() {
		t.Log(s.told(x))
	}
}

// flood sends n segments from a host, as from, to a port of ours.
func flood(t *testing.T, h *lab.Host, from, to netip.AddrPort, n int) {
	t.Helper()
	tuple := probe.FourTuple{Local: from, Remote: to}
	b := wire.AppendPacket(nil, &tuple, &probe.Segment{Flags: probe.ACK, TTL: 64}, nil)
	var err error
	h.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return
		}
		defer unix.Close(fd)
		dst := &unix.SockaddrInet4{Addr: to.Addr().As4()}
		for range n {
			if err = unix.Sendto(fd, b, 0, dst); err != nil && err != unix.ENOBUFS {
				return
			}
		}
		err = nil
	})
	if err != nil {
		t.Fatal(os.NewSyscallError("sendto", err))
	}
}
