package trust

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A soakKind is a fault that comes and goes.
type soakKind struct {
	name string
	ours bool // the network is well meanwhile: no probe may fail
	run  func(time.Duration)
}

// A soakFault is one that was.
type soakFault struct {
	kind                                 string
	failed, discarded, tapDrops, skipped int
	recovery                             time.Duration
}

// faults are those that come in turn.
func (s *soak) faults() []soakKind {
	return []soakKind{
		{name: "link down", run: s.linkDown},
		{name: "SIGSTOP", ours: true, run: s.stopped},
		{name: "port closed", run: s.portClosed},
		{name: "forged RSTs", ours: true, run: s.forged},
		{name: "loss of a quarter", run: s.loss},
		{name: "SIGSTOP and forged RSTs", ours: true, run: s.pressed},
	}
}

// linkDown takes the rough peer's device down.
func (s *soak) linkDown(length time.Duration) {
	set := func(change func(netlink.Link) error) {
		s.rough.Do(func() {
			link, err := netlink.LinkByName(s.rough.end.Iface)
			if err == nil {
				err = change(link)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		})
	}
	set(netlink.LinkSetDown)
	time.Sleep(length)
	set(netlink.LinkSetUp)
}

// portClosed has the rough peer refuse.
func (s *soak) portClosed(length time.Duration) {
	s.rough.port()
	time.Sleep(length)
	s.rough.open()
}

// loss has the rough peer lose what comes from a quarter of the ports.
func (s *soak) loss(length time.Duration) {
	s.rough.NFT("add rule inet soak input tcp sport 61000-61031 drop\n")
	time.Sleep(length)
	s.rough.NFT("flush chain inet soak input\n")
}

// stopped stops probed for a second, or for as long as a fault lasts if that is less.
func (s *soak) stopped(length time.Duration) {
	s.d.signal(syscall.SIGSTOP)
	time.Sleep(min(length, time.Second))
	s.d.signal(syscall.SIGCONT)
}

// pressed is stopped, and more segments meanwhile than the tap's ring holds.
func (s *soak) pressed(length time.Duration) {
	s.d.signal(syscall.SIGSTOP)
	s.forge(min(length, time.Second))
	s.d.signal(syscall.SIGCONT)
}

func (s *soak) forged(length time.Duration) { s.forge(length) }

// forge sends RSTs as they would come from the rough targets, to our ports, with
// sequence numbers by chance, as fast as one goroutine can. Nothing answers a RST.
func (s *soak) forge(length time.Duration) {
	var fd int
	var err error
	s.rough.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
	if err != nil {
		s.t.Fatal(os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	us := s.rough.here.Addr4
	to := &unix.SockaddrInet4{Addr: us.As4()}
	var packet []byte
	for end, n := time.Now().Add(length), 0; n%64 != 0 || time.Now().Before(end); n++ {
		from := netip.MustParseAddr(s.rough.address(1 + n%s.half()))
		tuple := probe.FourTuple{
			Local:  netip.AddrPortFrom(from, 80),
			Remote: netip.AddrPortFrom(us, uint16(61000+n%256)),
		}
		segment := probe.Segment{Seq: probe.Seq(rand.Uint32()), Ack: probe.Seq(rand.Uint32()), Flags: probe.RST | probe.ACK, TTL: 64}
		packet = wire.AppendPacket(packet[:0], &tuple, &segment, nil)
		binary.NativeEndian.PutUint16(packet[4:], uint16(n))
		switch err := unix.Sendto(fd, packet, 0, to); {
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
		case err != nil:
			s.t.Fatal(fmt.Errorf("a forged segment: %w", err))
		}
	}
}
