package engine

import (
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A clock tells the stretches of the packet clock apart. Wall time and
// monotonic time are slewed alike, so their difference changes by steps only.
type clock struct {
	stretch uint32        // counts from 1
	offset  int64         // wall − monotonic, ns
	stepped probe.Instant // when the last step was noticed
}

// read takes a new reading and returns by how much the packet clock stepped
// since the last one, 0 for not at all.
func (c *clock) read(now probe.Instant, wall int64) time.Duration {
	offset := wall - int64(now)
	d := time.Duration(offset - c.offset)
	if c.stretch != 0 && d.Abs() <= stepTolerance {
		return 0
	}
	c.offset = offset
	c.stretch++
	if c.stretch == 1 {
		return 0
	}
	c.stepped = now
	return d
}

// stamp names the stretch that a stamp of a frame just read lies on, if that
// can be told: every frame from before the last step must have been handled.
func (c *clock) stamp(f *frame, caughtUp probe.Instant) probe.Stamp {
	if c.stretch > 1 && caughtUp < c.stepped.Add(suspectFor) {
		return probe.Stamp{Wall: f.wall, Kernel: f.stamped}
	}
	return probe.Stamp{Wall: f.wall, Clock: c.stretch, Kernel: f.stamped}
}

// moment is a stamp on the loop's clock, now for one that can't be told.
func (s *Shard) moment(st probe.Stamp) probe.Instant {
	if st.Clock != s.clock.stretch {
		return s.now
	}
	return min(probe.Instant(st.Wall-s.clock.offset), s.now)
}

// read looks at the clocks.
func (s *Shard) read() {
	now, wall := s.net.Clocks()
	s.now = now
	if by := s.clock.read(now, wall); by != 0 {
		s.cfg.Observer.ClockStep(by)
	}
}

// receive handles the frames that have arrived, and reports whether it has handled them all:
// those that nobody answers may wait for each other for a tick. Between the bursts of a company few
// have come, and what they need would be fetched from memory for each few anew.
func (s *Shard) receive() (drained bool) {
	s.read()
	s.busy = false
	if s.drained && s.table.guarded == 0 && s.now.Sub(s.caughtUp) < tick {
		return true
	}
	s.drained = s.receiveAll()
	return s.drained
}

// receiveAll reads the clocks after each batch of frames is taken and before it is handled: so now
// lies after every stamp, and a step of the clock is known before a stamp from around it is believed.
func (s *Shard) receiveAll() (drained bool) {
	s.lookForLosses()
	began := s.now
	for round := range maxBatches {
		s.calm = round < calmBatches
		s.nFrames = 0
		n := s.net.Receive(batch, s.keep)
		s.read()
		s.noticeDrops()
		s.busy = s.busy || s.nFrames > 0
		s.warmFrames()
		for i := range s.nFrames {
			s.handle(&s.frames[i])
		}
		if n < batch {
			s.caughtUp = began
			s.noticeUnsent()
			s.noticeLosses()
			return true
		}
	}
	return false
}

// noticeDrops spoils every conversation without a verdict when frames were
// lost: its answer may have been among them.
func (s *Shard) noticeDrops() {
	drops := s.net.Drops()
	if drops == s.drops {
		return
	}
	s.drops, s.dropped = drops, s.now
	s.Stats.TapDrops.Store(drops)
	if s.table.unsure == 0 {
		return
	}
	for i := range s.table.len() {
		if sl := s.table.slot(i); sl.target != free && !s.table.isSettled(sl) {
			s.step(i, &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardTapDrop})
		}
	}
}

// keepFrame parses a frame while its bytes are valid.
func (s *Shard) keepFrame(f *Frame) {
	k := &s.frames[s.nFrames]
	parse := wire.Parse
	if f.Outgoing || f.ChecksumOK {
		parse = wire.ParseUnverified
	}
	p := &k.packet
	if k.malformed = parse(f.Data, p) != nil; k.malformed && f.Outgoing {
		return
	}
	k.wall, k.ifindex, k.stamped, k.outgoing = f.Wall, f.Ifindex, f.Stamped, f.Outgoing
	k.intact = f.Outgoing || wire.HeaderIntact(f.Data) && (f.ChecksumOK || p.Checksum != wire.ChecksumBad)
	k.malformed = k.malformed || !f.Outgoing && !f.Snapped && wire.Truncated(f.Data)
	p.Payload = nil
	switch {
	case p.Kind == wire.KindTCP && f.Outgoing:
		k.key, k.local = keyOf(p.Dst, p.DstPort, p.SrcPort), p.Src
	case p.Kind == wire.KindTCP:
		k.key, k.local = keyOf(p.Src, p.SrcPort, p.DstPort), p.Dst
	case p.Kind == wire.KindICMPError && f.Outgoing: // about what a peer has sent
		k.key, k.local = keyOf(p.Quote.Src, p.Quote.SrcPort, p.Quote.DstPort), p.Quote.Dst
	case p.Kind == wire.KindICMPError:
		k.key, k.local = keyOf(p.Quote.Dst, p.Quote.DstPort, p.Quote.SrcPort), p.Quote.Src
	default:
		return
	}
	k.hash = k.key.hash()
	s.nFrames++
}

// handle delivers a frame to the conversation it belongs to. Of a packet that
// arrives through several layers the first sighting is nearest to the wire, and
// the only one to be delivered; of one that leaves, the last.
func (s *Shard) handle(f *frame) {
	p := &f.packet
	again := s.sightings.again(f)
	if again && !f.outgoing {
		return
	}
	if !s.ours(f.key.port()) {
		return
	}
	i := s.find(&f.key, f.hash, f.local)
	if p.Kind == wire.KindICMPError && f.outgoing {
		if i != none {
			s.noteRejected(i, &p.ICMP)
		}
		return
	}
	ev, stamp := &s.event, s.clock.stamp(f, s.caughtUp)
	switch {
	case f.outgoing:
		// The RST of a conversation that is over for us, with its target or because nobody
		// knows of it, finds none any more when it is seen.
		if !again && (i != none || s.table.knows(f.local)) {
			s.Stats.SegmentsSent.Add(1)
		}
		if i == none {
			return
		}
		if p.Segment.Flags.Has(probe.SYN) {
			sl := s.table.slot(i)
			e := s.entries[sl.target]
			e.untroubled()
			if upper := sl.via[1]; upper != 0 && upper != int32(f.ifindex) {
				s.noteThrough(upper, again)
			}
			sl.leftBy(int32(f.ifindex))
			s.isBack(sl, s.moment(stamp))
			s.passUnsent(sl, e)
		}
		if p.Segment.Flags.Has(probe.RST) {
			if s.resetLeaves(i); !again {
				s.bookKernels(i, p.Segment.Seq, stamp)
			}
		}
		if s.mayDrop(s.table.slot(i), f) {
			return
		}
		*ev = probe.Event{Kind: probe.SegmentSent, Segment: p.Segment}
	default:
		s.Stats.SegmentsReceived.Add(1)
		damage := f.damage()
		switch {
		case i == none:
			s.stray(f, damage)
			return
		case damage != probe.NotRejected:
			s.reject(s.entries[s.table.slot(i).target], damage)
			return
		case s.madeHere(s.table.slot(i), f):
			*ev = probe.Event{Kind: probe.SendFailed}
		case p.Kind == wire.KindTCP:
			s.excuseRejected(i, &p.Segment)
			s.isFound(s.table.slot(i), s.moment(stamp))
			*ev = probe.Event{Kind: probe.SegmentArrives, Segment: p.Segment, Fragment: p.Fragment}
		default:
			*ev = probe.Event{Kind: probe.ICMPArrives, ICMP: p.ICMP}
		}
	}
	if !f.stamped { // the stamp is the tap's own reading of the clock
		s.Stats.StampFallbacks.Add(1)
	}
	if ev.Stamp = stamp; !f.outgoing {
		s.excuseLate(i, stamp)
	}
	s.step(i, ev)
}

// ours reports whether a port is one of the shard's.
func (s *Shard) ours(port uint16) bool { return s.cfg.Reserved.has(port) || s.cfg.Guarded.has(port) }

// find looks a conversation up by its whole four-tuple.
func (s *Shard) find(k *key, h uint64, local addr) int32 {
	i := s.table.find(k, h)
	if i == none || s.table.locals[s.table.slot(i).local] != local {
		return none
	}
	return i
}

// damage is why a frame is not even looked at, if it is not.
func (f *frame) damage() probe.RejectReason {
	switch {
	case f.malformed && f.packet.Kind == wire.KindICMPError:
		return probe.RejectBadQuote
	case f.malformed:
		return probe.RejectMalformed
	case !f.intact:
		return probe.RejectBadChecksum
	}
	return probe.NotRejected
}

// stray books a segment or an ICMP error that no conversation expects with the target
// whose address it names. Anybody else's is just not ours, and what this host only
// forwards is nobody's.
func (s *Shard) stray(f *frame, damage probe.RejectReason) {
	p := &f.packet
	remote := netip.AddrPortFrom(p.Src, p.SrcPort)
	if p.Kind == wire.KindICMPError {
		remote = netip.AddrPortFrom(p.Quote.Dst, p.Quote.DstPort)
	}
	peer := s.peers.byRemote[remote]
	if peer == nil {
		return
	}
	var w way
	if e := peer.target; e != nil {
		if s.cfg.Guarded.has(p.DstPort) && !e.route.Source.IsValid() && e.route.err == nil {
			_ = s.reach(e) // it was not probed yet, and the peer may hold a connection of before we were started
		}
		w = way{source: e.route.Source, ifindex: e.route.Ifindex, ttl: e.TTL, tos: e.TOS}
	} else if peer.way != nil {
		w = *peer.way
	}
	if f.local != w.source {
		return
	}
	if peer.target != nil {
		if damage == probe.NotRejected {
			s.reject(peer.target, probe.RejectUnexpected)
		} else {
			s.reject(peer.target, damage)
		}
	}
	if damage == probe.NotRejected && p.Kind == wire.KindTCP && s.cfg.Guarded.has(p.DstPort) {
		s.refuse(peer, w, p)
	}
}

// refuse answers a segment on a guarded port that no conversation expects, as
// our kernel would: "If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>" (RFC 9293
// §3.10.7.1). A peer that our last RST did not reach is closed by that. What the
// rations and the limits leave no room for is not answered: it comes again.
func (s *Shard) refuse(pr *peer, w way, p *wire.Packet) {
	seg := &p.Segment
	if seg.Flags.Has(probe.RST) || !seg.Flags.Has(probe.ACK) || s.forbids(pr) && s.now.Sub(s.ruled) >= ruleGrace ||
		s.window.room(s.now, 1+s.taken(), s.limits.Global) > s.now || pr.address.window.room(s.now, 1+pr.address.taken(), s.limits.PerAddress) > s.now ||
		s.lends(pr.address, 1) > s.now || !s.mayRefuse(pr.address) {
		return
	}
	s.lend(pr.address, 1)
	s.window.add(s.now, 1)
	pr.address.window.add(s.now, 1)
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort)}
	s.enqueue(w, &tuple, &probe.Segment{Seq: seg.Ack, Flags: probe.RST}, nil)
	s.sending = append(s.sending, noConv)
}

// reject books a segment that was not believed.
func (s *Shard) reject(e *entry, r probe.RejectReason) {
	s.tell(e, probe.Observation{Kind: probe.Rejected, Reject: r})
}

// expire delivers the timers that have gone off. They are held to the moment up
// to which every frame was handled, so that no answer that lies in the ring is
// taken for silence.
func (s *Shard) expire() {
	s.table.settle(s.now)
	for i := s.table.expired(s.caughtUp); i != none; i = s.table.expired(s.caughtUp) {
		s.goOff(i)
		s.table.settle(s.now)
	}
	for {
		group := s.table.lapses.group(s.caughtUp)
		if len(group) == 0 {
			return
		}
		s.warmLapses(group)
		for range len(group) {
			if i := s.table.lapsed(s.caughtUp); i != none {
				s.goOff(i)
			}
		}
		s.table.settle(s.now)
	}
}

// goOff delivers a conversation's timer.
func (s *Shard) goOff(i int32) {
	kind := s.table.alarm(i).kind
	switch kind {
	case probe.Reopen:
		if !s.postpones(i) {
			s.step(i, s.syn(i, kind))
		}
		return
	case probe.TimeWaitTimeout:
		if s.lingersOn(i) {
			return
		}
	case probe.RetransmissionTimeout:
		if sl := s.table.slot(i); (s.noRoomToInsist(sl) || s.noRoomToPart(sl)) && s.insistsLater(i) {
			return
		}
		if s.postpones(i) {
			return
		}
	case probe.ACKTimeout:
		if s.postpones(i) {
			return
		}
	case probe.UserTimeout:
		s.excuse(i)
		s.excuseBelow(i)
		s.excuseNarrowed(i)
		s.excuseHeld(i, s.table.slot(i))
		s.excuseBefore(i, s.table.slot(i))
	}
	s.event = probe.Event{Kind: kind}
	if sl := s.table.slot(i); kind == probe.RetransmissionTimeout && sl.whole != none {
		s.event.Narrow = s.entries[sl.target].peer.address.isNarrow(s.now)
	}
	s.step(i, &s.event)
	if kind == probe.UserTimeout {
		s.holdUnsent(i)
	}
}

// step advances a conversation and does what it asks.
func (s *Shard) step(i int32, ev *probe.Event) {
	sl := s.table.slot(i)
	e := s.entries[sl.target]
	out := &s.output
	c := s.table.conversation(sl, &e.manner.params, &s.scratch)
	wasSettled, wasAnswered := c.Settled(), c.Answered()
	wasOpen := !wasSettled || !c.Closed()
	c.Step(s.now, ev, out)
	if sl.whole == none {
		c.Compact(&sl.small)
	}
	if e.recorder != nil {
		s.transcribe(sl, e, c, ev)
	}
	if out.Narrow {
		e.peer.address.narrows(s.now)
	}
	before := out.Note == probe.NoteChallengeACK && e.guarded && s.noteBefore(sl, e, ev)
	went, kept, missed, first := 0, 0, false, probe.Segment{}
	for segments, j := out.Segments(), 0; j < len(segments); j++ {
		if ev.Kind == probe.SegmentArrives && out.Note.Disbelieves() && !before && !s.mayRefuse(e.peer.address) {
			continue
		}
		if !s.mayGo(sl, e, c, ev, &segments[j]) {
			if missed = true; first.SegLen() == 0 {
				first = segments[j]
			}
			if !out.Note.Disbelieves() { // nobody waits for an answer to that
				kept++
			}
			continue
		}
		went++
		s.queue(i, sl, e, c, ev, &segments[j])
	}
	if observations := out.Observations(); len(observations) > 0 {
		for j := range observations {
			observations[j].Port = sl.key.port()
		}
		e.sink.ObserveAll(observations)
	}
	settled, closed := c.Settled(), c.Closed()
	if settled && !wasSettled {
		e.prompt = c.Prompts()
		s.table.unsure--
		if sl.whole != none {
			s.noteWide(sl, e)
		}
	}
	switch {
	case c.ResetGrace == 0:
	case out.Note == probe.NoteResetOwn:
		s.noReset(sl, e, c.ResetGrace)
	case out.Note == probe.NoteResetSent && sl.packets == 1: // we sent no more than the SYN
		if e.resetsItself = false; sl.direct {
			e.peer.unreset = 0
		}
	}
	if sl.unsent {
		s.noteSent(sl, e)
	}
	s.noteHeld(i, c)
	if ev.Kind == probe.SegmentArrives && !wasAnswered && (c.Answered() || settled && !wasSettled) {
		s.noteLowest(sl, e)
	}
	if ev.Kind == probe.SegmentSent && out.Note == probe.NoteDiscarded {
		s.rejects(sl, e, errInOurName)
	}
	if sl.held != 0 {
		s.noteUnheld(sl, ev, wasAnswered, wasSettled)
	}
	if sl.whole != none && out.Note == probe.NoteResetSent && c.KernelReset() {
		s.bookFurther(sl, e, true)
	}
	if sl.reserved > 0 && settled && closed {
		s.setReserved(sl, e, 0)
	}
	// A late SYN-ACK opens a conversation again, until it is reset.
	if isOpen := !settled || !closed; isOpen != wasOpen {
		s.count(isOpen)
	}
	switch {
	case !sl.handed && c.Rests():
		s.handOver(sl, e)
	case out.Note == probe.NoteResetUnseen && sl.transcript != none: // it insists for a minute
		s.record(sl, e)
	}
	if missed {
		s.keepBack(sl, e, c, &first)
	}
	switch {
	case !c.Pending() && !c.Parts(): // what was kept goes by no timer
		s.setWanted(sl, e, 0)
	case kept > 0 || went > 0:
		s.setWanted(sl, e, kept)
	}
	if c.Done() {
		s.release(i)
		return
	}
	kind, at := c.Timer()
	s.table.arm(i, kind, at)
}

// noteWide notes that large segments have come through again, of the conversation that has tried it.
func (s *Shard) noteWide(sl *slot, e *entry) {
	w, a := s.table.wholes.at(sl.whole), e.peer.address
	if w.tries != 0 && w.tries == a.narrow && w.CameThrough() {
		a.narrow = 0
	}
}

// transcribe adds a step to the conversation's transcript: to a new one if the one
// before was handed over, unless nothing begins with the step.
func (s *Shard) transcribe(sl *slot, e *entry, c *probe.Conversation, ev *probe.Event) {
	if sl.transcript == none {
		if s.isIdle(c, ev) {
			return
		}
		sl.transcript = s.transcript(s.tuple(sl, e), c.Kind, sl.number)
	}
	s.table.transcripts.at(sl.transcript).Add(s.now, ev, c, &s.output)
}

// isIdle reports whether a step is no more than the end, or of what nobody believes, or of
// a RST that answers that: a flood of those would make a transcript of each four-tuple that
// lingers. So would the RSTs that go again to peers that are silent, of each that is, and this
// host's refusals of those.
func (s *Shard) isIdle(c *probe.Conversation, ev *probe.Event) bool {
	out := &s.output
	return c.Done() && len(out.Segments()) == 0 || out.Note == probe.NoteResetAgain ||
		ev.Kind == probe.SendFailed && c.Insists() && len(out.Observations()) == 0 || out.Note.Noise(ev) || out.Note == probe.NoteResetSent && len(out.Observations()) == 0
}

// tell hands over an observation that no conversation made.
func (s *Shard) tell(e *entry, o probe.Observation) {
	s.told[0] = o
	e.sink.ObserveAll(s.told[:])
}

// count keeps account of a conversation that has opened or is open no more.
func (s *Shard) count(open bool) {
	n := -1
	if open {
		n = 1
	}
	s.table.open += n
	s.Stats.Conversations.Add(int64(n))
}
