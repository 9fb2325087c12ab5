package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/probe"
)

// A lane is a network in virtual time that costs next to nothing itself, so that what
// is measured is the engine: every SYN is answered by a SYN-ACK after rtt, and that by
// our kernel's RST.
type lane struct {
	now    probe.Instant
	rtt    time.Duration
	batch  []Packet
	leave  queue[*passing]
	arrive queue[*passing]
	spare  []*passing
	frame  Frame
	syns   int
}

// A passing is a frame in the ring, with room for the longest that there is.
type passing struct {
	at       probe.Instant
	n        int
	outgoing bool
	data     [60]byte
}

func (l *lane) Clocks() (probe.Instant, int64) {
	l.now += 100
	return l.now, int64(l.now) + 1e18
}
func (l *lane) Route(netip.Addr, netip.Addr, string) (Route, error) {
	return Route{Source: local4}, nil
}
func (l *lane) Hop(netip.Addr, netip.Addr, int, uint8) uint64 { return 0 }
func (l *lane) RouteGeneration() uint64                       { return 0 }
func (l *lane) Tentative(netip.Addr) bool                     { return false }
func (l *lane) Lost(func(int, netip.Addr, bool))              {}
func (l *lane) Queue(p Packet)                                { l.batch = append(l.batch, p) }
func (l *lane) Drops() uint64                                 { return 0 }
func (l *lane) Wait(d time.Duration, _ bool)                  { l.now = l.now.Add(d) }
func (l *lane) Wake()                                         {}

func (l *lane) take(at probe.Instant, n int, outgoing bool) *passing {
	if len(l.spare) == 0 {
		l.spare = append(l.spare, new(passing))
	}
	p := l.spare[len(l.spare)-1]
	l.spare = l.spare[:len(l.spare)-1]
	*p = passing{at: at, n: n, outgoing: outgoing}
	return p
}

func (l *lane) Flush(func(int, error)) {
	for i := range l.batch {
		p := &l.batch[i]
		l.now += 2000
		syn := l.take(l.now, 20+len(p.Segment), true)
		header4(syn.data[:], syn.n, p.Src, p.Dst)
		copy(syn.data[20:], p.Segment)
		l.leave.push(syn)
		if p.Segment[13] != byte(probe.SYN) {
			continue
		}
		l.syns++
		back := l.take(l.now.Add(l.rtt), 44, false)
		header4(back.data[:], 44, p.Dst, p.Src)
		tcp := back.data[20:44]
		copy(tcp, p.Segment)
		copy(tcp, p.Segment[2:4])
		copy(tcp[2:], p.Segment[:2])
		binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(p.Segment[4:])+1)
		tcp[12], tcp[13] = 6<<4, byte(probe.SYN|probe.ACK)
		l.arrive.push(back)
		rst := l.take(back.at+3000, 40, true)
		header4(rst.data[:], 40, p.Src, p.Dst)
		copy(rst.data[20:], p.Segment[:20])
		binary.BigEndian.PutUint32(rst.data[24:], binary.BigEndian.Uint32(p.Segment[4:])+1)
		rst.data[32], rst.data[33] = 5<<4, byte(probe.RST)
		l.arrive.push(rst)
	}
	l.batch = l.batch[:0]
}

// header4 writes an IPv4 header.
func header4(b []byte, n int, src, dst netip.Addr) {
	from, to := src.As4(), dst.As4()
	b[0], b[8], b[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	copy(b[12:], from[:])
	copy(b[16:], to[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
}

func (l *lane) Receive(limit int, fn func(*Frame)) int {
	n := 0
	for ; n < limit; n++ {
		q := &l.leave
		if q.len() == 0 || l.arrive.len() > 0 && l.arrive.first().at < q.first().at {
			q = &l.arrive
		}
		if q.len() == 0 || q.first().at > l.now {
			break
		}
		p := q.first()
		q.pop()
		l.frame = Frame{Data: p.data[:p.n], Wall: int64(p.at) + 1e18, Ifindex: 2, Stamped: true, Outgoing: p.outgoing, ChecksumOK: true}
		fn(&l.frame)
		l.spare = append(l.spare, p)
	}
	return n
}

// oneEach makes n targets of an IPv4 address each.
func oneEach(n int, change func(*Target)) []*Target {
	all := make([]*Target, n)
	for i := range all {
		params := halfOpen
		params.Linger = 4 * time.Second // as internal/targets has it
		all[i] = &Target{
			ID:       uint64(i)*7919 + 1,
			Remote:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}), 443),
			Params:   params,
			SYN:      unique.Make(probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}}),
			Interval: time.Second,
			Sink:     nobody{},
			Recorder: nobody{},
		}
		if change != nil {
			change(all[i])
		}
	}
	return all
}

// An unanswered is a Sink that counts the probes whose verdict is anything but an answer, and
// what was not believed.
type unanswered int

func (n *unanswered) Observe(o *probe.Observation) {
	if o.Reason != probe.OK || o.Kind == probe.Discarded || o.Kind == probe.Rejected {
		*n++
	}
}

// grown is a shard with n targets at 1 s that has run long enough to have all the
// memory that it needs.
func grown(n int, rtt time.Duration, sink Sink) (*Shard, *lane) {
	l := &lane{rtt: rtt, now: probe.Instant(12345 * time.Second)}
	s := New(Config{Network: l, Observer: nobody{}, Reserved: Ports{61000, 61127}, Guarded: Ports{61128, 61255},
		Limits: Limits{Global: 1 << 20, PerAddress: 200}})
	s.Update(oneEach(n, func(t *Target) { t.Sink = sink }), nil)
	s.turns(l, 7*time.Second)
	return s, l
}

func (s *Shard) turns(l *lane, d time.Duration) {
	for end := l.now.Add(d); l.now < end; {
		l.Wait(s.turn(true), false)
	}
}

// processorTime is what this process has used: what others take of a busy machine does
// not count.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGrowth is the processor time of one answered probe by how many targets there
// are, and beside it what the simulated network costs by itself.
func BenchmarkGrowth(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			failed := new(unanswered)
			s, l := grown(n, time.Millisecond, failed)
			runtime.GC()
			b.ReportAllocs()
			b.ResetTimer()
			before := processorTime(b)
			for first := l.syns; l.syns-first < b.N; {
				l.Wait(s.turn(true), false)
			}
			if *failed > 0 {
				b.Errorf("%d times no answer, or one that was not believed", *failed)
			}
			b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
	b.Run("network", func(b *testing.B) {
		l := &lane{rtt: time.Millisecond}
		segment := make([]byte, 24)
		segment[13] = byte(probe.SYN)
		remote := netip.MustParseAddr("198.18.0.2")
		for range b.N {
			l.Queue(Packet{Segment: segment, Src: local4, Dst: remote})
			if len(l.batch) == 16 {
				l.Flush(nil)
				l.now = l.now.Add(tick)
				l.Receive(64, func(*Frame) {})
			}
		}
	})
}
