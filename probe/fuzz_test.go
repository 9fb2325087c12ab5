package probe_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

// recordLen is how many octets of a fuzzer's input make one event:
//
//	0     kind
//	1     discard reason (low nibble), clock stretch (high nibble)
//	2:4   flags
//	4:8   SEG.SEQ, relative to the sender's initial number; of an ICMP quote, to ISS
//	8:12  SEG.ACK, relative to the other's
//	12:17 ns since the event before
//	17:22 ns from the stamp to the handling, signed
//	22    ICMP type
//	23    ICMP code
//	24    0: now; else: instead of the time above, the timer's deadline
//	25    1: ICMPv6; 2: a narrow path
//	26    TTL
//	27:29 payload length
//	29:31 SEG.WND
//	31    options: MSS 1, window scale 2, SACK permitted 4, timestamps 16
//	32:34 MSS
//	34    window scale
//	35:39 TSval
//	39:43 TSecr
const recordLen = 43

// maxEvents bounds one run.
const maxEvents = 200

var fuzzStart = script.Start{ISS: 1<<32 - 1, IRS: 1<<31 - 1}

// encode writes a script's events as records.
func encode(s *script.Script) []byte {
	var b []byte
	var last probe.Instant
	for i, e := range s.Events(fuzzStart) {
		var r [recordLen]byte
		ev := &e.Event
		r[0] = byte(ev.Kind)
		r[1] = byte(max(ev.Discard, 1)-1) | byte(ev.Stamp.Clock)<<4
		binary.BigEndian.PutUint16(r[2:], uint16(ev.Segment.Flags))
		seq, ack := ev.Segment.Seq.Sub(fuzzStart.ISS), ev.Segment.Ack.Sub(fuzzStart.IRS)
		switch ev.Kind {
		case probe.SegmentArrives:
			seq, ack = ev.Segment.Seq.Sub(fuzzStart.IRS), ev.Segment.Ack.Sub(fuzzStart.ISS)
		case probe.ICMPArrives:
			seq = ev.ICMP.Seq.Sub(fuzzStart.ISS)
		}
		binary.BigEndian.PutUint32(r[4:], uint32(seq))
		binary.BigEndian.PutUint32(r[8:], uint32(ack))
		if i > 0 {
			put40(r[12:17], int64(e.At.Sub(last)))
		}
		last = e.At
		put40(r[17:22], int64(e.At)-(ev.Stamp.Wall-wallAhead))
		r[22], r[23] = ev.ICMP.Type, ev.ICMP.Code
		if ev.ICMP.V6 {
			r[25] = 1
		}
		if ev.Narrow {
			r[25] |= 2
		}
		r[26] = ev.Segment.TTL
		encodeRest(&ev.Segment, r[27:])
		b = append(b, r[:]...)
	}
	return b
}

// encodeRest writes a segment's length, window and options.
func encodeRest(s *probe.Segment, b []byte) {
	binary.BigEndian.PutUint16(b, uint16(s.Len))
	binary.BigEndian.PutUint16(b[2:], s.Window)
	b[4] = byte(s.Options.Set)
	binary.BigEndian.PutUint16(b[5:], s.Options.MSS)
	b[7] = s.Options.WindowScale
	binary.BigEndian.PutUint32(b[8:], s.Options.TSVal)
	binary.BigEndian.PutUint32(b[12:], s.Options.TSEcr)
}

// decodeRest reads them.
func decodeRest(s *probe.Segment, b []byte) {
	s.Len, s.Window = uint32(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint16(b[2:])
	const known = probe.OptMSS | probe.OptWindowScale | probe.OptSACKPermitted | probe.OptTimestamps
	o := &s.Options
	o.Set = probe.OptionSet(b[4]) & known
	o.MSS, o.WindowScale = binary.BigEndian.Uint16(b[5:]), b[7]
	o.TSVal, o.TSEcr = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
}

// wallAhead is what the packet clock of package script is ahead of the
// monotonic one before any step.
const wallAhead = 1_800_000_000_000_000_000 - 1_000_000_000_000

func put40(b []byte, n int64) {
	for i := range 5 {
		b[i] = byte(n >> (8 * (4 - i)))
	}
}

func get40(b []byte) int64 {
	var n int64
	for _, o := range b[:5] {
		n = n<<8 | int64(o)
	}
	return n << 24 >> 24 // sign
}

// decode reads one record as an event of w's conversation, and how it moves
// the time.
func decode(r []byte, w *watch, now probe.Instant) (probe.Instant, probe.Event) {
	kind, due := w.c.Timer()
	if r[24] != 0 && kind != 0 {
		now = max(now, due)
	} else {
		now = now.Add(time.Duration(get40(r[12:17]) & (1<<39 - 1)))
	}
	ev := probe.Event{Kind: probe.EventKind(r[0] % (byte(probe.NoRoom) + 2))}
	if r[24] == 2 && kind != 0 {
		ev.Kind = kind
	}
	ev.Discard = probe.DiscardReason(1 + r[1]&15%byte(probe.NumDiscardReasons-1))
	ev.Stamp = probe.Stamp{Wall: int64(now) + wallAhead - get40(r[17:22]), Clock: uint32(r[1] >> 4)}
	seq, ack := fuzzStart.ISS, fuzzStart.IRS
	if ev.Kind == probe.SegmentArrives {
		seq, ack = ack, seq
	}
	n := binary.BigEndian.Uint32(r[4:])
	ev.Segment = probe.Segment{
		Seq:   seq.Add(n),
		Ack:   ack.Add(binary.BigEndian.Uint32(r[8:])),
		Flags: probe.Flags(binary.BigEndian.Uint16(r[2:]) & (1<<12 - 1)),
		TTL:   r[26],
	}
	decodeRest(&ev.Segment, r[27:])
	ev.ICMP = probe.ICMP{V6: r[25]&1 != 0, Type: r[22], Code: r[23], Seq: fuzzStart.ISS.Add(n)}
	ev.Narrow = r[25]&2 != 0
	return now, ev
}

// fuzzParams are the ways of holding a conversation that the fuzzer tries.
var fuzzParams = [...]probe.Params{
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 5 * time.Second, ResetGrace: 50 * time.Millisecond},
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 5 * time.Second},
	{Kind: probe.HalfOpen, Timeout: time.Nanosecond, Linger: 0, ResetGrace: time.Nanosecond},
	{Kind: probe.HalfOpen},
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 5 * time.Second, ResetGrace: 50 * time.Millisecond, DetectCookies: true},
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 5 * time.Second, DetectCookies: true},
	{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second},
	{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second, Send: 100, Hold: 50 * time.Millisecond},
	{Kind: probe.ActiveClose, Timeout: 90 * time.Second, Linger: 4 * time.Second, Send: 20000, FINWithData: true},
	{Kind: probe.PassiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second, Send: 100},
	{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second, Send: 100, Prompt: true},
	{Kind: probe.PassiveClose, Timeout: 90 * time.Second, Linger: 4 * time.Second, Send: 20000, Combined: true},
	{Kind: probe.PassiveClose},
	{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Linger: 4 * time.Second, Measure: probe.MeasureDuration, Limit: 10 * time.Second},
	{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Linger: 4 * time.Second, Measure: probe.MeasureReuse, After: time.Second},
	{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Linger: 4 * time.Second, Measure: probe.MeasureReuse, Lower: true, Combined: true},
}

// FuzzEvents delivers any events in any order and holds every conversation to
// the invariants. Seeds are all scripts.
func FuzzEvents(f *testing.F) {
	_, scripts := readScripts(f)
	for i, s := range scripts {
		for j := range fuzzParams { // any of the script's kind
			if n := (i + j) % len(fuzzParams); fuzzParams[n].Kind == s.Params.Kind {
				f.Add(uint8(n), encode(s))
				break
			}
		}
	}
	f.Fuzz(func(t *testing.T, params uint8, b []byte) {
		w := newWatch(fuzzParams[int(params)%len(fuzzParams)])
		now := probe.Instant(1_000_000_000_000)
		for n := 0; len(b) >= recordLen && n < maxEvents; n++ {
			var ev probe.Event
			now, ev = decode(b[:recordLen], w, now)
			b = b[recordLen:]
			if _, err := w.step(now, ev); err != nil {
				t.Fatalf("event %d, %v: %v", n, ev.Kind, err)
			}
		}
		if err := w.finish(now); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzScript reads any text as a script, and plays what is one. Seeds are all
// scripts.
func FuzzScript(f *testing.F) {
	sources, _ := readScripts(f)
	for _, src := range sources {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		scripts, err := script.Parse("fuzz", src)
		if err != nil {
			return
		}
		for _, s := range scripts {
			_, _ = s.Run(fuzzStart) // its expectations may be wrong: it must not panic
			w := newWatch(s.Params)
			now := probe.Instant(0)
			for _, e := range s.Events(fuzzStart) {
				now = e.At
				if _, err := w.step(now, e.Event); err != nil {
					t.Fatalf("%v: %v", e.Event.Kind, err)
				}
			}
			if err := w.finish(now); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestScriptsHoldInvariants plays every script's events under the watch, with
// every set of parameters and from every start.
func TestScriptsHoldInvariants(t *testing.T) {
	_, scripts := readScripts(t)
	for _, s := range scripts {
		for _, p := range append(fuzzParams[:], s.Params) {
			for _, start := range starts {
				w := newWatch(p)
				var now probe.Instant
				for _, e := range s.Events(start) {
					now = e.At
					if _, err := w.step(now, e.Event); err != nil {
						t.Fatalf("%s, %+v, %+v: %v: %v", s.File, p, start, e.Event.Kind, err)
					}
				}
				if err := w.finish(now); err != nil {
					t.Fatalf("%s, %+v, %+v: %v", s.File, p, start, err)
				}
			}
		}
	}
}

// TestFuzzRecords checks that the records of a script are its events again, so
// that the seeds are what they claim to be.
func TestFuzzRecords(t *testing.T) {
	_, scripts := readScripts(t)
	for _, s := range scripts {
		w := newWatch(s.Params)
		b := encode(s)
		now := s.Events(fuzzStart)[0].At
		for i, e := range s.Events(fuzzStart) {
			var ev probe.Event
			now, ev = decode(b[i*recordLen:], w, now)
			if now != e.At || ev.Kind != e.Event.Kind || ev.Segment.Seq != e.Event.Segment.Seq && ev.Kind != probe.ICMPArrives {
				t.Fatalf("%s: event %d is %v at %v, want %v at %v", s.File, i, ev.Kind, now, e.Event.Kind, e.At)
			}
			if ev.Kind == probe.SegmentArrives && (ev.Stamp != e.Event.Stamp || ev.Segment.Flags != e.Event.Segment.Flags) {
				t.Fatalf("%s: event %d: %+v, want %+v", s.File, i, ev, e.Event)
			}
		}
	}
}
