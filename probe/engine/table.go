package engine

import (
	"net/netip"
	"slices"

	"github.com/probed/probed/probe"
)

// A slot holds one conversation: two cache lines, without a pointer, because at
// 100,000 probes a second half a million of them linger.
type slot struct {
	small      probe.Compact // the conversation, if whole is none
	key        key
	local      int32 // our address: an index of table.locals
	target     int32 // an index of Shard.entries; free if the slot is
	whole      int32 // the conversation, if it needs more: an index of table.wholes, or none
	transcript int32 // an index of table.transcripts, or none
	ifindex    int32
	passed     uint32   // the address's when unsent was noticed
	number     uint64   // the transcript's
	packets    uint16   // sent by us
	reserved   uint8    // packets that it may send yet, and that there is room for
	unsent     bool     // its SYN lies in this host
	handed     bool     // the transcript, once settled
	direct     bool     // its SYN went to a next hop
	held       uint8    // until when the peer may hold the connection before, or this one: by seconds; 0: it does not
	rsts       rsts     // of a half_open
	via        [2]int32 // the interfaces that its SYN was seen leaving by first and last, 0 until then
}

// rsts are a half_open's: in the lower four bits ours that were queued and not seen leaving yet, in the
// upper four our kernel's that have left and are booked, with its SYN or again.
type rsts uint8

const (
	ourRST     = rsts(1)
	ourRSTs    = rsts(0x0f)
	kernelsRST = rsts(0x10)
)

const (
	none = int32(-1)
	free = int32(-1)
)

// An alarm is when a slot's conversation wants to hear of the time. It lies beside the
// slots, so that a timer which is there no more is told from one that is by 24 octets.
type alarm struct {
	queued     probe.Instant // the earliest of its timers that is in a wheel; 0: none
	due        probe.Instant // when one is to go off; 0: never
	generation uint32        // rises whenever the slot is freed
	kind       probe.EventKind
	lapse      bool // what is queued is a lapse, and may come late
}

// A ref names a slot as it was when the ref was made.
type ref struct {
	slot       int32
	generation uint32
}

// A whole is a conversation that needs more than a slot has.
type whole struct {
	probe.Conversation
	slot   int32 // whose it is, or none
	wanted int32 // packets of it that wait for room
	fresh  bool  // nobody of this life has used the four-tuple before
	before bool  // the peer has said that it holds a connection of a life before on it
	reset  bool  // a RST was seen leaving
	// This host has rejected the SYN-ACK by an ICMP error, for which the peer may have given up.
	rejected bool
	tries    uint32 // what address.narrow was, if it tries larger segments for the others; else 0
}

// slotsApiece is how many slots are made at a time. Those that are there never move.
const slotsApiece = 256

// A piece names slots and alarms by slices: to look one up by a pointer to an array, Go
// first reads where the array begins, which is a line of memory more.
type piece struct {
	slots  []slot
	alarms []alarm
}

// A table holds a shard's conversations: slots that are used again, found by
// key.
type table struct {
	pieces  []piece
	spare   []int32 // slots that are free
	index   index
	timers  wheel // that the loop wakes up for
	lapses  lapses
	pending []int32 // slots whose timers are not where they belong yet
	open    int     // conversations that are open
	unsure  int     // conversations that are not settled
	guarded int     // conversations on guarded ports, lingering ones included

	locals      []netip.Addr
	wholes      pool[whole]
	transcripts pool[probe.Transcript]
}

// slot and alarm find what belongs to a number.
func (t *table) slot(i int32) *slot {
	return &t.pieces[uint32(i)/slotsApiece].slots[uint32(i)%slotsApiece]
}
func (t *table) alarm(i int32) *alarm {
	return &t.pieces[uint32(i)/slotsApiece].alarms[uint32(i)%slotsApiece]
}

// is reports whether a ref's slot has been freed since.
func (t *table) is(r ref) bool { return r.slot >= 0 && t.alarm(r.slot).generation == r.generation }

// ref names a slot as it is now.
func (t *table) ref(i int32) ref { return ref{i, t.alarm(i).generation} }

// len is how many slots there are.
func (t *table) len() int32 { return int32(len(t.pieces)) * slotsApiece }

// claim takes a slot for a new conversation.
func (t *table) claim(k key) int32 {
	if len(t.spare) == 0 {
		t.grow()
	}
	last := len(t.spare) - 1
	i := t.spare[last]
	t.spare = t.spare[:last]
	t.slot(i).key = k
	t.index.add(k.hash(), i)
	return i
}

// grow makes more slots.
func (t *table) grow() {
	both := new(struct {
		slots  [slotsApiece]slot
		alarms [slotsApiece]alarm
	})
	p := piece{both.slots[:], both.alarms[:]}
	first := t.len()
	t.pieces = append(t.pieces, p)
	for i := int32(slotsApiece - 1); i >= 0; i-- {
		p.slots[i].target = free
		t.spare = append(t.spare, first+i)
	}
}

// drop frees a slot.
func (t *table) drop(i int32) {
	sl, a := t.slot(i), t.alarm(i)
	t.index.remove(sl.key.hash(), i)
	if sl.whole != none {
		t.wholes.at(sl.whole).slot = none
		t.wholes.put(sl.whole)
	}
	if sl.transcript != none {
		t.transcripts.put(sl.transcript)
	}
	sl.target = free
	*a = alarm{generation: a.generation + 1}
	t.spare = append(t.spare, i)
}

// find returns the conversation of a key, which has the hash h, or none.
func (t *table) find(k *key, h uint64) int32 {
	for at := t.index.start(h); ; at = t.index.after(at) {
		i, same := t.index.at(at, h)
		if i == none || same && t.slot(i).key == *k {
			return i
		}
	}
}

// conversation returns a slot's conversation: its own, or scratch, into which a small
// one is written out with its parameters.
func (t *table) conversation(sl *slot, p *probe.Params, scratch *probe.Conversation) *probe.Conversation {
	if sl.whole != none {
		return &t.wholes.at(sl.whole).Conversation
	}
	scratch.Restore(p, &sl.small)
	return scratch
}

// isOpen reports whether a conversation still waits for its verdict or for the peer
// to be left with nothing open.
func (t *table) isOpen(sl *slot) bool {
	if sl.whole != none {
		c := &t.wholes.at(sl.whole).Conversation
		return !c.Settled() || !c.Closed()
	}
	return !sl.small.Settled() || !sl.small.Closed()
}

// isParted reports whether an open conversation waits for no more than that a RST leaves.
func (t *table) isParted(sl *slot) bool {
	if sl.whole == none {
		return false
	}
	c := &t.wholes.at(sl.whole).Conversation
	return c.Settled() && c.Parted()
}

// owesACK reports whether a conversation lingers whose last ACK was not seen leaving.
func (t *table) owesACK(sl *slot) bool {
	if sl.whole == none {
		return false
	}
	return t.wholes.at(sl.whole).OwesACK()
}

// insists reports whether a conversation is closed, but has something to send yet.
func (t *table) insists(sl *slot) bool {
	if sl.whole != none {
		return t.wholes.at(sl.whole).Insists()
	}
	return sl.small.Insists()
}

// parts reports whether a connection was reset and is to be once more.
func (t *table) parts(sl *slot) bool {
	return sl.whole != none && t.wholes.at(sl.whole).Parts()
}

// resets is how many RSTs go to reset a peer, and insistsAt when they are to.
func (t *table) resets(sl *slot) int {
	if sl.whole != none {
		return t.wholes.at(sl.whole).Resets()
	}
	return 1
}

func (t *table) insistsAt(sl *slot) probe.Instant {
	if sl.whole != none {
		_, due := t.wholes.at(sl.whole).Timer()
		return due
	}
	return sl.small.Deadline()
}

// isSettled reports whether a conversation has its verdict or discard.
func (t *table) isSettled(sl *slot) bool {
	if sl.whole != none {
		return t.wholes.at(sl.whole).Settled()
	}
	return sl.small.Settled()
}

// hasLeft reports whether a conversation's SYN was seen leaving.
func (t *table) hasLeft(sl *slot) bool {
	if sl.whole != none {
		return t.wholes.at(sl.whole).Left()
	}
	return sl.small.Left()
}

// synSent is the stamp of a conversation's SYN leaving.
func (t *table) synSent(sl *slot) probe.Stamp {
	if sl.whole != none {
		return t.wholes.at(sl.whole).SYNSent()
	}
	return sl.small.SYNSent()
}

// isAnswered reports whether a SYN-ACK has come to a conversation.
func (t *table) isAnswered(sl *slot) bool {
	if sl.whole != none {
		return t.wholes.at(sl.whole).Answered()
	}
	return sl.small.Answered()
}

// intern returns the number of an address of ours. A host has few.
func (t *table) intern(a netip.Addr) int32 {
	for i, l := range t.locals {
		if l == a {
			return int32(i)
		}
	}
	t.locals = append(t.locals, a)
	return int32(len(t.locals) - 1)
}

// knows reports whether an address is one that probes have left from: no other's, whose
// packets this host forwards.
func (t *table) knows(a netip.Addr) bool { return slices.Contains(t.locals, a) }

// arm sees to it that a timer goes off no later than the conversation's
// deadline, once settle is called: a SYN-ACK sets a timer that the RST behind it, read
// together with it, takes away. A deadline that moves out costs nothing until the old
// one comes.
func (t *table) arm(i int32, kind probe.EventKind, at probe.Instant) {
	a := t.alarm(i)
	if a.due, a.kind = at, kind; kind == 0 {
		a.due = 0
	} else if a.toQueue() {
		t.pending = append(t.pending, i)
	}
}

// toQueue reports whether what is queued would let a timer go off late.
func (a *alarm) toQueue() bool {
	return a.due != 0 && (a.queued == 0 || a.due < a.queued || a.lapse && a.kind != probe.TimeWaitTimeout)
}

// settle puts the timers that were armed where they belong.
func (t *table) settle(now probe.Instant) {
	for _, i := range t.pending {
		if a := t.alarm(i); a.toQueue() {
			t.enqueue(now, i, a)
		}
	}
	t.pending = t.pending[:0]
}

func (t *table) enqueue(now probe.Instant, i int32, a *alarm) {
	a.queued, a.lapse = a.due, a.kind == probe.TimeWaitTimeout
	if a.lapse {
		t.lapses.push(now, a.due, i)
	} else {
		t.timers.push(a.due, i)
	}
}

// first returns the earliest timer that is one still, if it goes off by end. Those
// before it that are no more it removes, and those that have moved out it puts where
// they belong.
func (t *table) first(now, end probe.Instant) (timed[int32], bool) {
	for {
		if len(t.timers.near) == 0 {
			t.warmTimers(end)
		}
		x, ok := t.timers.first(end)
		if !ok {
			return x, false
		}
		a := t.alarm(x.value)
		if a.queued == x.at && a.due == x.at && a.kind != probe.TimeWaitTimeout {
			return x, true
		}
		t.timers.pop()
		if a.queued == x.at {
			if a.queued = 0; a.due != 0 {
				t.enqueue(now, x.value, a)
			}
		}
	}
}

// expired returns the next slot whose conversation's timer has gone off by now, or
// none.
func (t *table) expired(now probe.Instant) int32 {
	x, ok := t.first(now, now)
	if !ok {
		return none
	}
	t.timers.pop()
	t.alarm(x.value).queued = 0
	return x.value
}

// lapsed removes the last lapse of a group, and returns its slot if the timer is one
// still, else none.
func (t *table) lapsed(now probe.Instant) int32 {
	x := t.lapses.pop()
	a := t.alarm(x.value)
	if a.queued != x.at {
		return none
	}
	a.queued = 0
	switch {
	case a.due == 0:
		return none
	case a.due > now:
		t.enqueue(now, x.value, a)
		return none
	}
	return x.value
}
