package scale

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

var (
	local4  = netip.MustParseAddr("198.18.0.1")
	local6  = netip.MustParseAddr("2001:db8::1")
	router4 = netip.MustParseAddr("198.18.0.254")
	router6 = netip.MustParseAddr("2001:db8::fe")
)

// A behaviour is what a peer does with a SYN.
type behaviour uint8

const (
	silent behaviour = iota
	answers
	refuses
	unreachable
)

// reserved are the source ports: half of the default ones.
var reserved = engine.Ports{First: 61000, Last: 61127}

const nPorts = 128

const timeout = 900 * time.Millisecond

// peers are all that is probed by a shard, and the truth about it.
type peers struct {
	tb         testing.TB
	errors     int
	subjects   []subject
	perAddress int // ports of each address
	rtts       []time.Duration
	interval   time.Duration
	lates      int  // the line that is slower than the timeout; -1 without
	blind      bool // nobody tells what was observed: only the network is simulated

	bound     time.Duration // how far a probe may be from its slot
	all       second        // packets that left
	addresses []second      // and those to each address, where a test looks
	used      []uint16      // when each target's source port was used last, in units of grain; 0: never
	reuse     time.Duration // the least time after which one was used again

	probes, verdicts, transcripts uint64
	reasons                       [probe.NumReasons]uint64
	lateAnswers, lateSeen         uint64
	delays                        [1000]uint64 // schedule delays, in units of 10 µs
	longest                       time.Duration
	skips                         [engine.NumSkipReasons]uint64
	recent                        uint64 // probes in this second
	second                        probe.Instant
	peak                          uint64 // the most of them in one
}

// grain is the precision of peers.used: a day and a half fit.
const grain = 2 * time.Second

// A subject is one target and its books: its sink and recorder.
type subject struct {
	*peers
	first       probe.Instant // when its first SYN left
	least, most int32         // deviation of the others from first + k·interval, ns
	index       int32
	probes      uint32
	verdicts    uint32
	nature      uint8 // of 100
	line        int8  // its round trip's
	open        bool  // a probe waits for its verdict
	answered    bool  // and it has an answer in time
	want        probe.Reason
}

// newPeers makes n of them, from the first of all on.
func newPeers(tb testing.TB, s *scenario, first, n int) *peers {
	p := &peers{
		tb: tb, subjects: make([]subject, n), perAddress: s.perAddress, rtts: s.rtts, interval: s.interval, bound: s.bound,
		used: make([]uint16, n*nPorts), reuse: 1 << 62, lates: -1,
	}
	p.all.times = make([]probe.Instant, s.limits.Global)
	if s.crowded {
		p.addresses = make([]second, (n-1)/s.perAddress+1)
		for i := range p.addresses {
			p.addresses[i].times = make([]probe.Instant, s.limits.PerAddress)
		}
	}
	fast := len(s.rtts)
	if s.rtts[fast-1] > timeout {
		fast--
		p.lates = fast
	}
	for i := range p.subjects {
		h := mix(uint64(first + i))
		x := &p.subjects[i]
		*x = subject{peers: p, index: int32(i), nature: uint8(h % 100), line: int8(h >> 32 % uint64(fast))}
		if s.alike {
			x.nature = 0
		}
		if x.nature == 99 && p.lates >= 0 {
			x.line = int8(p.lates)
		}
	}
	return p
}

// target is what the engine is told of a subject.
func (x *subject) target(first int) *engine.Target {
	_, remote := x.tuple(x.index, 0)
	return &engine.Target{
		ID:     mix(uint64(first) + uint64(x.index)),
		Remote: remote,
		Params: probe.Params{
			Kind: probe.HalfOpen, Timeout: timeout, Linger: 4 * time.Second, ResetGrace: 50 * time.Millisecond, IPv6: remote.Addr().Is6(),
		},
		SYN: unique.Make(probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{
			Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale, MSS: 1460, WindowScale: 7,
		}}),
		Interval: x.interval,
		Sink:     x,
		Recorder: x,
	}
}

// tuple returns the ends of a conversation. Every tenth address is an IPv6 one.
func (p *peers) tuple(i int32, port uint16) (local, remote netip.AddrPort) {
	group, to := int(i)/p.perAddress, uint16(1024+int(i)%p.perAddress)
	if group%10 == 9 {
		a := [16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 5: 1}
		binary.BigEndian.PutUint32(a[12:], uint32(group))
		return netip.AddrPortFrom(local6, port), netip.AddrPortFrom(netip.AddrFrom16(a), to)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 198<<24|18<<16|256+uint32(group))
	return netip.AddrPortFrom(local4, port), netip.AddrPortFrom(netip.AddrFrom4(a), to)
}

// at is the subject at an address and port.
func (p *peers) at(a netip.Addr, port uint16) int32 {
	var group uint32
	if a.Is4() {
		b := a.As4()
		group = binary.BigEndian.Uint32(b[:])&0x1ffff - 256
	} else {
		b := a.As16()
		group = binary.BigEndian.Uint32(b[12:])
	}
	return int32(int(group)*p.perAddress + int(port) - 1024)
}

// errorf reports what is wrong, the first times.
func (p *peers) errorf(format string, args ...any) {
	if p.errors++; p.errors <= 10 {
		p.tb.Errorf(format, args...)
	}
}

// left is a packet to a subject that leaves this host.
func (p *peers) left(i int32, now probe.Instant, flags probe.Flags) {
	if over, gap := p.all.add(now); over {
		p.errorf("%d packets in %v", len(p.all.times)+1, gap)
	}
	if p.addresses != nil {
		a := &p.addresses[int(i)/p.perAddress]
		if over, gap := a.add(now); over {
			p.errorf("%d packets to one address in %v", len(a.times)+1, gap)
		}
	}
	if flags == probe.RST && !p.subjects[i].answers() {
		p.errorf("target %d got a RST", i)
	}
}

// answers reports whether a subject may answer with a SYN-ACK.
func (x *subject) answers() bool { return x.nature < 90 || x.nature >= 95 }

// beside reports whether a subject is behind a veth, so that the kernel does not stamp
// what comes from it.
func (x *subject) beside() bool { return x.nature%4 == 1 }

// probed is a SYN to a subject: it is held against the schedule, and what is to come
// of it is put down. It returns the line on which the answer comes, below 0 for none.
func (p *peers) probed(i int32, port uint16, now probe.Instant) (line int, how behaviour) {
	x := &p.subjects[i]
	p.probes++
	p.load(now)
	if !p.blind {
		p.inPlace(x, port, now)
	}

	x.open, x.answered, x.want = true, false, probe.Timeout
	line, how = int(x.line), answers
	switch n := x.nature; {
	case n < 90 || n == 99:
	case n < 92:
		how, x.want = refuses, probe.Refused
	case n < 93:
		how, x.want = unreachable, probe.Unreachable
	case n < 95:
		line = -1
	default: // loses one in ten
		if mix(uint64(i)<<32|uint64(x.probes))%10 == 0 {
			line = -1
		}
	}
	if how == answers && line >= 0 && line != p.lates {
		x.answered, x.want = true, probe.OK
	}
	x.probes++
	return line, how
}

// stretch is by how much a probe may go earlier once it has company: the first may have gone
// before the others were there.
const stretch = 52 * time.Millisecond

// inPlace holds a SYN against the schedule.
func (p *peers) inPlace(x *subject, port uint16, now probe.Instant) {
	i := x.index
	if x.probes == 0 {
		x.first = now
	} else {
		off := now.Sub(x.first) - time.Duration(x.probes)*p.interval
		if x.probes == 1 && -stretch <= off && off < 0 {
			x.first, off = x.first.Add(off), 0
		}
		if off.Abs() > p.bound {
			p.errorf("probe %d of target %d goes %v from its slot", x.probes, i, off)
			off = 0
		}
		x.least, x.most = min(x.least, int32(off)), max(x.most, int32(off))
		if apart := time.Duration(x.most - x.least); apart > p.bound {
			p.errorf("the slots of target %d are %v wide after %d probes", i, apart, x.probes)
		}
	}
	if x.open {
		p.errorf("probe %d of target %d goes while the one before has no verdict", x.probes, i)
	}
	p.takePort(i, port, now)
}

// takePort notes when a four-tuple is used, and how soon it is again.
func (p *peers) takePort(i int32, port uint16, now probe.Instant) {
	if port < reserved.First || port > reserved.Last {
		p.errorf("source port %d", port)
		return
	}
	at := uint16(now.Sub(epoch)/grain) + 1
	last := &p.used[int(i)*nPorts+int(port-reserved.First)]
	if *last != 0 {
		p.reuse = min(p.reuse, time.Duration(at-*last)*grain)
	}
	*last = at
}

// load counts the probes of each second.
func (p *peers) load(now probe.Instant) {
	if s := now / 1e9; s != p.second {
		p.peak = max(p.peak, p.recent)
		p.second, p.recent = s, 0
	}
	p.recent++
}

// epoch is when time begins here.
const epoch = probe.Instant(12345 * time.Second)

// Observe implements engine.Sink: what is observed must be what happened.
func (x *subject) Observe(o *probe.Observation) {
	p := x.peers
	switch o.Kind {
	case probe.Verdict:
		if !x.open || o.Reason != x.want {
			p.errorf("verdict %v of target %d, want %v (open: %v)", o.Reason, x.index, x.want, x.open)
		}
		x.open = false
		x.verdicts++
		p.verdicts++
		p.reasons[o.Reason]++
	case probe.HandshakeRTT:
		if rtt := p.rtts[x.line]; !x.answered || o.Duration != rtt {
			p.errorf("target %d: a round trip of %v, want %v", x.index, o.Duration, rtt)
		}
		x.answered = false
	case probe.Reaction:
		if o.Duration != resetTakes {
			p.errorf("target %d: a reaction of %v", x.index, o.Duration)
		}
	case probe.SYNACKLate:
		p.lateSeen++
	case probe.PeerSeen:
		if o.Peer.MSS != 1460 || o.Peer.TTL != 60 {
			p.errorf("target %d: peer %+v", x.index, o.Peer)
		}
	default:
		p.errorf("target %d: %v (%v, %v)", x.index, o.Kind, o.Discard, o.Reject)
	}
}

// Settled implements engine.Recorder.
func (x *subject) Settled(t *probe.Transcript) {
	x.transcripts++
	if _, _, ok := t.Settled(); !ok || t.Tuple.Remote.Port() != uint16(1024+int(x.index)%x.perAddress) {
		x.errorf("target %d: the transcript of %v without a verdict", x.index, t.Tuple)
	}
}

// Record implements engine.Recorder.
func (x *subject) Record(*probe.Transcript) {}

// ScheduleDelay implements engine.Observer.
func (p *peers) ScheduleDelay(d time.Duration) {
	p.delays[min(int(d/(10*time.Microsecond)), len(p.delays)-1)]++
	p.longest = max(p.longest, d)
	if d < 0 {
		p.errorf("a probe goes %v early", -d)
	}
}

// Skipped implements engine.Observer.
func (p *peers) Skipped(r engine.SkipReason, n int) { p.skips[r] += uint64(n) }

// Trouble implements engine.Observer.
func (p *peers) Trouble(_ *engine.Target, err error) { p.errorf("trouble: %v", err) }

// ClockStep implements engine.Observer.
func (p *peers) ClockStep(by time.Duration) { p.errorf("the clock steps by %v", by) }

// A second holds the moments of the last packets, as many as one second may have.
type second struct {
	times []probe.Instant // a ring
	next  int
}

// add reports whether a packet now is one more than a second may have, and in which
// time there were so many.
func (s *second) add(now probe.Instant) (over bool, gap time.Duration) {
	oldest := &s.times[s.next]
	gap = now.Sub(*oldest)
	over = *oldest != 0 && gap < time.Second
	*oldest = now
	if s.next++; s.next == len(s.times) {
		s.next = 0
	}
	return over, gap
}
