package engine

import (
	"errors"
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

// A route is how the host reaches a target.
type route struct {
	source  addr
	ifindex int
	hop     uint64 // 0: as the host routes
	err     error
}

// send opens the conversations that are due, one burst at most, and returns how
// long until the next.
func (s *Shard) send() time.Duration {
	s.launched = s.launched[:0]
	for len(s.launched) < burst && s.schedule.due(s.now) {
		e := s.schedule[0].value
		if e.sends(s.now) {
			packets := e.Params.Packets()
			if at := s.window.room(s.now, packets+s.unsent, s.demand.most(s.limits.Global, packets, globalSlack)); at > s.now {
				s.throttled = true
				s.sent()
				return max(at.Sub(s.now), burstGap)
			}
		}
		s.schedule.pop()
		if e.gone {
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

// sent ends a burst: it hands the batch to the kernel, says how late each of
// its probes went, and puts down for the limits when they had left: however
// long that took, what goes later goes after them.
func (s *Shard) sent() {
	if len(s.launched) == 0 {
		return
	}
	s.flush()
	s.read()
	s.window.left(s.now)
	for _, l := range s.launched {
		l.address.window.left(s.now)
		s.cfg.Observer.ScheduleDelay(s.now.Sub(l.due))
	}
	s.launched = s.launched[:0]
}

// fire does what is due of a target and puts it back into the schedule.
func (s *Shard) fire(e *entry) {
	if missed := e.missed(s.now); missed > 0 {
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
		s.notOpened(e, probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
		s.made(e)
		return
	}
	if e.Params.Measure == probe.MeasureDuration && s.measured(e) {
		s.reschedule(e, s.now.Add(time.Second)) // and the slots after it, lest its own overlap
		return
	}
	e.throttle(false)
	packets := e.Params.Packets()
	a := e.peer.address
	most := a.demand.most(s.limits.PerAddress, packets, addressSlack)
	if a.window.room(s.now, packets+a.unsent, most) > s.now {
		// It queues behind those that wait already: if all came back at once,
		// all but one would have come for nothing.
		s.schedule.push(a.window.room(s.now, packets*(1+a.waiting)+a.unsent, most), e)
		e.throttle(true)
		return
	}
	if r := s.route(e); r.err != nil {
		s.trouble(e, r.err)
		s.notOpened(e, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError})
	} else if a.unsent >= maxUnsent*packets {
		s.trouble(e, errUnsent)
		s.skip(e, SkipUnsent)
		return
	} else if port, ok := s.port(e); !ok {
		s.skip(e, SkipNoPort)
		return
	} else {
		s.open(e, r, port)
	}
	s.made(e)
}

// measured reports whether a conversation of before a change of the target is under
// way: a peer in TIME-WAIT is touched by one at a time. A target's own do not
// overlap, if its interval is as long as the configuration asks.
func (s *Shard) measured(e *entry) bool {
	for i := range s.table.slots {
		if sl := &s.table.slots[i]; sl.target != nil && sl.target != e && sl.target.ID == e.ID && sl.open() {
			return true
		}
	}
	return false
}

// made goes on to a target's next slot after a probe, if it is to have one.
func (s *Shard) made(e *entry) {
	e.probes++
	if e.spent() {
		e.throttle(false)
		return
	}
	s.reschedule(e, e.slot.Add(e.Interval))
}

// skip goes on to a target's next slot without a probe.
func (s *Shard) skip(e *entry, r SkipReason) {
	s.cfg.Observer.Skipped(r)
	s.reschedule(e, e.slot.Add(e.Interval))
}

// reschedule puts a target into the schedule for a slot.
func (s *Shard) reschedule(e *entry, slot probe.Instant) {
	e.throttle(false)
	e.slot = slot
	e.due = slot.Add(jitter(e.ID, slot, e.Jitter))
	s.schedule.push(e.due, e)
}

// throttle notes whether the target waits for the limit of its address.
func (e *entry) throttle(on bool) {
	if e.throttled == on {
		return
	}
	e.throttled = on
	if on {
		e.peer.address.waiting++
	} else {
		e.peer.address.waiting--
	}
}

// sends reports whether a target that is due has something to send.
func (e *entry) sends(now probe.Instant) bool {
	return !e.gone && e.Remote.IsValid() && e.missed(now) == 0
}

// missed counts the target's slots that are lost: those whose next one is due
// too.
func (e *entry) missed(now probe.Instant) int64 {
	n := int64(now.Sub(e.slot) / e.Interval)
	last := e.slot.Add(time.Duration(n) * e.Interval)
	if n > 0 && last.Add(jitter(e.ID, last, e.Jitter)) > now {
		n--
	}
	return n
}

// errFamily is the fault of a source address that is not of the destination's
// family.
var errFamily = errors.New("source and destination are not of one address family")

// route returns how the host reaches a target, asked anew when the host's
// routes or addresses have changed.
func (s *Shard) route(e *entry) *route {
	if g := s.net.RouteGeneration(); !e.asked || e.generation != g || e.route.err != nil {
		e.asked, e.generation = true, g
		r := &e.route
		r.source, r.ifindex, r.err = s.net.Source(e.Remote.Addr(), e.Source, e.Device)
		r.source = r.source.WithZone("")
		if r.err == nil && r.source.Is4() != e.Remote.Addr().Is4() {
			r.err = errFamily
		}
		r.hop = 0
		if r.err == nil && e.Direct && !e.hindered {
			r.hop = s.net.Hop(e.Remote.Addr(), r.source, r.ifindex, e.TOS)
		}
	}
	return &e.route
}

// port takes the next source port towards a target. A four-tuple comes round
// when the range has gone round: peers, NATs and firewalls remember it. One
// that is still in a conversation is passed over; one whose conversation only
// lingers is taken from it. A flow keeps its port.
func (s *Shard) port(e *entry) (uint16, bool) {
	r, next := s.cfg.Reserved, &e.peer.ports[0]
	if e.guarded() {
		r, next = s.cfg.Guarded, &e.peer.ports[1]
	}
	n := r.len()
	if e.Flows > 1 {
		flow := uint32(e.sent % uint64(e.Flows))
		return s.vacate(e, r.First+uint16((uint32(e.ID)%n+flow)%n))
	}
	for range n {
		p := r.First + uint16(*next%n)
		*next = (*next + 1) % n
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
	params := e.Params
	params.Prompt = e.prompt
	sl.conv, sl.tuple, sl.target, sl.ifindex, sl.hop = probe.New(params), tuple, e, r.ifindex, r.hop
	if e.Recorder != nil {
		sl.transcript = s.newTranscript(tuple, e.Params.Kind)
	}
	s.table.unsure++
	if e.guarded() {
		s.table.guarded++
	}
	s.count(true)
	e.peer.target = e
	e.sent++
	packets := e.Params.Packets()
	s.window.add(s.now, packets)
	e.peer.address.window.add(s.now, packets)
	s.launched = append(s.launched, launch{e.due, e.peer.address})
	s.leaving = append(s.leaving, departure{s.now, ref{i, sl.generation}})

	s.step(i, s.syn(i, probe.Open))
}

// notOpened books what became of a probe that could not open a conversation.
func (s *Shard) notOpened(e *entry, o probe.Observation) {
	s.tell(e, o)
	if e.Recorder == nil {
		return
	}
	t := s.newTranscript(probe.FourTuple{Remote: e.Remote}, e.Params.Kind)
	t.NotOpened(s.now, &o)
	e.Recorder.Settled(t)
	e.Recorder.Record(t)
	s.table.spare = append(s.table.spare, t)
}

// newTranscript returns an empty transcript with a number.
func (s *Shard) newTranscript(tuple probe.FourTuple, k probe.Kind) *probe.Transcript {
	t := s.table.newTranscript(tuple, k)
	s.opened++
	t.Number, t.Offset = s.opened, s.clock.offset
	return t
}

// syn returns the event that sends a conversation's SYN.
func (s *Shard) syn(i int32, k probe.EventKind) *probe.Event {
	sl := &s.table.slots[i]
	s.event = probe.Event{Kind: k, Segment: sl.target.SYN}
	s.event.Segment.Seq = s.secret.iss(&sl.tuple, s.now)
	if s.event.Segment.Options.Has(probe.OptTimestamps) {
		s.event.Segment.Options.TSVal = s.secret.tsval(s.now)
	}
	return &s.event
}

// queue adds a conversation's segment to the batch.
func (s *Shard) queue(i int32, seg *probe.Segment) {
	sl := &s.table.slots[i]
	var payload []byte
	if seg.Len > 0 {
		from := seg.Seq.Sub(sl.conv.FirstOctet())
		payload = sl.target.send[from : from+int32(seg.Len)]
	}
	s.enqueue(way{ifindex: sl.ifindex, ttl: sl.target.TTL, tos: sl.target.TOS, hop: sl.hop}, &sl.tuple, seg, payload)
	s.sending = append(s.sending, ref{i, sl.generation})
	// What goes beyond the packets that the SYN stood for counts by itself.
	if sl.packets++; sl.packets > sl.target.Params.Packets() {
		s.window.add(s.now, 1)
		sl.target.peer.address.window.add(s.now, 1)
	}
}

func (s *Shard) enqueue(w way, tuple *probe.FourTuple, seg *probe.Segment, payload []byte) {
	from := len(s.arena)
	s.arena = wire.AppendTCP(s.arena, tuple, seg, payload)
	s.net.Queue(Packet{
		Segment: s.arena[from:],
		Src:     tuple.Local.Addr(),
		Dst:     tuple.Remote.Addr(),
		Ifindex: w.ifindex,
		TTL:     w.ttl,
		TOS:     w.tos,
		Hop:     w.hop,
	})
}

// noConv is the ref of a segment that belongs to no conversation.
var noConv = ref{slot: -1}

// flush sends the batch.
func (s *Shard) flush() {
	if len(s.sending) == 0 {
		return
	}
	s.net.Flush(s.failed)
	s.arena, s.sending = s.arena[:0], s.sending[:0]
}

// sendFailed tells a conversation that our host refused its segment.
func (s *Shard) sendFailed(k int, err error) {
	r := s.sending[k]
	if r == noConv {
		return
	}
	if sl := &s.table.slots[r.slot]; sl.generation == r.generation {
		s.trouble(sl.target, err)
		s.step(r.slot, &probe.Event{Kind: probe.SendFailed})
	}
}
