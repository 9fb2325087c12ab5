// Package recorder is the flight recorder: of every target it keeps what became of
// the last probes, and the transcripts of the last conversations and of the last
// that failed. Its memory is bounded: see Recorder.
package recorder

import (
	"slices"
	"sync"

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
	At      int64               // when it began, ns since the Unix epoch
	RTT     float32             // of the handshake, in seconds; 0 without
	Port    uint16              // our end's: it tells flows apart; 0 if nothing was sent
	Reason  probe.Reason        // the verdict, if Discard is 0
	Discard probe.DiscardReason // why there is none
}

// Failed reports whether the probe has a verdict, and that is not success.
func (s *Sample) Failed() bool { return s.Discard == 0 && s.Reason != probe.OK }

// A Change is one of the peer's fingerprint.
type Change struct {
	At            int64 // of the conversation that showed it, ns since the Unix epoch
	Before, After probe.Fingerprint
}

// A Recorder is one target's. It takes 16 octets a sample (4 KiB when there are
// MaxSamples), and for each transcript that it keeps 176 octets a record and 48 a
// figure: 1 KiB of a half_open, 3 KiB of a closing, 12 KiB at most. It may be read from
// any goroutine while its target is probed. The zero value is empty.
type Recorder struct {
	mu          sync.Mutex
	samples     ring[Sample]
	last        ring[probe.Transcript]
	failed      ring[probe.Transcript]
	peer        probe.Fingerprint
	peerSeen    bool
	changes     ring[Change]
	lastFailure Sample
	version     uint64
}

// Settled implements engine.Recorder.
func (r *Recorder) Settled(t *probe.Transcript) {
	records := t.Records()
	if len(records) == 0 {
		return
	}
	s := Sample{At: t.Offset + int64(records[0].At), Port: t.Tuple.Local.Port()}
	s.Reason, s.Discard, _ = t.Settled()
	if o, ok := t.Figure(probe.HandshakeRTT); ok {
		s.RTT = float32(o.Duration.Seconds())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(s)
	keep(&r.last, t)
	if s.Failed() {
		keep(&r.failed, t)
	}
	if o, ok := t.Figure(probe.PeerSeen); ok {
		now, traits := o.Peer.After(r.peer)
		if r.peerSeen && slices.Contains(traits[:], true) {
			r.changes.push(MaxChanges, Change{s.At, r.peer, now})
		}
		r.peer, r.peerSeen = now, true
	}
}

// Record implements engine.Recorder: what came after the verdict belongs to a
// transcript that is kept.
func (r *Recorder) Record(since *probe.Transcript) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kept := range []*ring[probe.Transcript]{&r.last, &r.failed} {
		for i := range kept.items {
			if kept.items[i].Number == since.Number {
				kept.items[i].Extend(since)
				r.version++
			}
		}
	}
}

// take remembers a sample.
func (r *Recorder) take(s Sample) {
	r.samples.push(MaxSamples, s)
	if s.Failed() {
		r.lastFailure = s
	}
	r.version++
}

// keep puts a copy of a transcript into a ring, in the memory of the oldest.
func keep(kept *ring[probe.Transcript], t *probe.Transcript) {
	t.CopyTo(kept.next(MaxTranscripts))
}

// Version rises with everything that is recorded.
func (r *Recorder) Version() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

// AppendSamples appends the remembered probes, in the order of their verdicts.
func (r *Recorder) AppendSamples(to []Sample) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.samples.appendTo(to)
}

// LastFailure returns the last probe that failed, however long ago.
func (r *Recorder) LastFailure() (Sample, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastFailure, r.lastFailure.Failed()
}

// Last returns copies of the last conversations' transcripts, the newest first.
func (r *Recorder) Last() []probe.Transcript { return r.copies(&r.last) }

// Failed returns copies of those of the last conversations that failed, the newest
// first.
func (r *Recorder) Failed() []probe.Transcript { return r.copies(&r.failed) }

func (r *Recorder) copies(kept *ring[probe.Transcript]) []probe.Transcript {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]probe.Transcript, 0, kept.len())
	for i := kept.len() - 1; i >= 0; i-- {
		all = append(all, kept.at(i).Clone())
	}
	return all
}

// Peer returns the peer's fingerprint as last seen, and its last changes, the
// newest first.
func (r *Recorder) Peer() (f probe.Fingerprint, changes []Change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.changes.len() - 1; i >= 0; i-- {
		changes = append(changes, *r.changes.at(i))
	}
	return r.peer, changes, r.peerSeen
}
