package engine

import (
	"encoding/binary"
	"net/netip"

	"github.com/probed/probed/probe"
)

// A key finds a conversation by what a segment of it must carry: the peer's
// address and both ports. (Our own address is compared after.) It is all
// integers, so that it hashes as plain memory.
type key [3]uint64

func keyOf(remote netip.Addr, remotePort, localPort uint16) key {
	a := remote.As16()
	return key{
		binary.NativeEndian.Uint64(a[:8]),
		binary.NativeEndian.Uint64(a[8:]),
		uint64(remotePort)<<16 | uint64(localPort),
	}
}

// A slot holds one conversation.
type slot struct {
	conv       probe.Conversation
	tuple      probe.FourTuple
	key        key
	target     *entry
	ifindex    int
	hop        uint64
	transcript *probe.Transcript
	handed     bool          // the transcript, once settled
	unsent     bool          // its SYN lies in this host
	passed     uint32        // the address's when that was noticed
	packets    int           // sent by us
	generation uint32        // rises whenever the slot is freed: timers of before are stale
	queued     probe.Instant // the earliest timer in the queue; 0: none
}

// open reports whether the conversation still waits for its verdict or for the
// peer to be left with nothing open.
func (sl *slot) open() bool { return !sl.conv.Settled() || !sl.conv.Closed() }

// handOver gives the transcript to whoever waits for the end, once.
func (sl *slot) handOver() {
	if sl.transcript != nil && !sl.handed {
		sl.handed = true
		sl.target.Recorder.Settled(sl.transcript)
	}
}

// A ref names a slot as it was when the ref was made.
type ref struct {
	slot       int32
	generation uint32
}

// A table holds a shard's conversations: slots that are used again, found by
// key.
type table struct {
	slots   []slot
	free    []int32
	byKey   map[key]int32
	timers  heap[ref]
	open    int // conversations that are open()
	unsure  int // conversations that are not settled
	guarded int // conversations on guarded ports, lingering ones included
	spare   []*probe.Transcript
}

// claim takes a slot for a new conversation.
func (t *table) claim(k key) int32 {
	var i int32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = int32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	t.slots[i].key = k
	t.byKey[k] = i
	return i
}

// release frees a slot and hands its transcript over.
func (t *table) release(i int32) {
	sl := &t.slots[i]
	if sl.transcript != nil {
		sl.handOver()
		sl.target.Recorder.Record(sl.transcript)
		t.spare = append(t.spare, sl.transcript)
		if n := len(t.spare); n > len(t.byKey)+apiece { // there were more at a time than there are
			clear(t.spare[n-2:])
			t.spare = t.spare[:n-2]
		}
	}
	if sl.target.guarded() {
		t.guarded--
	}
	delete(t.byKey, sl.key)
	*sl = slot{generation: sl.generation + 1}
	t.free = append(t.free, i)
}

// newTranscript returns an empty transcript.
func (t *table) newTranscript(tuple probe.FourTuple, k probe.Kind) *probe.Transcript {
	var tr *probe.Transcript
	if n := len(t.spare); n > 0 {
		tr, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		tr = new(probe.Transcript)
	}
	tr.Reset(tuple, k)
	return tr
}

// arm sees to it that a timer goes off no later than the conversation's
// deadline. A deadline that moves out costs nothing until the old one comes.
func (t *table) arm(i int32) {
	sl := &t.slots[i]
	if kind, at := sl.conv.Timer(); kind != 0 && (sl.queued == 0 || at < sl.queued) {
		sl.queued = at
		t.timers.push(at, ref{i, sl.generation})
	}
}

// expired returns the next slot whose conversation's timer has gone off, or
// false.
func (t *table) expired(now probe.Instant) (int32, bool) {
	for t.timers.due(now) {
		top := t.timers.pop()
		i := top.value.slot
		sl := &t.slots[i]
		if top.value.generation != sl.generation || top.at != sl.queued {
			continue
		}
		sl.queued = 0
		if kind, at := sl.conv.Timer(); kind != 0 && at <= now {
			return i, true
		}
		t.arm(i)
	}
	return 0, false
}
