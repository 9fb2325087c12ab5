package rawsock

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kept is a frame that outlives its callback.
type kept struct {
	Frame
	seg      seg
	ttl, tos byte
}

// newTap opens a tap in a namespace.
func newTap(t testing.TB, ns *namespace, cfg TapConfig) *Tap {
	t.Helper()
	var tap *Tap
	ns.must(t, func() (err error) {
		tap, err = OpenTap(cfg)
		return err
	})
	t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	})
	return tap
}

func newSender(t testing.TB, ns *namespace) *Sender {
	t.Helper()
	var s *Sender
	ns.must(t, func() (err error) {
		s, err = NewSender()
		return err
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// collect drains the tap until enough says so or d has passed.
func collect(t testing.TB, tap *Tap, d time.Duration, enough func([]kept) bool) []kept {
	t.Helper()
	p, err := NewPoller(tap.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var frames []kept
	deadline := time.Now().Add(d)
	for {
		tap.Drain(1000, func(f *Frame) {
			k := kept{Frame: *f}
			k.Data = bytes.Clone(f.Data)
			k.seg, k.ttl, k.tos, _ = seen(f.Data)
			frames = append(frames, k)
		})
		left := time.Until(deadline)
		if left <= 0 || enough(frames) {
			return frames
		}
		if _, err := p.Wait(left, true); err != nil {
			t.Fatal(err)
		}
	}
}

// summary lists frames, one a line.
func summary(frames []kept) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "if%d outgoing=%v stamped=%v %v > %v flags %#x seq %d ttl %d\n",
			f.Ifindex, f.Outgoing, f.Stamped, f.seg.from, f.seg.to, f.seg.flags, f.seg.seq, f.ttl)
	}
	return b.String()
}

func atLeast(n int) func([]kept) bool { return func(f []kept) bool { return len(f) >= n } }

// forTime never has enough: what must not come has until the end to come.
func forTime([]kept) bool { return false }

func noFailure(t testing.TB) func(int, error) {
	return func(i int, err error) {
		t.Helper()
		t.Errorf("packet %d: %v", i, err)
	}
}

func addrPort(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// pairs are the two ends of the veth, in both families.
var pairs = [...][2]string{{"198.18.0.1", "198.18.0.2"}, {"2001:db8::1", "2001:db8::2"}}

// settle waits until the kernel stamps packets: switching that on is deferred
// work (net/core/dev.c, netstamp_enable).
func settle(t testing.TB, tap *Tap, send func()) {
	t.Helper()
	for range 200 {
		send()
		f := collect(t, tap, 50*time.Millisecond, atLeast(1))
		collect(t, tap, 5*time.Millisecond, forTime)
		if len(f) > 0 && f[0].Outgoing && f[0].Stamped {
			return
		}
	}
	t.Fatal("the kernel does not stamp what we send")
}

// The tap's stamps against a capture's on the same device: ours to the
// nanosecond on the way out, and on the way in wherever the ring says that the
// kernel stamped the packet; within a few µs where each tap reads the clock.
func TestTapStampsMatchCapture(t *testing.T) {
	here, there := newVeth(t)
	listen(t, there, 443)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61255})
	sender := newSender(t, here)
	settle(t, tap, func() {
		sender.Send([]Packet{seg{from: addrPort(pairs[0][0], 61255), to: addrPort(pairs[0][1], 443), flags: rst}.packet()}, noFailure(t))
	})
	witness := newCapture(t, here, "veth", "tcp portrange 61000-61254")

	const rounds = 100
	for i := range rounds {
		for _, pair := range pairs {
			s := seg{from: addrPort(pair[0], 61000+uint16(i)), to: addrPort(pair[1], 443), flags: syn, seq: uint32(i) + 1}
			sender.Send([]Packet{s.packet()}, noFailure(t))
		}
		time.Sleep(time.Millisecond)
	}
	// A SYN, a SYN-ACK and our kernel's RST each.
	frames := collect(t, tap, 5*time.Second, atLeast(2*3*rounds))
	packets := witness.wait(t, 2*3*rounds)
	if len(frames) != 2*3*rounds || len(packets) != len(frames) {
		t.Fatalf("the tap saw %d packets, the capture %d, sent %d\n%s", len(frames), len(packets), 2*3*rounds, summary(frames))
	}
	walls := make(map[string]int64)
	for _, p := range packets {
		walls[string(p.data)] = p.wall
	}
	var apart []int64
	stamped := 0
	for _, f := range frames {
		wall, ok := walls[string(f.Data)]
		if !ok {
			t.Fatalf("the capture lacks %v", f.seg)
		}
		if f.Stamped {
			stamped++
			if wall != f.Wall {
				t.Errorf("outgoing %v: a stamped packet's stamps are %d ns apart", f.Outgoing, f.Wall-wall)
			}
			continue
		}
		if f.Outgoing {
			t.Errorf("not stamped on its way out: %v", f.seg)
		}
		apart = append(apart, max(f.Wall-wall, wall-f.Wall))
	}
	slices.Sort(apart)
	t.Logf("%d stamped and equal; %d not", stamped, len(apart))
	if len(apart) == 0 {
		return
	}
	p50, p99 := apart[len(apart)/2], apart[len(apart)*99/100]
	t.Logf("unstamped arrivals: apart by p50 %d ns, p99 %d ns", p50, p99)
	if p50 > 5_000 {
		t.Errorf("unstamped arrivals are %d ns apart at the median", p50)
	}
}

// listen opens a dual-stack listener; its kernel answers SYNs.
func listen(t testing.TB, ns *namespace, port int) {
	t.Helper()
	var fd int
	ns.must(t, func() error {
		var family int
		var err error
		if fd, family, err = dualStackSocket(); err != nil {
			return err
		}
		if err := bindAny(fd, family, port); err != nil {
			return err
		}
		return unix.Listen(fd, 4096)
	})
	t.Cleanup(func() { unix.Close(fd) })
}

// Loopback shows a packet twice, leaving and arriving; both views begin at
// the IP header.
func TestTapOnLoopback(t *testing.T) {
	ns := newNamespace(t)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, ns)
	for _, addr := range []string{"127.0.0.1", "::1"} {
		s := seg{from: addrPort(addr, 61000), to: addrPort(addr, 9), flags: rst, seq: 7}
		sender.Send([]Packet{s.packet()}, noFailure(t))
		frames := collect(t, tap, time.Second, atLeast(2))
		if len(frames) != 2 || !frames[0].Outgoing || frames[1].Outgoing {
			t.Fatalf("%s: saw %+v", addr, frames)
		}
		for _, f := range frames {
			if f.seg.from != s.from || f.seg.to != s.to || f.seg.seq != 7 || f.Ifindex != 1 || f.Snapped {
				t.Errorf("%s: saw %+v", addr, f)
			}
		}
	}
}

// A tunnel device has no link header; what we send and what we inject both
// begin at the IP header.
func TestTapOnTUN(t *testing.T) {
	ns := newNamespace(t)
	tun := newTUN(t, ns)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, ns)
	ns.run(t, "ip link set tun0 up\nip addr add 198.18.0.1/24 dev tun0")

	out := seg{from: addrPort("198.18.0.1", 61000), to: addrPort("198.18.0.2", 443), flags: syn, seq: 1}
	sender.Send([]Packet{out.packet()}, noFailure(t))
	in := seg{from: out.to, to: out.from, flags: rst | ack, seq: 2}
	packet := ip4(tcpProtocol, 0, 0x4000, in.tcp())
	copy(packet[12:], []byte{198, 18, 0, 2, 198, 18, 0, 1})
	if _, err := tun.Write(packet); err != nil {
		t.Fatal(err)
	}
	frames := collect(t, tap, time.Second, atLeast(2))
	if len(frames) != 2 || !frames[0].Outgoing || frames[0].seg.flags != syn ||
		frames[1].Outgoing || !bytes.Equal(frames[1].Data, packet) {
		t.Fatalf("saw %+v", frames)
	}
}

func newTUN(t testing.TB, ns *namespace) *os.File {
	t.Helper()
	var file *os.File
	ns.must(t, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "tun0")
		return nil
	})
	t.Cleanup(func() { file.Close() })
	return file
}

// A local peer's checksum is the pseudo-header's sum, and the ring says so.
func TestTapChecksumFlags(t *testing.T) {
	here, there := newVeth(t)
	listen(t, there, 443)
	tap := newTap(t, here, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, here)
	for _, pair := range pairs {
		s := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 443), flags: syn, seq: 1}
		sender.Send([]Packet{s.packet()}, noFailure(t))
		frames := collect(t, tap, time.Second, atLeast(3))
		if len(frames) != 3 {
			t.Fatalf("saw %s", summary(frames))
		}
		if f := frames[0]; f.ChecksumPartial {
			t.Errorf("our SYN, whose checksum is whole: %+v", f.Frame)
		}
		if f := frames[1]; f.seg.flags != syn|ack || !f.ChecksumPartial && !f.ChecksumValid {
			t.Errorf("the peer's SYN-ACK: %+v", f.Frame)
		}
	}
}

// What leaves, and what has a checksum that was verified, is cut off to a slot.
func TestTapSnaps(t *testing.T) {
	const slot = 112 // a multiple of 16, with what lies before it
	ns := newNamespace(t)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000, Snaplen: slot})
	sender := newSender(t, ns)
	for _, n := range []int{slot - 40, slot - 39} { // behind the headers
		s := seg{from: addrPort("127.0.0.1", 61000), to: addrPort("127.0.0.1", 9), flags: rst, payload: make([]byte, n)}
		sender.Send([]Packet{s.packet()}, noFailure(t))
		frames := collect(t, tap, time.Second, atLeast(2))
		for i, f := range frames {
			if snapped := 40+n > slot && (f.Outgoing || f.ChecksumValid || f.ChecksumPartial); f.Snapped != snapped || len(f.Data) != 40+n && !snapped || snapped && len(f.Data) != slot {
				t.Errorf("%d of %d octets, leaving %v, verified %v: %d kept, snapped %v", i, 40+n, f.Outgoing, f.ChecksumValid, len(f.Data), f.Snapped)
			}
		}
		if len(frames) != 2 {
			t.Errorf("saw %s", summary(frames))
		}
	}
}

// Of what arrives with a checksum that nobody has verified all is shown, however long, in its order
// and as long as there is room for it.
func TestTapShowsWhatIsToBeVerified(t *testing.T) {
	ns := newNamespace(t)
	tun := newTUN(t, ns)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000})
	ns.run(t, "ip link set tun0 mtu 65535 up\nip addr add 198.18.0.1/24 dev tun0")
	packet := func(seq uint32, n int) []byte {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(uint32(i) + seq)
		}
		s := seg{from: addrPort("198.18.0.2", 443), to: addrPort("198.18.0.1", 61000), flags: psh | ack, seq: seq, payload: payload}
		b := ip4(tcpProtocol, 0, 0x4000, s.tcp())
		copy(b[12:], []byte{198, 18, 0, 2, 198, 18, 0, 1})
		return b
	}
	lengths := []int{0, 100, 1200, 300, 10, 65000, 217, 5000, 229, 233, 1460, 1460, 1460}
	var sent [][]byte
	for i, n := range lengths {
		sent = append(sent, packet(uint32(i), n))
	}
	write := func(b []byte) {
		t.Helper()
		if _, err := tun.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range sent {
		write(b)
	}
	arrived := func(n int) (frames []kept) {
		t.Helper()
		incoming := 0
		for _, f := range collect(t, tap, 5*time.Second, func(f []kept) bool {
			incoming = 0
			for _, f := range f {
				if !f.Outgoing {
					incoming++
				}
			}
			return incoming >= n
		}) {
			if !f.Outgoing {
				frames = append(frames, f)
			}
		}
		if len(frames) != n {
			t.Fatalf("saw %s", summary(frames))
		}
		return frames
	}
	for i, f := range arrived(len(sent)) {
		if f.Snapped || !bytes.Equal(f.Data, sent[i]) {
			t.Errorf("%d octets: %d shown, snapped %v", len(sent[i]), len(f.Data), f.Snapped)
		}
	}
	const flood = 2000
	for i := range flood {
		write(packet(uint32(i), 1200))
	}
	whole := 0
	for i, f := range arrived(flood) {
		if f.seg.seq != uint32(i) {
			t.Fatalf("segment %d after %d", f.seg.seq, i)
		}
		if !f.Snapped {
			whole++
			if !bytes.Equal(f.Data, packet(uint32(i), 1200)) {
				t.Fatalf("segment %d has another's data", i)
			}
		}
	}
	if whole < 50 || whole == flood {
		t.Errorf("%d of %d whole", whole, flood)
	}
	write(sent[2])
	if f := arrived(1)[0]; f.Snapped || !bytes.Equal(f.Data, sent[2]) {
		t.Errorf("after a flood: %d octets, snapped %v", len(f.Data), f.Snapped)
	}
}

// The ring is drained in its order over many rounds, a full one drops and
// counts, and it recovers.
func TestTapRing(t *testing.T) {
	ns := newNamespace(t)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000, RingBytes: 2 * minBlockLen, Snaplen: 1000})
	slots := len(tap.ring.mem) / tap.ring.blockLen * tap.ring.perBlock
	sender := newSender(t, ns)
	packets := make([]Packet, 1)
	next := uint32(0)
	send := func() {
		packets[0] = seg{from: addrPort("127.0.0.1", 61000), to: addrPort("127.0.0.1", 9), flags: rst, seq: next}.packet()
		next++
		sender.Send(packets, noFailure(t))
	}
	expect := uint32(0)
	for range 3 * slots {
		send()
		for _, f := range collect(t, tap, time.Second, atLeast(2)) { // leaving and arriving
			if f.seg.seq != expect {
				t.Fatalf("segment %d after %d", f.seg.seq, expect)
			}
		}
		expect++
	}
	if drops, err := tap.Drops(); err != nil || drops != 0 {
		t.Fatalf("%d drops, error %v", drops, err)
	}
	const surplus = 25
	for range slots/2 + surplus {
		send()
	}
	drops := uint64(0)
	for range 100 { // arrivals come a little later
		var err error
		if drops, err = tap.Drops(); err != nil {
			t.Fatal(err)
		}
		if drops >= 2*surplus {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if want := uint64(2*surplus + slots%2); drops > want || drops+1 < want {
		t.Errorf("%d drops, want %d", drops, want)
	}
	if n := tap.Drain(7, func(*Frame) {}); n != 7 {
		t.Errorf("drained %d of at most 7", n)
	}
	if n := len(collect(t, tap, 50*time.Millisecond, forTime)); n != slots-7 {
		t.Errorf("drained %d of %d", n, slots-7)
	}
	mark := next
	send()
	if f := collect(t, tap, time.Second, atLeast(2)); len(f) != 2 || f[0].seg.seq != mark {
		t.Errorf("after the overflow: %+v", f)
	}
	if again, err := tap.Drops(); err != nil || again != drops {
		t.Errorf("drops went from %d to %d, error %v", drops, again, err)
	}
}

// Who drains learns of a loss without asking each time: when the ring that lost has been
// drained, and not before it lost anything.
func TestTapSaysThatItLost(t *testing.T) {
	ns := newNamespace(t)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000, RingBytes: 2 * minBlockLen, Snaplen: 1000})
	slots := tap.ring.slots()
	sender := newSender(t, ns)
	send := func(n int) {
		for range n {
			sender.Send([]Packet{seg{from: addrPort("127.0.0.1", 61000), to: addrPort("127.0.0.1", 9), flags: rst}.packet()}, noFailure(t))
		}
	}
	lost := func() uint64 {
		n, err := tap.Lost()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range slots { // round it goes, never full
		send(1)
		collect(t, tap, time.Second, atLeast(2))
		if tap.doubtful || lost() != 0 {
			t.Fatalf("in doubt: %v; %d lost", tap.doubtful, lost())
		}
	}
	const surplus = 20
	for round := range uint64(2) { // a loss after a loss is one more
		before := lost()
		send(slots/2 + surplus)
		time.Sleep(50 * time.Millisecond) // arrivals come a little later
		drained := tap.Drain(slots/fullish, func(*Frame) {})
		if got := lost() - before; got < 2*surplus || got > 2*surplus+1 {
			t.Errorf("round %d: %d lost after %d were drained of a full ring, want %d", round, got, drained, 2*surplus)
		}
		collect(t, tap, 50*time.Millisecond, forTime)
	}
	// One that is lost after the kernel was asked is told by what comes behind it.
	before := lost()
	send(slots/2 + surplus)
	time.Sleep(50 * time.Millisecond)
	tap.run, tap.doubtful = -slots, false
	collect(t, tap, 50*time.Millisecond, forTime)
	if n := lost() - before; n != 0 {
		t.Errorf("%d known already", n)
	}
	send(1)
	collect(t, tap, time.Second, atLeast(2))
	if n := lost() - before; n < 2*surplus {
		t.Errorf("%d lost by what a packet behind them says, want %d", n, 2*surplus)
	}
}

// Traffic that was there before the tap opened never gets in.
func TestTapFiltersFromTheStart(t *testing.T) {
	ns := newNamespace(t)
	sender := newSender(t, ns)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		noise := []Packet{seg{from: addrPort("127.0.0.1", 50000), to: addrPort("127.0.0.1", 9), flags: rst}.packet()}
		for {
			select {
			case <-stop:
				return
			default:
				sender.Send(noise, noFailure(t))
			}
		}
	}()
	for range 20 {
		ns.must(t, func() error {
			tap, err := OpenTap(TapConfig{FirstPort: 61000, LastPort: 61255, RingBytes: minBlockLen})
			if err != nil {
				return err
			}
			if n := tap.Drain(1000, func(*Frame) {}); n != 0 {
				err = fmt.Errorf("%d stray packets", n)
			}
			return errors.Join(err, tap.Close())
		})
	}
	close(stop)
	<-stopped
}

func TestTapAllocatesNothing(t *testing.T) {
	ns := newNamespace(t)
	tap := newTap(t, ns, TapConfig{FirstPort: 61000, LastPort: 61000})
	sender := newSender(t, ns)
	packets := []Packet{
		seg{from: addrPort("127.0.0.1", 61000), to: addrPort("127.0.0.1", 9), flags: rst}.packet(),
		seg{from: addrPort("::1", 61000), to: addrPort("::1", 9), flags: rst}.packet(),
	}
	frames := 0
	callback := func(*Frame) { frames++ }
	failed := noFailure(t)
	if n := testing.AllocsPerRun(1000, func() {
		sender.Send(packets, failed)
		tap.Drain(100, callback)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if frames < 1000 {
		t.Errorf("%d frames", frames)
	}
}
