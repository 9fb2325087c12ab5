package engine

import "github.com/probed/probed/probe"

// A command is what others want of the loop. It is carried out between two
// turns.
type command struct {
	add, remove []*Target
	limits      *Limits
}

// Update adds and removes targets. A target that is added under the ID and
// interval of one that is removed takes over its place in the schedule, and with the
// ID its conversations. The connections of one that is removed for good are reset. It
// may be called from any goroutine, before Run too, and returns at once.
func (s *Shard) Update(add, remove []*Target) { s.command(command{add: add, remove: remove}) }

// SetLimits changes the rate limits; so as Update.
func (s *Shard) SetLimits(l Limits) { s.command(command{limits: &l}) }

func (s *Shard) command(c command) {
	s.mu.Lock()
	s.inbox = append(s.inbox, c)
	s.mu.Unlock()
	s.net.Wake()
}

// obey carries out the commands that have come.
func (s *Shard) obey() {
	s.mu.Lock()
	inbox := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	for _, c := range inbox {
		if c.limits != nil {
			s.limits = *c.limits
		}
		s.update(c.add, c.remove)
	}
}

func (s *Shard) update(add, remove []*Target) {
	left := make(map[uint64]*entry, len(remove))
	for _, t := range remove {
		if e := s.targets[t]; e != nil {
			s.forget(e)
			left[t.ID] = e
		}
	}
	for _, t := range add {
		if s.targets[t] != nil {
			continue
		}
		e := &entry{Target: t, send: []byte(t.Send)}
		s.targets[t] = e
		s.demand += t.demands()
		if t.Remote.IsValid() {
			e.peer = s.peers.use(addrPortFrom(t.Remote.Addr(), t.Remote.Port()), s.secret)
			e.peer.address.demand += t.demands()
		}
		if old := left[t.ID]; old != nil {
			delete(left, t.ID)
			e.sent, e.prompt = old.sent, old.prompt && old.Remote == t.Remote
			if old.Interval == t.Interval {
				s.reschedule(e, old.slot)
				if old.throttled && e.peer != nil {
					e.throttle(true)
				}
				continue
			}
		}
		slot := s.now
		if t.Count == 0 {
			slot = firstSlot(t.ID, t.Interval, s.now)
		}
		s.reschedule(e, slot)
	}
	s.abandon(left)
	s.Stats.Targets.Store(int64(len(s.targets)))
	s.tidySchedule()
}

// abandon ends the connections of targets, by ID, that are there no more: one may
// wait for its peer for half an hour. A half_open is over within its timeout.
func (s *Shard) abandon(gone map[uint64]*entry) {
	if len(gone) == 0 {
		return
	}
	for i := range s.table.slots {
		sl := &s.table.slots[i]
		if sl.target == nil || !sl.target.guarded() || !sl.open() {
			continue
		}
		// A target with a count lends its ID: only its own conversations end.
		if e := gone[sl.target.ID]; e != nil && (e.Count == 0 || e == sl.target) {
			s.step(int32(i), &probe.Event{Kind: probe.Abort, Discard: probe.DiscardReload})
		}
	}
}

// forget takes a target out. Its place in the schedule is found only when it
// comes up.
func (s *Shard) forget(e *entry) {
	e.gone = true
	if !e.spent() {
		s.goners++
	}
	delete(s.targets, e.Target)
	s.demand -= e.demands()
	if e.peer != nil {
		e.peer.address.demand -= e.demands()
		if e.throttled {
			e.peer.address.waiting--
		}
		s.peers.unuse(e.peer, s.now)
	}
}

// tidySchedule drops the targets that are gone once they outnumber the rest,
// which may lie far ahead.
func (s *Shard) tidySchedule() {
	if s.goners <= len(s.targets) {
		return
	}
	old := s.schedule
	s.schedule = make(heap[*entry], 0, len(s.targets))
	for _, t := range old {
		if !t.value.gone {
			s.schedule.push(t.at, t.value)
		}
	}
	s.goners = 0
}
