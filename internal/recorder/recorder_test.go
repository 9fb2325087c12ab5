package recorder_test

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/probe"
)

const interval = probe.Instant(time.Second)

// A held is a conversation and its transcript, as an engine holds them.
type held struct {
	conv probe.Conversation
	tr   probe.Transcript
	now  probe.Instant
}

var tuple = probe.FourTuple{
	Local:  netip.MustParseAddrPort("198.18.0.1:61000"),
	Remote: netip.MustParseAddrPort("198.18.0.2:443"),
}

func open(number uint64) *held {
	h := &held{
		conv: probe.New(probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 4 * time.Second}),
		now:  probe.Instant(number) * interval,
	}
	h.tr.Reset(tuple, probe.HalfOpen)
	h.tr.Number, h.tr.Offset = number, 1e18
	syn := probe.Segment{Flags: probe.SYN, Seq: 100}
	h.step(probe.Event{Kind: probe.Open, Segment: syn})
	h.step(probe.Event{Kind: probe.SegmentSent, Segment: syn, Stamp: h.stamp()})
	return h
}

func (h *held) stamp() probe.Stamp { return probe.Stamp{Wall: h.tr.Offset + int64(h.now), Clock: 1} }

func (h *held) step(ev probe.Event) {
	var out probe.Output
	h.conv, out = probe.Step(h.conv, h.now, ev)
	h.tr.Add(h.now, &ev, &h.conv, &out)
}

func (h *held) after(d time.Duration) *held {
	h.now = h.now.Add(d)
	return h
}

// settled makes the transcript one of what comes after it was handed over.
func (h *held) settled() {
	number, offset := h.tr.Number, h.tr.Offset
	h.tr.Reset(tuple, probe.HalfOpen)
	h.tr.Number, h.tr.Offset = number, offset
}

// synAck has the peer answer.
func (h *held) synAck(mss uint16) *held {
	h.step(probe.Event{Kind: probe.SegmentArrives, Stamp: h.stamp(), Segment: probe.Segment{
		Flags: probe.SYN | probe.ACK, Seq: 7, Ack: 101, TTL: 64,
		Options: probe.Options{Set: probe.OptMSS, MSS: mss},
	}})
	return h
}

// resetSeen has our kernel reset it.
func (h *held) resetSeen() *held {
	h.step(probe.Event{Kind: probe.SegmentSent, Stamp: h.stamp(), Segment: probe.Segment{Flags: probe.RST, Seq: 101}})
	return h
}

func (h *held) timeout() *held {
	h.step(probe.Event{Kind: probe.UserTimeout})
	return h
}

func answered(number uint64, mss uint16) *held {
	return open(number).after(10 * time.Millisecond).synAck(mss).resetSeen()
}

func silent(number uint64) *held { return open(number).after(900 * time.Millisecond).timeout() }

// The last conversations are kept, and those that failed longer.
func TestKeepsTheLast(t *testing.T) {
	r := new(recorder.Recorder)
	for n := range uint64(100) {
		h := answered(n, 1460)
		if n%10 == 3 {
			h = silent(n)
		}
		r.Settled(&h.tr)
	}
	for _, tt := range []struct {
		what string
		got  []probe.Transcript
		want []uint64
	}{
		{"last", r.Last(), []uint64{99, 98, 97, 96}},
		{"failed", r.Failed(), []uint64{93, 83, 73, 63}},
	} {
		if len(tt.got) != len(tt.want) {
			t.Fatalf("%s: %d transcripts", tt.what, len(tt.got))
		}
		for i := range tt.got {
			if tt.got[i].Number != tt.want[i] {
				t.Errorf("%s: number %d in place %d, want %d", tt.what, tt.got[i].Number, i, tt.want[i])
			}
		}
	}
	if reason, _, ok := r.Failed()[0].Settled(); !ok || reason != probe.Timeout {
		t.Errorf("a failed one says %v", reason)
	}
	if f, ok := r.LastFailure(); !ok || f.Reason != probe.Timeout || f.At != 1e18+93*int64(interval) || f.Port != 61000 {
		t.Errorf("last failure %+v", f)
	}
}

// Samples say what became of each probe, in order, and no more than MaxSamples.
func TestSamples(t *testing.T) {
	r := new(recorder.Recorder)
	const n = recorder.MaxSamples + 10
	for i := range uint64(n) {
		h := answered(i, 1460)
		r.Settled(&h.tr)
		h.settled()
		r.Record(&h.tr)
	}
	unresolved := held{now: 7999}
	unresolved.tr.Reset(probe.FourTuple{}, probe.HalfOpen)
	unresolved.tr.NotOpened(unresolved.now, &probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
	r.Settled(&unresolved.tr)
	got := r.AppendSamples(nil)
	if len(got) != recorder.MaxSamples {
		t.Fatalf("%d samples", len(got))
	}
	if first := got[0]; first != (recorder.Sample{At: 1e18 + 11*int64(interval), RTT: 0.01, Port: 61000}) {
		t.Errorf("the first is %+v", first)
	}
	if last := got[len(got)-1]; last != (recorder.Sample{At: 7000, Reason: probe.NotResolved}) {
		t.Errorf("the last is %+v", last)
	}
}

// What comes after the verdict is added to the transcripts that are still kept, and
// makes no sample.
func TestRecordCompletes(t *testing.T) {
	r := new(recorder.Recorder)
	h := silent(1)
	r.Settled(&h.tr)
	before := len(h.tr.Records())
	h.settled()
	h.after(time.Second).synAck(1460)
	r.Record(&h.tr)
	gone := silent(0)
	r.Record(&gone.tr) // was never kept
	for _, kept := range [][]probe.Transcript{r.Last(), r.Failed()} {
		if len(kept) != 1 || len(kept[0].Records()) != before+1 || kept[0].Records()[before].Note != probe.NoteSYNACKLate {
			t.Errorf("kept %d, the last note %v", len(kept), kept[0].Records()[len(kept[0].Records())-1].Note)
		}
	}
	if n := len(r.AppendSamples(nil)); n != 1 {
		t.Errorf("%d samples", n)
	}
}

// Copies stay as they are while recording goes on in the memory of the oldest.
func TestCopiesAreTheReaders(t *testing.T) {
	r := new(recorder.Recorder)
	first := silent(0)
	r.Settled(&first.tr)
	kept := r.Failed()
	for i := range uint64(10) {
		h := silent(i + 1)
		r.Settled(&h.tr)
	}
	if kept[0].Number != 0 || len(kept[0].Records()) != 3 || kept[0].Records()[0].At != 0 {
		t.Errorf("a copy has become number %d, of %v", kept[0].Number, kept[0].Records()[0].At)
	}
}

// A change of the peer's fingerprint is remembered with both sides of it.
func TestChanges(t *testing.T) {
	r := new(recorder.Recorder)
	if _, _, ok := r.Peer(); ok {
		t.Error("a peer before any was seen")
	}
	for i, mss := range []uint16{1460, 1460, 1400, 1400, 1460} {
		h := answered(uint64(i), mss)
		r.Settled(&h.tr)
	}
	f, changes, ok := r.Peer()
	if !ok || f.MSS != 1460 || len(changes) != 2 {
		t.Fatalf("%+v, %+v", f, changes)
	}
	if c := changes[0]; c.Before.MSS != 1400 || c.After.MSS != 1460 || c.At != 1e18+4*int64(interval) {
		t.Errorf("the last change is %+v", c)
	}
}

// Recording allocates nothing once the rings are full.
func TestNoAllocation(t *testing.T) {
	r := new(recorder.Recorder)
	h, late := answered(1, 1460), silent(1)
	late.settled()
	late.after(time.Second).synAck(1460)
	record := func() {
		h.tr.Number++
		late.tr.Number = h.tr.Number
		r.Settled(&h.tr)
		r.Record(&late.tr)
	}
	for range recorder.MaxSamples {
		record()
	}
	if n := testing.AllocsPerRun(1000, record); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// With as many steps as a closing takes it does not either.
func TestNoAllocationOfClosings(t *testing.T) {
	r := new(recorder.Recorder)
	h := long(25)
	record := func() {
		h.tr.Number++
		r.Settled(&h.tr)
	}
	for range recorder.MaxSamples {
		record()
	}
	if n := testing.AllocsPerRun(1000, record); n != 0 {
		t.Errorf("%v allocations for %d steps", n, len(h.tr.Records()))
	}
}

// long is a conversation of so many steps.
func long(steps int) *held {
	h := open(1)
	for len(h.tr.Records()) < steps {
		h.after(time.Millisecond).synAck(1460)
	}
	return h.after(time.Second).timeout()
}

// What a flood has taken is given back.
func TestFloodIsForgotten(t *testing.T) {
	const n = 500
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	all := make([]recorder.Recorder, n)
	settle := func(h *held, times int) {
		for range times {
			h.tr.Number++
			for i := range all {
				all[i].Settled(&h.tr)
			}
		}
	}
	before := heap()
	settle(answered(1, 1460), 20)
	usual := heap() - before
	settle(long(64), 8)
	settle(answered(1000, 1460), 20)
	if after := heap() - before; after > 2*usual {
		t.Errorf("%d octets a target, %d before the flood", after/n, usual/n)
	}
	runtime.KeepAlive(all)
}
