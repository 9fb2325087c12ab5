package engine

import (
	"math"
	"time"

	"github.com/probed/probed/probe"
)

// apiece is how many targets are changed in one turn at most: a list of ten thousand
// would else hold up the probes that are due, for 20 ms.
const apiece = 64

// A command is what others want of the loop. It is carried out between turns, piece
// by piece.
type command struct {
	limits  *Limits
	changes []change
	gone    map[uint64]*entry // those that were removed for good and may have connections, by ID
}

// A change removes a target, adds one, or has one take over another's place.
type change struct {
	add, remove *Target
	moves       bool // the target that is removed goes to another shard
}

// Update adds and removes targets. A target that is added under the ID and
// interval of one that is removed takes over its place in the schedule, and with the
// ID its conversations. The connections of one that is removed for good are reset. It
// may be called from any goroutine, before Run too, and returns at once.
func (s *Shard) Update(add, remove []*Target) { s.command(command{changes: changes(add, remove)}) }

// changes pairs those that take over from each other.
func changes(add, remove []*Target) []change {
	all := make([]change, 0, len(add)+len(remove))
	left := make(map[uint64]*Target, len(remove))
	for _, t := range remove {
		left[t.ID] = t
	}
	heirs := make(map[*Target]bool, len(add))
	for _, t := range add {
		old := left[t.ID]
		if old != nil {
			delete(left, t.ID)
			heirs[old] = true
		}
		all = append(all, change{add: t, remove: old})
	}
	for _, t := range remove {
		if !heirs[t] {
			all = append(all, change{remove: t})
		}
	}
	return all
}

// SetLimits changes the limits; so as Update, but ahead of the changes that wait to be
// carried out. What is open with an address that new Rules forbid is reset.
func (s *Shard) SetLimits(l Limits) { s.command(command{limits: &l}) }

func (s *Shard) command(c command) {
	s.mu.Lock()
	s.inbox = append(s.inbox, c)
	s.mu.Unlock()
	s.net.Wake()
}

// obey carries out what of the commands there is room for in a turn.
func (s *Shard) obey() {
	s.claim()
	s.mu.Lock()
	from := len(s.orders)
	s.orders, s.inbox = append(s.orders, s.inbox...), nil
	s.mu.Unlock()
	for i := range s.orders[from:] {
		if l := s.orders[from+i].limits; l != nil {
			s.limit(l)
		}
	}
	for room := apiece; room > 0 && len(s.orders) > 0; {
		c := &s.orders[0]
		n := min(room, len(c.changes))
		for _, x := range c.changes[:n] {
			s.change(c, x)
		}
		c.changes = c.changes[n:]
		room -= n
		if len(c.changes) == 0 {
			s.abandon(c.gone)
			s.orders[0] = command{}
			if s.orders = s.orders[1:]; len(s.orders) == 0 {
				s.orders = nil
			}
		}
	}
}

// limit puts limits in force.
func (s *Shard) limit(l *Limits) {
	if s.limitAddresses(l.PerAddress); s.budget == nil { // else it is claimed
		s.limits.Global = l.Global
	}
	s.rule(l.Rules)
}

func (s *Shard) change(c *command, x change) {
	var old *entry
	if x.remove != nil {
		if old = s.targets[x.remove]; old != nil {
			s.forget(old)
		}
	}
	switch {
	case x.add != nil:
		s.add(x.add, old)
	case old != nil:
		old.leave()
		if old.guarded && !x.moves {
			if c.gone == nil {
				c.gone = make(map[uint64]*entry)
			}
			c.gone[old.ID] = old
		}
	}
	s.Stats.Targets.Store(int64(len(s.targets)))
	s.tidySchedule()
}

// add takes a target in, in the place of another one if that is not nil.
func (s *Shard) add(t *Target, old *entry) {
	if s.targets[t] != nil {
		return
	}
	e := s.enter(t)
	s.targets[t] = e
	s.demand += t.demands()
	if t.Count == 0 {
		s.sizes.add(e.manner.packets)
		s.largest = max(s.largest, e.manner.packets)
	}
	if t.Remote.IsValid() {
		e.peer = s.peers.use(addrPortFrom(t.Remote.Addr(), t.Remote.Port()), s.secret, int64(s.now)/int64(max(t.Interval, time.Millisecond)))
		if e.peer.taken == 0 && s.now.Sub(s.born) >= issSpan {
			e.peer.taken = math.MaxUint16 // a life before had nothing with it that is left
		}
		if e.peer.target == nil {
			e.peer.target = e // to answer what comes of a life before
		}
		e.peer.address.demand += t.demands()
	}
	if old != nil {
		e.sent, e.before, e.prompt = old.sent, old.before, old.prompt && old.Remote == t.Remote
		if old.Remote != t.Remote {
			e.before = e.sent
		}
		if old.Interval == t.Interval {
			s.reschedule(e, old.slot)
			if old.throttled && e.peer != nil {
				e.throttle(true)
			}
			return
		}
	}
	slot := s.now
	if t.Count == 0 {
		slot = firstSlot(t.ID, t.Interval, s.now)
	}
	s.reschedule(e, slot)
}

// leave lets go of a target that is removed for good. Its peer goes on to know how
// strays are answered.
func (e *entry) leave() {
	if e.peer != nil && e.peer.target == e {
		e.peer.target = nil
		e.peer.way = &way{source: e.route.Source, ifindex: e.route.Ifindex, ttl: e.TTL, tos: e.TOS}
	}
}

// abandon ends the connections of targets, by ID, that are there no more: one may
// wait for its peer for half an hour. A half_open is over within its timeout.
func (s *Shard) abandon(gone map[uint64]*entry) {
	if len(gone) == 0 {
		return
	}
	for _, w := range s.table.wholes.all {
		if w == nil || w.slot == none {
			continue
		}
		sl := s.table.slot(w.slot)
		of := s.entries[sl.target]
		if !of.guarded || !s.table.isOpen(sl) {
			continue
		}
		// A target with a count lends its ID: only its own conversations end.
		if e := gone[of.id]; e != nil && (e.Count == 0 || e == of) {
			s.takeAway(w.slot)
		}
	}
}

// takeAway ends a conversation for a reload, but for one whose RSTs wait for room.
func (s *Shard) takeAway(i int32) {
	if !s.noRoomToPart(s.table.slot(i)) {
		s.step(i, &probe.Event{Kind: probe.Abort, Discard: probe.DiscardReload})
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
	if e.Count == 0 {
		s.sizes.remove(e.manner.packets)
		if s.largest == e.manner.packets {
			s.largest = s.sizes.largest()
		}
	}
	if e.peer != nil {
		e.peer.address.demand -= e.demands()
		if e.throttled {
			e.peer.address.waiting--
		}
		s.peers.unuse(e.peer, s.now)
	}
	s.letGo(e)
}

// tidySchedule drops the targets that are gone once they are many: they may lie far
// ahead, with all that was kept of them.
func (s *Shard) tidySchedule() {
	if s.goners <= len(s.targets)/4+apiece {
		return
	}
	s.schedule.filter(func(i int32) bool {
		e := s.entries[i]
		if e.gone {
			e.scheduled = false
			s.letGo(e)
		}
		return !e.gone
	})
	s.goners = 0
}
