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

// read looks at the clocks.
func (s *Shard) read() {
	now, wall := s.net.Clocks()
	s.now = now
	if by := s.clock.read(now, wall); by != 0 {
		s.cfg.Observer.ClockStep(by)
	}
}

// receive handles the frames that have arrived. The clocks are read after each
// batch is taken and before it is handled: so now lies after every stamp, and
// a step of the clock is known before a stamp from around it is believed. It
// reports whether it has handled them all.
func (s *Shard) receive() (drained bool) {
	s.read()
	s.busy = false
	began := s.now
	for range maxBatches {
		s.nFrames = 0
		n := s.net.Receive(batch, s.keep)
		s.read()
		s.noticeDrops()
		s.busy = s.busy || s.nFrames > 0
		for i := range s.nFrames {
			s.handle(&s.frames[i])
		}
		if n < batch {
			s.caughtUp = began
			s.noticeUnsent()
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
	s.drops = drops
	s.Stats.TapDrops.Store(drops)
	if s.table.unsure == 0 {
		return
	}
	for i := range s.table.slots {
		if sl := &s.table.slots[i]; sl.target != nil && !sl.conv.Settled() {
			s.step(int32(i), &probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardTapDrop})
		}
	}
}

// keepFrame parses a frame while its bytes are valid.
func (s *Shard) keepFrame(f *Frame) {
	k := &s.frames[s.nFrames]
	if wire.Parse(f.Data, &k.packet) != nil {
		return
	}
	k.wall, k.ifindex, k.stamped, k.outgoing = f.Wall, f.Ifindex, f.Stamped, f.Outgoing
	k.intact = f.Outgoing || f.ChecksumOK || k.packet.Checksum != wire.ChecksumBad
	k.packet.Payload = nil
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
	stamp := s.clock.stamp(f, s.caughtUp)
	switch {
	case p.Kind == wire.KindTCP && f.outgoing:
		if i, ok := s.find(p.Src, p.SrcPort, p.Dst, p.DstPort); ok {
			if !again {
				s.Stats.SegmentsSent.Add(1)
			}
			if p.Segment.Flags.Has(probe.SYN) {
				s.table.slots[i].target.trouble = ""
				s.passUnsent(&s.table.slots[i])
			}
			s.countStamp(f)
			s.step(i, &probe.Event{Kind: probe.SegmentSent, Stamp: stamp, Segment: p.Segment})
		}
	case p.Kind == wire.KindTCP && s.ours(p.DstPort):
		s.Stats.SegmentsReceived.Add(1)
		i, ok := s.find(p.Dst, p.DstPort, p.Src, p.SrcPort)
		switch {
		case !ok:
			s.stray(p)
		case !f.intact:
			s.reject(s.table.slots[i].target, probe.RejectBadChecksum)
		default:
			s.countStamp(f)
			s.step(i, &probe.Event{Kind: probe.SegmentArrives, Stamp: stamp, Segment: p.Segment})
		}
	case p.Kind == wire.KindICMPError && !f.outgoing && s.ours(p.Quote.SrcPort):
		s.Stats.SegmentsReceived.Add(1)
		i, ok := s.find(p.Quote.Src, p.Quote.SrcPort, p.Quote.Dst, p.Quote.DstPort)
		switch {
		case !ok:
		case !f.intact:
			s.reject(s.table.slots[i].target, probe.RejectBadChecksum)
		default:
			s.countStamp(f)
			s.step(i, &probe.Event{Kind: probe.ICMPArrives, Stamp: stamp, ICMP: p.ICMP})
		}
	}
}

// countStamp keeps account of the frames whose stamp is the tap's own reading of the
// clock.
func (s *Shard) countStamp(f *frame) {
	if !f.stamped {
		s.Stats.StampFallbacks.Add(1)
	}
}

// ours reports whether a port is one of the shard's.
func (s *Shard) ours(port uint16) bool { return s.cfg.Reserved.has(port) || s.cfg.Guarded.has(port) }

// find looks a conversation up by its whole four-tuple.
func (s *Shard) find(local addr, localPort uint16, remote addr, remotePort uint16) (int32, bool) {
	i, ok := s.table.byKey[keyOf(remote, remotePort, localPort)]
	if !ok || s.table.slots[i].tuple.Local.Addr() != local.WithZone("") {
		return 0, false
	}
	return i, true
}

// stray books a segment that no conversation expects with the target whose
// address it claims to come from. Anybody else's is just not ours, and what
// this host only forwards is nobody's.
func (s *Shard) stray(p *wire.Packet) {
	peer := s.peers.byRemote[addrPortFrom(p.Src, p.SrcPort)]
	if peer == nil {
		return
	}
	w := peer.way
	if e := peer.target; e != nil {
		w = way{e.route.source, e.route.ifindex, e.TTL, e.TOS}
	}
	if p.Dst != w.source {
		return
	}
	if peer.target != nil {
		s.reject(peer.target, probe.RejectUnexpected)
	}
	if s.cfg.Guarded.has(p.DstPort) {
		s.refuse(peer, w, p)
	}
}

// refuse answers a segment on a guarded port that no conversation expects, as
// our kernel would: "If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>" (RFC 9293
// §3.10.7.1). A peer that our last RST did not reach is closed by that. What the
// limits leave no room for is not answered: it comes again.
func (s *Shard) refuse(pr *peer, w way, p *wire.Packet) {
	seg := &p.Segment
	if seg.Flags.Has(probe.RST) || !seg.Flags.Has(probe.ACK) ||
		s.window.room(s.now, 1, s.limits.Global) > s.now || pr.address.window.room(s.now, 1, s.limits.PerAddress) > s.now {
		return
	}
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
	for {
		i, ok := s.table.expired(s.caughtUp)
		if !ok {
			return
		}
		if kind, _ := s.table.slots[i].conv.Timer(); kind == probe.Reopen {
			s.step(i, s.syn(i, kind))
		} else {
			s.step(i, &probe.Event{Kind: kind})
		}
	}
}

// step advances a conversation and does what it asks.
func (s *Shard) step(i int32, ev *probe.Event) {
	sl := &s.table.slots[i]
	wasOpen, wasSettled := sl.open(), sl.conv.Settled()
	out := &s.output
	sl.conv, *out = probe.Step(sl.conv, s.now, *ev)
	if sl.transcript != nil {
		sl.transcript.Add(s.now, ev, &sl.conv, out)
	}
	for _, seg := range out.Segments() {
		s.queue(i, &seg)
	}
	target := sl.target
	observations := out.Observations()
	for j := range observations {
		observations[j].Port = sl.tuple.Local.Port()
		target.Sink.Observe(&observations[j])
	}
	if sl.conv.Settled() && !wasSettled {
		target.prompt = sl.conv.Prompts()
		s.table.unsure--
	}
	if out.Note == probe.NoteResetOwn && sl.conv.ResetGrace > 0 && !target.resetsUnseen {
		target.resetsUnseen = true
		s.cfg.Observer.Trouble(target.Target, errNoReset)
	}
	s.noteSent(sl)
	// A late SYN-ACK opens a conversation again, until it is reset.
	if isOpen := sl.open(); isOpen != wasOpen {
		s.count(isOpen)
	}
	if sl.conv.Rests() {
		sl.handOver()
	}
	if sl.conv.Done() {
		s.table.release(i)
	} else {
		s.table.arm(i)
	}
}

// tell hands over an observation that no conversation made.
func (s *Shard) tell(e *entry, o probe.Observation) {
	s.told = o
	e.Sink.Observe(&s.told)
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
