package engine

import (
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Short names for what maps are keyed by.
type (
	addr     = netip.Addr
	addrPort = netip.AddrPort
)

// addrPortFrom joins the two without a zone: a zone says how to get there, not
// who is there.
func addrPortFrom(a addr, port uint16) addrPort { return netip.AddrPortFrom(a.WithZone(""), port) }

// probePackets is what one half-open probe costs of the limits: a SYN and a
// RST.
const probePackets = 2

// A route is how the host reaches a target.
type route struct {
	source  addr
	ifindex int
	err     error
}

// send opens the conversations that are due, one burst at most, and returns how
// long until the next.
func (s *Shard) send() time.Duration {
	s.dues = s.dues[:0]
	for len(s.dues) < burst && s.schedule.due(s.now) {
		if at := s.window.room(s.now, probePackets, s.limits.Global); at > s.now {
			s.throttled = true
			s.sent()
			return at.Sub(s.now)
		}
		if e := s.schedule.pop().value; e.gone {
			s.goners--
		} else {
			s.fire(e)
		}
	}
	s.sent()
	if s.schedule.due(s.now) {
		return burstGap
	}
	s.throttled = false
	if len(s.schedule) == 0 {
		return idlePause
	}
	return max(s.schedule[0].at.Sub(s.now), tick)
}

// sent ends a burst: it hands the batch to the kernel and says how late each
// of its probes went.
func (s *Shard) sent() {
	if len(s.dues) == 0 {
		return
	}
	s.flush()
	s.read()
	for _, due := range s.dues {
		s.cfg.Observer.ScheduleDelay(s.now.Sub(due))
	}
	s.dues = s.dues[:0]
}

// fire does what is due of a target and puts it back into the schedule.
func (s *Shard) fire(e *entry) {
	if missed := int64(s.now.Sub(e.slot) / e.Interval); missed > 0 {
		reason := SkipLate
		if s.throttled || e.throttled {
			reason = SkipRateLimit
		}
		for range missed {
			s.cfg.Observer.Skipped(reason)
		}
		s.reschedule(e, e.slot.Add(time.Duration(missed)*e.Interval))
		return
	}
	if !e.Remote.IsValid() {
		e.Sink.Observe(&probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
		s.reschedule(e, e.slot.Add(e.Interval))
		return
	}
	if at := e.peer.address.window.room(s.now, probePackets, s.limits.PerAddress); at > s.now {
		e.throttled = true
		s.schedule.push(at, e)
		return
	}
	if r := s.route(e); r.err != nil {
		e.Sink.Observe(&probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError})
	} else if port, ok := s.port(e); !ok {
		s.cfg.Observer.Skipped(SkipNoPort)
	} else {
		s.open(e, r, port)
	}
	s.reschedule(e, e.slot.Add(e.Interval))
}

// reschedule puts a target into the schedule for a slot.
func (s *Shard) reschedule(e *entry, slot probe.Instant) {
	e.slot, e.throttled = slot, false
	e.due = slot.Add(jitter(e.ID, slot, e.Jitter))
	s.schedule.push(e.due, e)
}

// route returns how the host reaches a target, asked anew when the host's
// routes or addresses have changed.
func (s *Shard) route(e *entry) *route {
	if g := s.net.RouteGeneration(); !e.route.source.IsValid() || e.generation != g {
		e.generation = g
		r := &e.route
		r.source, r.ifindex, r.err = s.net.Source(e.Remote.Addr(), e.Device)
		if e.Source.IsValid() {
			r.source = e.Source
		}
		r.source = r.source.WithZone("")
	}
	return &e.route
}

// port takes the next source port towards a target. A four-tuple comes round
// when the range has gone round: peers, NATs and firewalls remember it. One
// that is still in a conversation is passed over; one whose conversation only
// lingers is taken from it. A flow keeps its port.
func (s *Shard) port(e *entry) (uint16, bool) {
	n := uint32(s.cfg.LastPort-s.cfg.FirstPort) + 1
	if e.Flows > 1 {
		flow := uint32(e.sent % uint64(e.Flows))
		return s.vacate(e, s.cfg.FirstPort+uint16((uint32(e.ID)%n+flow)%n))
	}
	for range n {
		p := s.cfg.FirstPort + uint16(e.peer.ports%n)
		e.peer.ports = (e.peer.ports + 1) % n
		if port, ok := s.vacate(e, p); ok {
			return port, true
		}
	}
	return 0, false
}

// vacate makes a source port towards a target free, unless a conversation is
// still open on it.
func (s *Shard) vacate(e *entry, port uint16) (uint16, bool) {
	i, taken := s.table.byKey[keyOf(e.Remote.Addr(), e.Remote.Port(), port)]
	if taken && s.table.slots[i].open() {
		return 0, false
	}
	if taken {
		s.table.release(i)
	}
	return port, true
}

// open begins a conversation.
func (s *Shard) open(e *entry, r *route, port uint16) {
	tuple := probe.FourTuple{
		Local:  netip.AddrPortFrom(r.source, port),
		Remote: e.Remote,
	}
	i := s.table.claim(keyOf(e.Remote.Addr(), e.Remote.Port(), port))
	sl := &s.table.slots[i]
	sl.conv, sl.tuple, sl.target, sl.ifindex = probe.New(e.Params), tuple, e, r.ifindex
	if e.Recorder != nil {
		sl.transcript = s.table.newTranscript(tuple, e.Params.Kind)
	}
	s.table.open++
	s.Stats.Conversations.Add(1)
	e.peer.target = e
	e.sent++
	s.window.add(s.now, probePackets)
	e.peer.address.window.add(s.now, probePackets)
	s.dues = append(s.dues, e.due)

	syn := e.SYN
	syn.Seq = s.secret.iss(&tuple, s.now)
	if syn.Options.Has(probe.OptTimestamps) {
		syn.Options.TSVal = s.secret.tsval(s.now)
	}
	s.step(i, &probe.Event{Kind: probe.Open, Segment: syn})
}

// queue adds a segment to the batch.
func (s *Shard) queue(i int32, seg *probe.Segment) {
	sl := &s.table.slots[i]
	from := len(s.arena)
	s.arena = wire.AppendTCP(s.arena, &sl.tuple, seg, nil)
	s.net.Queue(Packet{
		Segment: s.arena[from:],
		Src:     sl.tuple.Local.Addr(),
		Dst:     sl.tuple.Remote.Addr(),
		Ifindex: sl.ifindex,
		TTL:     sl.target.TTL,
		TOS:     sl.target.TOS,
	})
	s.sending = append(s.sending, ref{i, sl.generation})
}

// flush sends the batch.
func (s *Shard) flush() {
	if len(s.sending) == 0 {
		return
	}
	s.net.Flush(s.failed)
	s.arena, s.sending = s.arena[:0], s.sending[:0]
}

// sendFailed tells a conversation that our host refused its segment.
func (s *Shard) sendFailed(k int, _ error) {
	r := s.sending[k]
	if s.table.slots[r.slot].generation == r.generation {
		s.step(r.slot, &probe.Event{Kind: probe.SendFailed})
	}
}
