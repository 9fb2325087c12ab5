package trust

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A sender sends IP packets as they are, by a packet socket to a neighbour's device, so
// that nothing checks their source. It is one goroutine's.
type sender struct {
	fd       int
	name     unix.RawSockaddrLinklayer
	messages [senderBatch]mmsghdr
	iovecs   [senderBatch]unix.Iovec
	names    [senderBatch]unix.RawSockaddrLinklayer
	packets  [senderBatch][]byte
	alone    bool // the machine is the test's own: the rate is to be reached
}

// senderBatch is how many packets go by one sendmmsg(2).
const senderBatch = 32

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	sent   uint32
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// newSender sends from one end of a wire to the other's device.
func newSender(t *testing.T, from, to *lab.End) *sender {
	t.Helper()
	s := &sender{fd: -1}
	var mac net.HardwareAddr
	to.Host.Do(func() {
		i, err := net.InterfaceByName(to.Iface)
		if err != nil {
			t.Fatal(err)
		}
		mac = i.HardwareAddr
	})
	from.Host.Do(func() {
		i, err := net.InterfaceByName(from.Iface)
		if err != nil {
			t.Fatal(err)
		}
		s.name = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(i.Index), Halen: 6}
		copy(s.name.Addr[:], mac)
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(os.NewSyscallError("socket", err))
		}
	})
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	return s
}

// send sends what packets has: n of them. It returns how many the kernel took.
func (s *sender) send(n int) (int, error) {
	for i := range n {
		s.names[i] = s.name
		s.names[i].Protocol = htons(unix.ETH_P_IP)
		if s.packets[i][0]>>4 == 6 {
			s.names[i].Protocol = htons(unix.ETH_P_IPV6)
		}
		s.iovecs[i].Base = &s.packets[i][0]
		s.iovecs[i].SetLen(len(s.packets[i]))
		h := &s.messages[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.names[i])), unix.SizeofSockaddrLinklayer
		h.Iov = &s.iovecs[i]
		h.SetIovlen(1)
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[0])), uintptr(n), 0, 0, 0)
	switch errno {
	case 0:
		return int(sent), nil
	case unix.ENOBUFS, unix.EINTR, unix.EAGAIN:
		return 0, nil
	}
	return 0, os.NewSyscallError("sendmmsg", errno)
}

// A victim is who is attacked, and what the attacker knows of him: the targets' addresses
// and ports, and those of the prober.
type victim struct {
	local4, local6 netip.Addr
	targets        []netip.AddrPort
	first, last    uint16 // source ports
	split          uint16 // the first guarded one
}

// A crook forges segments. It is one goroutine's.
type crook struct {
	*victim
	rng   *rand.Rand
	spy   *spy // nil: he sees nothing
	names bool // the last packet names a target and a port of the prober's: it is to be counted
}

// A kind of forgery appends a packet, or nothing if there is none to forge now.
type kind func(c *crook, b []byte) []byte

// An attack is what came of one.
type attack struct {
	sent  int // segments
	named int // that name a target, so that they are to be counted
	took  time.Duration
}

// rate is the segments per second.
func (a attack) rate() float64 { return float64(a.sent) / a.took.Seconds() }

// behind is by how much an attack may be late and catch up with what it has not sent.
func (s *sender) behind() time.Duration {
	if s.alone {
		return 500 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// hurry has this thread run before others until it is told to stop, where the machine is
// the test's own: an attacker has one of his own, which nothing else here slows down.
func (s *sender) hurry(t *testing.T) (stop func()) {
	t.Helper()
	if !s.alone {
		return func() {}
	}
	set := func(nice int) {
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice); err != nil {
			t.Error(os.NewSyscallError("setpriority", err))
		}
	}
	set(-10)
	return func() { set(0) }
}

// attack forges for so long, at so many a second at most.
func (s *sender) attack(t *testing.T, c *crook, k kind, rate float64, d time.Duration) attack {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer s.hurry(t)()
	late := s.behind()
	var a attack
	start := time.Now()
	next := start
	each := float64(time.Second) / rate
	for {
		now := time.Now()
		// Where nothing could be forged yet, for want of a conversation that has been seen, it goes on.
		if a.took = now.Sub(start); a.took >= d && (a.sent > 0 || a.took > d+patience) {
			return a
		}
		if wait := next.Sub(now); wait > 0 {
			pause(min(wait, time.Millisecond))
			continue
		}
		if now.Sub(next) > late {
			next = now.Add(-late)
		}
		n, named := 0, 0
		for range senderBatch {
			c.names = true
			b := k(c, s.packets[n][:0])
			if len(b) == 0 {
				continue
			}
			if s.packets[n] = b; c.names {
				named++
			}
			n++
		}
		if n == 0 { // there is no such conversation now
			pause(100 * time.Microsecond)
			continue
		}
		sent, err := s.send(n)
		if err != nil {
			t.Fatal(err)
		}
		next = next.Add(time.Duration(each * float64(max(sent, 1))))
		a.sent += sent
		a.named += named * sent / n
	}
}

// pause sleeps, without the runtime's timers.
func pause(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}

// A spy watches a device that the conversations cross, and knows their numbers: of the
// last few thousand, and of those before on the same four-tuples what the peers sent.
type spy struct {
	mu     sync.Mutex
	byName map[probe.FourTuple]*watched
	recent []*watched // a ring
	next   int
}

// A watched conversation.
type watched struct {
	tuple    probe.FourTuple // the peer's end first
	iss, irs probe.Seq
	opened   time.Time
	answered time.Time // zero: not yet
	number   int
	said     [][]byte // packets of the peer
	before   [][]byte // what it said in conversations before
}

// maxSaid bounds what is kept of a conversation.
const maxSaid = 6

// newSpy watches an end's device.
func newSpy(t *testing.T, e *lab.End) *spy {
	t.Helper()
	fd := -1
	e.Host.Do(func() {
		i, err := net.InterfaceByName(e.Iface)
		if err != nil {
			t.Fatal(err)
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			t.Fatal(os.NewSyscallError("socket", err))
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
			t.Fatal(os.NewSyscallError("bind", err))
		}
		timeout := unix.NsecToTimeval(int64(50 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			t.Fatal(os.NewSyscallError("SO_RCVTIMEO", err))
		}
	})
	s := &spy{byName: make(map[probe.FourTuple]*watched), recent: make([]*watched, 4096)}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 2048)
		for {
			select {
			case <-over:
				return
			default:
			}
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err == nil && n > 0 {
				s.sees(b[:n])
			}
		}
	}()
	t.Cleanup(func() {
		close(over)
		<-ended
		_ = unix.Close(fd)
	})
	return s
}

// sees takes in a packet.
func (s *spy) sees(b []byte) {
	var p wire.Packet
	if wire.Parse(b, &p) != nil || p.Kind != wire.KindTCP {
		return
	}
	from, to := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Segment.Flags == probe.SYN {
		w := &watched{tuple: probe.FourTuple{Local: to, Remote: from}, iss: p.Segment.Seq, opened: time.Now()}
		if old := s.byName[w.tuple]; old != nil {
			w.number = old.number + 1
			w.before = old.said
		}
		s.byName[w.tuple] = w
		s.recent[s.next%len(s.recent)] = w
		s.next++
		return
	}
	w := s.byName[probe.FourTuple{Local: from, Remote: to}]
	if w == nil {
		return
	}
	if p.Segment.Flags.Has(probe.SYN|probe.ACK) && w.answered.IsZero() {
		w.irs, w.answered = p.Segment.Seq, time.Now()
	}
	if len(w.said) < maxSaid && len(b) <= 1400 {
		w.said = append(w.said, append([]byte(nil), b...))
	}
}

// some returns a conversation of the last span that is as asked, a copy.
func (s *spy) some(rng *rand.Rand, span time.Duration, is func(w *watched) bool) (watched, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := min(s.next, len(s.recent))
	if have == 0 {
		return watched{}, false
	}
	limit := time.Now().Add(-span)
	// How many are that young: those before are older.
	lo, hi := 0, have
	for lo < hi {
		if mid := (lo + hi) / 2; s.recent[(s.next-1-mid)%len(s.recent)].opened.After(limit) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for range 8 {
		if lo == 0 {
			break
		}
		if w := s.recent[(s.next-1-rng.IntN(lo))%len(s.recent)]; is(w) {
			return *w, true
		}
	}
	return watched{}, false
}
