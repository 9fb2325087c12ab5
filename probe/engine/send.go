package engine

import (
	"errors"
	"math"
	"net/netip"
	"time"
	"unique"

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
	Route
	err error
}

// maxFired is how many targets come up in one turn at most. A burst is fewer, but after
// a stop the slots that all targets have missed come up with it, and the ring fills
// meanwhile.
const maxFired = 256

// send opens the conversations that are due, one burst at most, and returns when
// the next are. One that is due takes others along: see company.
func (s *Shard) send() probe.Instant {
	s.launched = s.launched[:0]
	for fired := 0; len(s.launched) < s.pace.burst(); fired++ {
		if fired == maxFired {
			s.sent()
			return s.now
		}
		s.warmEntries()
		x, goes := s.next()
		if !goes {
			break
		}
		e := s.entries[x.value]
		s.company.take(x, s.now, s.stretch(e))
		if s.sends(e) {
			packets := e.manner.packets
			most := s.most(packets)
			if packets > most && s.settledShare() {
				// It would hold up all behind it, for ever.
				s.popDue()
				s.skip(e, SkipRateLimit)
				continue
			}
			if at := s.window.room(s.now, e.needs(most)+s.taken(), most); at > s.now {
				// What is reserved may be given back before: while it is, there are turns,
				// and each looks again.
				s.throttled = true
				s.sent()
				s.pace.abreast(s.now)
				return max(at, s.now.Add(burstGap))
			}
		}
		s.popDue()
		e.scheduled = false
		if e.gone {
			s.goners--
			s.letGo(e)
		} else {
			s.fire(e)
		}
	}
	s.sent()
	if x, due := s.schedule.first(s.now); due {
		s.pace.behind(s.now, s.now.Sub(x.at))
		return s.now.Add(s.pace.gap())
	}
	s.pace.abreast(s.now)
	s.throttled = false
	if _, more := s.next(); more {
		return s.now.Add(s.pace.gap())
	}
	s.company.room = 0
	idle := s.now.Add(idlePause)
	if x, soon := s.schedule.first(idle); soon {
		if s.demand <= few { // the wait before may have ended early, and this one is what was left of it
			return max(s.wake(x), s.now.Add(burstGap))
		}
		return max(s.wake(x), s.now.Add(tick))
	}
	return idle
}

// needs is how many packets a probe needs room for under a limit. Where our kernel's RST was
// not seen leaving there is to be one of ours, beyond what is booked for that.
func (e *entry) needs(limit int) int {
	n := e.manner.needs(limit)
	if e.resetsItself && n < limit {
		n++
	}
	return n
}

// popDue takes the target that is due out of the schedule.
func (s *Shard) popDue() {
	s.schedule.pop()
	s.fetched--
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
		s.cfg.Observer.ScheduleDelay(max(s.now.Sub(l.due), 0))
	}
	s.launched = s.launched[:0]
}

// fire does what is due of a target and puts it back into the schedule.
func (s *Shard) fire(e *entry) {
	if missed := e.missed(s.now); missed > 0 {
		slot := e.slot.Add(time.Duration(missed) * e.interval)
		if e.Count != 1 {
			reason := SkipLate
			if s.throttled || e.throttled || e.waits {
				reason = SkipRateLimit
			}
			s.cfg.Observer.Skipped(reason, int(missed))
			s.reschedule(e, slot)
			return
		}
		// It is waited for, and has no other turn to be late for. Behind the others
		// once more, it would be as late again for as long as the loop is.
		e.slot = slot
	}
	if e.peer == nil {
		s.notOpened(e, probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
		s.made(e)
		return
	}
	if e.manner.params.Measure == probe.MeasureDuration && s.measured(e) {
		s.reschedule(e, s.now.Add(time.Second)) // and the slots after it, lest its own overlap
		return
	}
	if s.forbids(e.peer) { // since a reload, which will take the target away
		s.notOpened(e, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardReload})
		s.made(e)
		return
	}
	e.throttle(false)
	a := e.peer.address
	packets, most := s.packets(e)
	if e.counted {
		if at := s.beside(a, packets, most); at > s.now {
			e.waits = true
			s.plan(e, s.recheck(at, int(a.reserved+a.wanted)+s.lent.reserved))
			return
		}
	} else if a.window.room(s.now, packets+a.taken(), most) > s.now {
		s.plan(e, a.again(s.now, packets, most))
		e.throttle(true)
		return
	}
	if err := s.reach(e); err != nil {
		s.trouble(e, err)
		s.notOpened(e, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError})
	} else if int(a.unsent) >= maxUnsent*e.manner.booked && s.now.Sub(a.scouted) < scoutEvery {
		s.trouble(e, errUnsent)
		s.skip(e, SkipUnsent)
		return
	} else if port, ok := s.port(e); !ok {
		s.skip(e, SkipNoPort)
		return
	} else {
		if int(a.unsent) >= maxUnsent*e.manner.booked {
			a.scouted = s.now
		}
		s.open(e, port, packets)
	}
	s.made(e)
}

// measured reports whether a conversation of before a change of the target is under
// way: a peer in TIME-WAIT is touched by one at a time. A target's own do not
// overlap, if its interval is as long as the configuration asks.
func (s *Shard) measured(e *entry) bool {
	for _, w := range s.table.wholes.all {
		if w == nil || w.slot == none {
			continue
		}
		sl := s.table.slot(w.slot)
		if other := s.entries[sl.target]; other != e && other.id == e.id && s.table.isOpen(sl) {
			return true
		}
	}
	return false
}

// made goes on to a target's next slot after a probe, if it is to have one.
func (s *Shard) made(e *entry) {
	if e.counted {
		if e.probes++; e.spent() {
			e.throttle(false)
			return
		}
	}
	s.reschedule(e, e.slot.Add(e.interval))
}

// skip goes on to a target's next slot without a probe.
func (s *Shard) skip(e *entry, r SkipReason) {
	s.cfg.Observer.Skipped(r, 1)
	s.reschedule(e, e.slot.Add(e.interval))
}

// reschedule puts a target into the schedule for a slot.
func (s *Shard) reschedule(e *entry, slot probe.Instant) {
	e.throttle(false)
	e.waits = false
	e.slot = slot
	e.due = slot
	if e.jitters {
		e.due = slot.Add(jitter(e.id, slot, e.Jitter))
	}
	s.plan(e, e.due)
}

// plan puts a target into the schedule for a moment.
func (s *Shard) plan(e *entry, at probe.Instant) {
	e.scheduled = true
	s.schedule.push(at, e.index)
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

// sends reports whether a target that is due has something to send. One that is waited for goes however
// late it is; and where there is no room for it beside the schedule it waits by itself (fire), and holds up nobody.
func (s *Shard) sends(e *entry) bool {
	switch {
	case e.gone || e.peer == nil:
		return false
	case e.counted:
		if packets, most := s.packets(e); s.beside(e.peer.address, packets, most) > s.now {
			return false
		}
	}
	return e.counted && e.Count == 1 || e.missed(s.now) == 0
}

// packets is how many packets a target's probe needs room for, and the limit of its address.
func (s *Shard) packets(e *entry) (n, most int) {
	most = e.peer.address.demand.most(s.limits.PerAddress, e.manner.packets, addressSlack)
	return e.needs(min(most, s.limits.Global)), most
}

// beside returns when there is room for a probe beside the schedule, but for the limit of all: now, or later. The
// schedule's probes that wait for the address go first. Where they always do, it waits among them.
func (s *Shard) beside(a *address, packets, most int) probe.Instant {
	ahead := int(a.waiting)
	if a.demand.spare(s.limits.PerAddress, s.largest) < packets {
		ahead = 0
	}
	return max(s.lends(a, packets), a.window.room(s.now, packets*(1+ahead)+a.taken(), most))
}

// missed counts the target's slots that are lost: those whose next one is due
// too.
func (e *entry) missed(now probe.Instant) int64 {
	late := now.Sub(e.slot)
	if late < e.interval {
		return 0
	}
	n := int64(late / e.interval)
	last := e.slot.Add(time.Duration(n) * e.interval)
	if last.Add(jitter(e.id, last, e.Jitter)) > now {
		n--
	}
	return n
}

// errFamily is the fault of a source address that is not of the destination's
// family.
var errFamily = errors.New("source and destination are not of one address family")

// errTentative is the fault of the address that segments left from so far.
var errTentative = errors.New("the source address came back and is tentative: the kernel still asks whether somebody else has it (duplicate address detection)")

// reach finds out how the host reaches a target, asked anew when the host's
// routes or addresses have changed.
func (s *Shard) reach(e *entry) error {
	g := s.net.RouteGeneration()
	if e.asked && e.generation == g {
		return nil
	}
	e.asked, e.generation = false, g
	r := &e.route
	r.Route, r.err = s.net.Route(e.Remote.Addr(), e.Source, e.Device)
	r.Source = r.Source.WithZone("")
	if r.err == nil && r.Source.Is4() != e.Remote.Addr().Is4() {
		r.err = errFamily
	}
	if e.reached && r.err == nil && !e.Source.IsValid() && s.table.locals[e.local] != r.Source && s.net.Tentative(s.table.locals[e.local]) {
		r.err = errTentative
	}
	e.hop = 0
	if r.err != nil && e.reached {
		s.isAway(e.local)
	}
	if r.err == nil {
		e.asked, e.reached = true, true
		s.fit(e)
		if e.Direct {
			e.hop = s.net.Hop(e.Remote.Addr(), r.Source, r.Ifindex, e.TOS)
		}
		e.local, e.ifindex = s.table.intern(r.Source), int32(r.Ifindex)
		e.between = wire.PseudoSum(r.Source, e.Remote.Addr())
	}
	return r.err
}

const (
	// What is in a packet beside the data, without options (RFC 6691 §2).
	ipv4Headers = 20 + 20
	ipv6Headers = 40 + 20
	// leastMSS is the least that Linux announces (net.ipv4.route.min_adv_mss).
	leastMSS = 256
)

// fit has a target's SYNs announce no more than what its route has room for, as the host's own do
// (RFC 9293 §3.7.1): a larger segment this host's interface may drop as it comes.
func (s *Shard) fit(e *entry) {
	if !e.FitMSS {
		return
	}
	syn := e.SYN.Value()
	if room := e.room(); room < int(syn.Options.MSS) {
		syn.Options.MSS = uint16(max(room, leastMSS))
	}
	if fitted := unique.Make(syn); fitted != e.manner.syn {
		s.manners.unuse(e.manner)
		e.manner = s.manners.use(e.Target, fitted)
	}
}

// room is the largest MSS that a target's route has room for, as far as is known.
func (e *entry) room() int {
	switch {
	case e.route.MTU == 0:
		return math.MaxInt
	case e.Remote.Addr().Is6():
		return e.route.MTU - ipv6Headers
	}
	return e.route.MTU - ipv4Headers
}

// errNarrowed is a finding about this host, not an error of a call.
var errNarrowed = errors.New("the MTU of this host's way to it was lowered while a connection was open: what the peer sent by the old one is dropped here")

// excuseNarrowed spoils a connection that runs out of time whose SYN announced more than its route has room
// for by now: of that size are the peer's segments. A SYN-ACK is not; and where the host has turned to
// another source address, that one's way is another.
func (s *Shard) excuseNarrowed(i int32) {
	sl := s.table.slot(i)
	e := s.entries[sl.target]
	if !e.FitMSS || sl.whole == none || s.table.isSettled(sl) || !s.table.isAnswered(sl) || s.reach(e) != nil || sl.local != e.local {
		return
	}
	if int(s.table.wholes.at(sl.whole).AnnouncedMSS()) > e.room() {
		s.trouble(e, errNarrowed)
		s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardSendError})
	}
}

// port takes the next source port towards a target. A four-tuple comes round
// when the range has gone round: peers, NATs and firewalls remember it. One
// that is still in a conversation is passed over; one whose conversation only
// lingers is taken from it. A flow keeps its port. Where a host lets no RST out, four-tuples
// that are held, or to be reset yet, are taken rather than none: there would soon be no other.
func (s *Shard) port(e *entry) (uint16, bool) {
	s.inherited = 0
	r, next := s.cfg.Reserved, &e.peer.ports[0]
	if e.guarded {
		r, next = s.cfg.Guarded, &e.peer.ports[1]
	}
	n := r.len()
	if e.flows {
		s.fresh = e.guarded && e.sent-e.before < uint64(e.Flows) && s.now.Sub(s.born) < issSpan // a reload begins anew
		flow := uint32(e.sent % uint64(e.Flows))
		port := r.First + uint16((uint32(e.ID)%n+flow)%n)
		i, parted := s.vacate(e, port)
		if parted {
			s.giveUp(i)
		}
		return port, i == none || parted
	}
	first, at := none, uint32(0) // of those that are to be reset yet
	for range n {
		p := r.First + uint16(*next%n)
		*next = (*next + 1) % n
		if s.fresh = e.guarded && uint32(e.peer.taken) < n; s.fresh {
			e.peer.taken++
		}
		i, parted := s.vacate(e, p)
		if i == none {
			return p, true
		}
		if parted && first == none {
			first, at = i, *next
		}
	}
	if first == none {
		return 0, false
	}
	*next, s.fresh = at, false
	port := s.table.slot(first).key.port()
	s.giveUp(first)
	return port, true
}

// vacate makes a source port towards a target free, unless a conversation is still open
// on it or it is held: that it returns, and whether it may be taken from it if need be.
func (s *Shard) vacate(e *entry, port uint16) (i int32, parted bool) {
	k := e.peer.key(port)
	if i = s.table.find(&k, k.hash()); i == none {
		return none, false
	}
	switch sl := s.table.slot(i); {
	case s.table.isOpen(sl):
		return i, s.table.isParted(sl)
	case s.holding(sl) > 0, s.table.owesACK(sl):
		return i, true
	}
	s.release(i)
	return none, false
}

// tuple is the four-tuple of a slot's conversation.
func (s *Shard) tuple(sl *slot, e *entry) probe.FourTuple {
	return probe.FourTuple{Local: netip.AddrPortFrom(s.table.locals[sl.local], sl.key.port()), Remote: e.remote}
}

// open begins a conversation that may send as many packets.
func (s *Shard) open(e *entry, port uint16, packets int) {
	i := s.table.claim(e.peer.key(port))
	sl := s.table.slot(i)
	sl.target, sl.local, sl.ifindex = e.index, e.local, e.ifindex
	sl.whole, sl.transcript = none, none
	sl.rsts = 0
	sl.packets, sl.reserved, sl.unsent, sl.handed, sl.direct = 0, 0, false, false, e.hop != 0 && s.now >= e.peer.raw
	sl.via, sl.held = [2]int32{}, s.inherited
	if m := e.manner; m.params.Compacts() {
		sl.small = m.fresh
	} else {
		params := m.params
		params.Prompt = e.prompt
		sl.whole = s.table.wholes.take()
		*s.table.wholes.at(sl.whole) = whole{Conversation: probe.New(params), slot: i, fresh: s.fresh}
	}
	if e.recorder != nil {
		sl.transcript = s.newTranscript(s.tuple(sl, e), e.manner.params.Kind)
		sl.number = s.table.transcripts.at(sl.transcript).Number
	}
	s.table.unsure++
	if e.guarded {
		s.table.guarded++
	}
	s.count(true)
	e.conversations++
	e.peer.target = e
	e.sent++
	s.reserve(i, sl, e, packets)
	s.launched = append(s.launched, launch{e.due, e.peer.address})
	s.leaving.push(departure{s.now, s.table.ref(i)})

	ev := s.syn(i, probe.Open)
	if a := e.peer.address; sl.whole != none && a.narrow != 0 {
		w := s.table.wholes.at(sl.whole)
		if w.Large() {
			w.tries = a.tries(s.now)
		}
		ev.Narrow = w.tries == 0
	}
	s.step(i, ev)
}

// release frees a slot and hands over what its transcript has that was not yet.
func (s *Shard) release(i int32) {
	sl := s.table.slot(i)
	e := s.entries[sl.target]
	if sl.transcript != none {
		if sl.handed {
			e.recorder.Record(s.table.transcripts.at(sl.transcript))
		} else {
			s.handOver(sl, e)
		}
	}
	if e.guarded {
		s.table.guarded--
	}
	if sl.reserved > 0 {
		s.setReserved(sl, e, 0)
	}
	s.setWanted(sl, e, 0)
	s.table.drop(i)
	e.conversations--
	s.letGo(e)
}

// handOver gives the transcript to whoever waits for the end, once, and keeps no more
// of it.
func (s *Shard) handOver(sl *slot, e *entry) {
	if sl.transcript != none && !sl.handed {
		sl.handed = true
		e.recorder.Settled(s.table.transcripts.at(sl.transcript))
		s.table.transcripts.put(sl.transcript)
		sl.transcript = none
	}
}

// record hands over what a transcript has that was handed over before, and keeps none.
func (s *Shard) record(sl *slot, e *entry) {
	e.recorder.Record(s.table.transcripts.at(sl.transcript))
	s.table.transcripts.put(sl.transcript)
	sl.transcript = none
}

// notOpened books what became of a probe that could not open a conversation.
func (s *Shard) notOpened(e *entry, o probe.Observation) {
	s.tell(e, o)
	if e.recorder == nil {
		return
	}
	i := s.newTranscript(probe.FourTuple{Remote: e.Remote}, e.manner.params.Kind)
	t := s.table.transcripts.at(i)
	t.NotOpened(s.now, &o)
	e.recorder.Settled(t)
	s.table.transcripts.put(i)
}

// newTranscript returns the number of an empty transcript, which has the next number
// among all.
func (s *Shard) newTranscript(tuple probe.FourTuple, k probe.Kind) int32 {
	return s.transcript(tuple, k, s.numbers.Add(1))
}

// transcript returns the number of an empty transcript.
func (s *Shard) transcript(tuple probe.FourTuple, k probe.Kind, number uint64) int32 {
	i := s.table.transcripts.take()
	t := s.table.transcripts.at(i)
	t.Reset(tuple, k)
	t.Number, t.Offset = number, s.clock.offset
	return i
}

// syn returns the event that sends a conversation's SYN.
func (s *Shard) syn(i int32, k probe.EventKind) *probe.Event {
	sl := s.table.slot(i)
	e := s.entries[sl.target]
	s.event = probe.Event{Kind: k, Segment: e.manner.syn.Value()}
	tuple := s.tuple(sl, e)
	s.event.Segment.Seq = s.secret.iss(&tuple, s.now)
	if s.event.Segment.Options.Has(probe.OptTimestamps) {
		s.event.Segment.Options.TSVal = s.secret.tsval(s.now)
	}
	return &s.event
}

// queue adds a conversation's segment to the batch.
func (s *Shard) queue(i int32, sl *slot, e *entry, c *probe.Conversation, ev *probe.Event, seg *probe.Segment) {
	w := way{ifindex: int(sl.ifindex), ttl: e.manner.ttl, tos: e.manner.tos}
	if sl.direct {
		w.hop = e.hop
	}
	if ev.Kind == probe.Open {
		from := len(s.arena)
		s.arena = e.manner.template.Append(s.arena, e.between, sl.key.port(), e.remote.Port(), seg.Seq, seg.Options.TSVal)
		s.post(w, s.table.locals[sl.local], e.remote.Addr(), s.arena[from:])
	} else {
		var payload []byte
		if seg.Len > 0 {
			from := seg.Seq.Sub(c.FirstOctet())
			s.payload = append(s.payload[:0], e.Send[from:from+int32(seg.Len)]...)
			payload = s.payload
		}
		tuple := s.tuple(sl, e)
		s.enqueue(w, &tuple, seg, payload)
	}
	s.sending = append(s.sending, s.table.ref(i))
	if sl.whole == none && seg.Flags.Has(probe.RST) && sl.rsts&ourRSTs < ourRSTs {
		sl.rsts += ourRST
	}
	if int(sl.packets) >= e.manner.booked || seg.Flags.Has(probe.RST) && e.manner.params.ResetGrace > 0 { // our kernel's may leave too
		s.bookQueued(sl, e, within(sl, c.Local(), seg))
	}
	if sl.packets < math.MaxUint16 {
		sl.packets++
	}
}

func (s *Shard) enqueue(w way, tuple *probe.FourTuple, seg *probe.Segment, payload []byte) {
	from := len(s.arena)
	s.arena = wire.AppendTCP(s.arena, tuple, seg, payload)
	s.post(w, tuple.Local.Addr(), tuple.Remote.Addr(), s.arena[from:])
}

func (s *Shard) post(w way, src, dst addr, segment []byte) {
	s.net.Queue(Packet{Segment: segment, Src: src, Dst: dst, Ifindex: w.ifindex, TTL: w.ttl, TOS: w.tos, Hop: w.hop})
}

// noConv is the ref of a segment that belongs to no conversation.
var noConv = ref{slot: none}

// flush sends the batch.
func (s *Shard) flush() {
	if len(s.sending) == 0 {
		return
	}
	s.net.Flush(s.failed)
	s.arena, s.sending = s.arena[:0], s.sending[:0]
	s.haveLeft()
}

// sendFailed tells a conversation that our host refused its segment.
func (s *Shard) sendFailed(k int, err error) {
	r := s.sending[k]
	if !s.table.is(r) {
		return
	}
	sl := s.table.slot(r.slot)
	if sl.rsts&ourRSTs > 0 {
		sl.rsts -= ourRST
	}
	s.isAway(sl.local)
	s.trouble(s.entries[sl.target], err)
	s.step(r.slot, &probe.Event{Kind: probe.SendFailed})
}
