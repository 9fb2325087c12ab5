// Package recorder is the flight recorder: of every target it keeps what became of
// the last probes, and the transcripts of the last conversations and of the last
// that failed. Its memory is bounded: see Recorder.
package recorder

import (
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
)

const (
	// MaxSamples is how many probes are remembered of a target.
	MaxSamples = 256
	// MaxTranscripts is how many of the last conversations are kept whole, and how
	// many of the last that failed.
	MaxTranscripts = 4
	// MaxChanges is how many changes of the peer's fingerprint are remembered.
	MaxChanges = 4
)

// A Sample is what became of one probe.
type Sample struct {
	At      int64               // when it began, ns since the Unix epoch, to the µs
	RTT     float32             // of the handshake, in seconds; 0 without
	Port    uint16              // our end's: it tells flows apart; 0 if nothing was sent
	Reason  probe.Reason        // the verdict, if Discard is 0
	Discard probe.DiscardReason // why there is none
}

// Failed reports whether the probe has a verdict, and that is not success.
func (s *Sample) Failed() bool { return s.Discard == 0 && s.Reason != probe.OK }

// A Change is one of the peer's fingerprint.
type Change struct {
	At            int64 // of the conversation that showed it, as a Sample's
	Before, After probe.Fingerprint
}

// A Recorder is one target's. Until its first probe it takes 16 octets; then some 6 for
// each sample that it remembers and 200 for each transcript of a half_open that it
// keeps, 500 of a closing, and some 300 beside: 2.8 KiB of a target that answers, when
// there are MaxSamples. It may be read from any goroutine while its target is probed.
// The zero value is empty.
type Recorder struct {
	mu   sync.Mutex
	kept *memory // nil before the first probe
}

// A memory is what is kept of a target's probes.
type memory struct {
	version     uint32
	peer        probe.Fingerprint
	peerSeen    bool
	samples     history
	totals      Totals
	transcripts archive
	lastFailure Sample
	changes     []Change // the oldest first
}

// Totals say what became of the remembered probes.
type Totals struct {
	Verdicts  int
	Failed    int // of them
	Discarded int // have none
	Last      Sample
}

// count adds n samples like s.
func (c *Totals) count(s *Sample, n int) {
	switch {
	case s.Discard != 0:
		c.Discarded += n
	case s.Failed():
		c.Failed += n
		c.Verdicts += n
	default:
		c.Verdicts += n
	}
}

// room is for the octets of a transcript of a half_open, or of a closing without
// trouble.
const room = 2304

// Settled implements engine.Recorder.
func (r *Recorder) Settled(t *probe.Transcript) {
	records := t.Records()
	if len(records) == 0 {
		return
	}
	var rtt time.Duration
	var peer *probe.Fingerprint
	s := Sample{At: (t.Offset + int64(records[0].At)) / 1000 * 1000, Port: t.Tuple.Local.Port()}
	s.Reason, s.Discard, _ = t.Settled()
	figures := t.Figures()
	for i := range figures {
		switch o := &figures[i]; o.Kind {
		case probe.HandshakeRTT:
			rtt = o.Duration
			s.RTT = seconds(rtt)
		case probe.PeerSeen:
			peer = &o.Peer
		}
	}
	why := last
	if s.Failed() {
		why |= failed
	}
	var space [room]byte
	octets := appendPart(space[:0], t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		r.kept = new(memory)
	}
	r.kept.take(&s, rtt)
	r.kept.transcripts.put(t.Number, why, octets)
	if peer != nil {
		r.kept.sees(s.At, *peer)
	}
}

// Ahead adds the addresses of what the next probe will be recorded in, as engine.Sink
// says.
func (r *Recorder) Ahead(step int, to []uintptr) []uintptr {
	if step == 0 {
		return append(to, uintptr(unsafe.Pointer(r)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.kept
	if m == nil {
		return to
	}
	if step == 1 {
		at := uintptr(unsafe.Pointer(m))
		for n := uintptr(0); n < unsafe.Sizeof(*m); n += 64 {
			to = append(to, at+n)
		}
		return to
	}
	return m.transcripts.ahead(m.samples.ahead(to))
}

// Record implements engine.Recorder: what came after the verdict belongs to a
// transcript that is kept.
func (r *Recorder) Record(since *probe.Transcript) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil || len(since.Records())+len(since.Figures()) == 0 {
		return
	}
	kept := &r.kept.transcripts
	p := kept.find(since.Number)
	if p == nil {
		return
	}
	var space [room]byte
	kept.replace(p, appendPart(append(space[:0], kept.of(p)...), since))
	r.kept.version++
}

// take remembers a sample.
func (m *memory) take(s *Sample, rtt time.Duration) {
	if m.samples.n == MaxSamples {
		oldest := m.samples.drop()
		m.totals.count(&oldest, -1)
	}
	m.samples.push(s.At, rtt, s.Port, s.Reason, s.Discard)
	m.totals.count(s, 1)
	m.totals.Last = *s
	if s.Failed() {
		m.lastFailure = *s
	}
	m.version++
}

// sees takes in a fingerprint.
func (m *memory) sees(at int64, f probe.Fingerprint) {
	if m.peerSeen && f == m.peer {
		return // as nearly always
	}
	now, traits := f.After(m.peer)
	if m.peerSeen && slices.Contains(traits[:], true) {
		if len(m.changes) == MaxChanges {
			m.changes = slices.Delete(m.changes, 0, 1)
		}
		m.changes = append(m.changes, Change{at, m.peer, now})
	}
	m.peer, m.peerSeen = now, true
}

// Version is another one after everything that is recorded.
func (r *Recorder) Version() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return 0
	}
	return uint64(r.kept.version)
}

// Totals returns what became of the remembered probes. Without any, Last is empty.
func (r *Recorder) Totals() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return Totals{}
	}
	return r.kept.totals
}

// AppendSamples appends the remembered probes, in the order of their verdicts.
func (r *Recorder) AppendSamples(to []Sample) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return to
	}
	return r.kept.samples.appendTo(to)
}

// LastFailure returns the last probe that failed, however long ago.
func (r *Recorder) LastFailure() (Sample, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return Sample{}, false
	}
	return r.kept.lastFailure, r.kept.lastFailure.Failed()
}

// Last returns the last conversations' transcripts, the newest first. They are the
// caller's.
func (r *Recorder) Last() []probe.Transcript {
	return r.those(last)
}

// Failed returns those of the last conversations that failed, the newest first. They
// are the caller's.
func (r *Recorder) Failed() []probe.Transcript {
	return r.those(failed)
}

func (r *Recorder) those(why reasons) []probe.Transcript {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return []probe.Transcript{}
	}
	return r.kept.transcripts.all(why)
}

// Peer returns the peer's fingerprint as last seen, and its last changes, the
// newest first.
func (r *Recorder) Peer() (f probe.Fingerprint, changes []Change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return f, nil, false
	}
	changes = slices.Clone(r.kept.changes)
	slices.Reverse(changes)
	return r.kept.peer, changes, r.kept.peerSeen
}
