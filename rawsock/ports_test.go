package rawsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	reservedPort = 61000
	guardedPort  = 61001
	peerPort     = 443
)

// hold opens one port of each pool.
func holdBoth(t testing.TB, ns *namespace) {
	t.Helper()
	var reserved, guarded *Ports
	ns.must(t, func() (err error) {
		if reserved, err = ReservePorts(reservedPort, reservedPort); err != nil {
			return err
		}
		guarded, err = GuardPorts(guardedPort, guardedPort)
		return err
	})
	t.Cleanup(func() {
		if err := errors.Join(reserved.Close(), guarded.Close()); err != nil {
			t.Error(err)
		}
	})
}

// stimuli are every kind of segment that a kernel might answer, low TTL and
// 255, from a port of the peer's to one of ours.
func stimuli(from, to netip.AddrPort) []Packet {
	var packets []Packet
	for _, flags := range []byte{syn | ack, ack, fin | ack, fin, psh | ack, rst, rst | ack, syn, 0} {
		for _, ttl := range []uint8{64, 255} {
			s := seg{from: from, to: to, flags: flags, seq: 1000 + uint32(flags)}
			if flags == psh|ack {
				s.payload = []byte("data")
			}
			p := s.packet()
			p.TTL = ttl
			packets = append(packets, p)
		}
	}
	return packets
}

// answersTo injects the packets at the sender's side and returns what the
// tap's kernel sent from the port. Waiting ends when a RST in answer to a
// SYN-ACK to the reserved port shows that everything before it is done.
func answersTo(t *testing.T, tap *Tap, sender *Sender, from netip.AddrPort, addr netip.Addr, port uint16) []kept {
	t.Helper()
	to := netip.AddrPortFrom(addr, port)
	sender.Send(stimuli(from, to), noFailure(t))
	last := seg{from: netip.AddrPortFrom(from.Addr(), from.Port()+1), to: netip.AddrPortFrom(addr, reservedPort), flags: syn | ack}
	sender.Send([]Packet{last.packet()}, noFailure(t))
	isLast := func(f kept) bool {
		return f.Outgoing && f.seg.flags&rst != 0 && f.seg.from == last.to && f.seg.to == last.from
	}
	frames := collect(t, tap, 3*time.Second, func(all []kept) bool { return slices.ContainsFunc(all, isLast) })
	if !slices.ContainsFunc(frames, isLast) {
		t.Fatalf("no RST from the reserved port:\n%s", summary(frames))
	}
	frames = append(frames, collect(t, tap, 100*time.Millisecond, forTime)...)
	var answers []kept
	for _, f := range frames {
		if f.Outgoing && f.seg.from == to && f.seg.to == from {
			answers = append(answers, f)
		}
	}
	return answers
}

// A real peer's segments, and forged ones of every kind: the kernel resets
// what comes to a reserved port and says nothing from a guarded one.
func TestPortsAnswerToPeer(t *testing.T) {
	here, there := newVeth(t)
	holdBoth(t, here)
	tap := newTap(t, here, TapConfig{FirstPort: reservedPort, LastPort: guardedPort})
	sender := newSender(t, there)
	for _, pair := range pairs {
		from, ours := addrPort(pair[1], peerPort), netip.MustParseAddr(pair[0])
		if a := answersTo(t, tap, sender, from, ours, guardedPort); len(a) != 0 {
			t.Errorf("from the guarded port:\n%s", summary(a))
		}
		// SYN-ACK, ACK, FIN, data, SYN and no flags at all are reset, a RST not.
		a := answersTo(t, tap, sender, from, ours, reservedPort)
		if want := len(stimuli(from, from)) - 4; len(a) != want {
			t.Errorf("%d answers from the reserved port, want %d:\n%s", len(a), want, summary(a))
		}
		for _, f := range a {
			if f.seg.flags&rst == 0 {
				t.Errorf("from the reserved port: %+v", f.seg)
			}
		}
	}
}

func TestPortsAnswerOnLoopback(t *testing.T) {
	ns := newNamespace(t)
	holdBoth(t, ns)
	tap := newTap(t, ns, TapConfig{FirstPort: reservedPort, LastPort: guardedPort})
	sender := newSender(t, ns)
	for _, addr := range []string{"127.0.0.1", "::1"} {
		from, ours := addrPort(addr, peerPort), netip.MustParseAddr(addr)
		if a := answersTo(t, tap, sender, from, ours, guardedPort); len(a) != 0 {
			t.Errorf("from the guarded port:\n%s", summary(a))
		}
		if a := answersTo(t, tap, sender, from, ours, reservedPort); len(a) == 0 {
			t.Error("silence from the reserved port")
		}
	}
}

// What each of the guard's checks holds back by itself: the filter and the MD5
// key everything, the TTL all but what comes with 255.
func TestGuardChecks(t *testing.T) {
	here, there := newVeth(t)
	holdBoth(t, here)
	for i, check := range []struct {
		name    string
		prepare func(fd, family int) error
		answers bool // to TTL 255
	}{
		{"none", func(int, int) error { return nil }, true},
		{"filter", func(fd, _ int) error { return attachFilter(fd, dropAll()) }, false},
		{"MD5", func(fd, family int) error { return requireMD5(fd, family, []byte("key")) }, false},
		{"TTL", requireTTL, true},
	} {
		port := uint16(61100 + i)
		var ports *Ports
		here.must(t, func() (err error) {
			ports, err = holdPorts(port, port, check.prepare, true)
			return err
		})
		tap := newTap(t, here, TapConfig{FirstPort: reservedPort, LastPort: port})
		sender := newSender(t, there)
		for _, pair := range pairs {
			a := answersTo(t, tap, sender, addrPort(pair[1], peerPort), netip.MustParseAddr(pair[0]), port)
			if (len(a) > 0) != check.answers {
				t.Errorf("%s, %s: answers\n%s", check.name, pair[0], summary(a))
			}
			if check.name == "TTL" && len(a) >= len(stimuli(netip.AddrPort{}, netip.AddrPort{}))-4 {
				t.Errorf("%s, %s: low TTLs are answered too:\n%s", check.name, pair[0], summary(a))
			}
		}
		if err := ports.Close(); err != nil {
			t.Error(err)
		}
	}
}

// On a host without IPv6 the guard is an IPv4 socket.
func TestGuardIPv4Only(t *testing.T) {
	here, there := newVeth(t)
	holdBoth(t, here)
	const port = 61100
	var fd int
	here.must(t, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			requireTTL(fd, unix.AF_INET),
			requireMD5(fd, unix.AF_INET, []byte("key")),
			bindAny(fd, unix.AF_INET, port),
			unix.Listen(fd, 1))
	})
	defer unix.Close(fd)
	tap := newTap(t, here, TapConfig{FirstPort: reservedPort, LastPort: port})
	sender := newSender(t, there)
	if a := answersTo(t, tap, sender, addrPort(pairs[0][1], peerPort), netip.MustParseAddr(pairs[0][0]), port); len(a) != 0 {
		t.Errorf("answers\n%s", summary(a))
	}
}

// Nobody else gets a held port: bind fails on every address, and connect takes
// a port of the range that is left.
func TestPortsAreHeld(t *testing.T) {
	here, there := newVeth(t)
	holdBoth(t, here)
	listen(t, there, peerPort)
	here.must(t, func() error {
		ports := fmt.Appendf(nil, "%d %d", reservedPort, guardedPort+2)
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", ports, 0o644)
	})
	for _, pair := range pairs {
		here.must(t, func() error {
			to := addrPort(pair[1], peerPort)
			for _, port := range []int{reservedPort, guardedPort} {
				for _, addr := range []string{pair[0], ""} {
					_, err := net.Listen("tcp", net.JoinHostPort(addr, fmt.Sprint(port)))
					if !errors.Is(err, unix.EADDRINUSE) {
						return fmt.Errorf("listen on %q port %d: error %w", addr, port, err)
					}
				}
			}
			for range 5 {
				conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
				if err != nil {
					return err
				}
				if port := conn.LocalAddr().(*net.TCPAddr).Port; port <= guardedPort {
					return fmt.Errorf("connect took port %d", port)
				}
				if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// The error names the port that is taken and what to do, whoever holds it.
func TestPortInUse(t *testing.T) {
	ns := newNamespace(t)
	for _, pool := range []struct {
		name string
		open func(first, last uint16) (*Ports, error)
	}{{"reserved", ReservePorts}, {"guarded", GuardPorts}} {
		for _, holder := range []string{"127.0.0.1:61007", "[::1]:61007", "[::]:61007"} {
			ns.must(t, func() error {
				taken, err := net.Listen("tcp", holder)
				if err != nil {
					return err
				}
				defer taken.Close()
				ports, err := pool.open(61000, 61010)
				if err == nil {
					return errors.Join(fmt.Errorf("%s beside %s", pool.name, holder), ports.Close())
				}
				const want = "source port 61007 is in use by another socket (see ss -tanp 'sport = :61007'): " +
					"choose another source_ports range"
				if err.Error() != want || !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("%s beside %s: %v", pool.name, holder, err)
				}
				return nil
			})
		}
		// The ports that had been taken before the error are free again.
		ns.must(t, func() error {
			ports, err := pool.open(61000, 61010)
			if err != nil {
				return err
			}
			return errors.Join(ports.Close(), ports.Close())
		})
	}
	for _, r := range [][2]uint16{{0, 3}, {3, 2}} {
		if _, err := ReservePorts(r[0], r[1]); err == nil {
			t.Errorf("range %d-%d is accepted", r[0], r[1])
		}
	}
}

func TestPortsNeedFiles(t *testing.T) {
	err := portError(61007, fmt.Errorf("socket: %w", unix.EMFILE))
	if want := "source port 61007: socket: too many open files: raise the limit of open files (LimitNOFILE)"; err.Error() != want {
		t.Errorf("%v", err)
	}
}

// BenchmarkPorts opens and closes the default pools, 128 ports each.
func BenchmarkPorts(b *testing.B) {
	ns := newNamespace(b)
	for _, pool := range []struct {
		name string
		open func(first, last uint16) (*Ports, error)
	}{{"reserved", ReservePorts}, {"guarded", GuardPorts}} {
		b.Run(pool.name, func(b *testing.B) {
			for b.Loop() {
				ns.must(b, func() error {
					ports, err := pool.open(61000, 61127)
					if err != nil {
						return err
					}
					return ports.Close()
				})
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1e3, "ms/128-ports")
			ns.must(b, func() error {
				before, err := slab()
				if err != nil {
					return err
				}
				ports, err := pool.open(61000, 61127)
				if err != nil {
					return err
				}
				after, err := slab()
				b.ReportMetric(float64(after-before)/1024, "kernel-MiB")
				return errors.Join(err, ports.Close())
			})
		})
	}
}

// slab is the kernel's object memory in KiB, the whole machine's.
func slab() (int, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Slab: %d kB", &kib); n == 1 {
			return kib, nil
		}
	}
	return 0, errors.New("no Slab in /proc/meminfo")
}
