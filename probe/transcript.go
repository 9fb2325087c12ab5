package probe

import "slices"

// Note is what was concluded from an event.
type Note uint8

// The notes.
const (
	NoteNone Note = iota
	NoteOpen
	NoteSYNSent
	NoteSYNUnsent
	NoteSYNACK
	NoteSYNACKDuplicate
	NoteSYNACKLate
	NoteSYNACKAfter
	NoteSimultaneousOpen
	NoteBadSYNACK
	NoteChallengeACK
	NoteUnexpected
	NoteRefused
	NoteBadRST
	NoteResetLate
	NoteResetSent
	NoteResetOwn
	NoteResetUnseen
	NoteResetAgain
	NoteICMP
	NoteBadICMP
	NoteTimeout
	NoteDiscarded
	NoteAborted
	NoteReopen
	NoteClose
	NoteLeft
	NoteFINLeft
	NoteACK
	NoteData
	NoteAhead
	NoteOld
	NoteOutOfWindow
	NoteBadACK
	NotePAWS
	NoteNoTimestamp
	NoteDelayedACK
	NoteFINAcked
	NotePeerFIN
	NotePeerFINAgain
	NoteReset
	NoteRetransmit
	NoteWindowProbe
	NoteAfter
	NoteTouch
	NoteTimeWaitAlive
	NoteTimeWaitOver
	NoteReuseRecycled
	NoteReuseFresh
	NoteReuseRefused
	NoteDone
	NoteNotOpened
	NotePrompt
	NoteFragment
	NotePromptReset
)

var noteNames = [...]string{"", "open", "SYN left", "SYN has not left yet", "SYN-ACK accepted", "duplicate SYN-ACK",
	"late SYN-ACK", "SYN-ACK after the verdict", "bare SYN: simultaneous open", "SYN-ACK not believed",
	"challenge ACK", "not expected", "refused", "RST not believed", "RST after the verdict", "RST left",
	"no RST seen leaving: sending our own", "no RST seen leaving", "RST once more", "ICMP error", "ICMP error not believed",
	"timeout", "discarded", "aborted", "second SYN, to detect cookies",
	"CLOSE", "left", "FIN left", "acknowledging", "data", "data ahead of its turn", "all of it came before", "outside the window",
	"acknowledgement not believed", "older than what came before (PAWS)", "without its timestamp", "delayed ACK",
	"FIN acknowledged", "the peer's FIN", "the peer's FIN again", "connection reset", "retransmission", "probing a closed window",
	"after the end", "SYN to TIME-WAIT", "still in TIME-WAIT", "TIME-WAIT is over", "accepted: TIME-WAIT recycled",
	"accepted: a new connection", "reset: nobody listens", "four-tuple free", "not opened", "asking for the FIN's acknowledgement",
	"a first fragment: the others are not seen", "RST that a prompt may have called for"}

// String is the note in words.
func (n Note) String() string { return name(noteNames[:], int(n)) }

// Disbelieves reports whether the note says of a segment or an ICMP error that it was
// not believed.
func (n Note) Disbelieves() bool {
	switch n {
	case NoteSimultaneousOpen, NoteBadSYNACK, NoteChallengeACK, NoteUnexpected, NoteBadRST, NoteBadICMP,
		NoteOutOfWindow, NoteBadACK, NotePAWS, NoteNoTimestamp, NotePromptReset:
		return true
	}
	return false
}

// Noise reports whether a step that came to this note is of what was not believed, or of
// a RST that left while none was waited for: our kernel's answer to that, if the port is
// reserved.
func (n Note) Noise(ev *Event) bool {
	return n.Disbelieves() || n == NoteNone && ev.Kind == SegmentSent && ev.Segment.Flags.Has(RST)
}

// A Record is one step of a conversation: the event, the moment at which it was
// handled, both states after it, and what was concluded.
type Record struct {
	At          Instant // when it was handled, monotonic
	Event       Event   // with the kernel's stamp where it has one
	Local, Peer State   // after the event; the peer's is inferred
	Note        Note
}

// MaxRecords is how many records a Transcript keeps. A half_open conversation
// makes three to five, a closing that loses nothing some fifteen.
const MaxRecords = 64

// FirstRecords is how many of them are a conversation's first: the handshake and
// what the trouble began with. The rest are its last: how it ended.
const FirstRecords = 32

// MaxDisbelieved is how many of them, the first, are of segments and ICMP errors that were
// not believed, and how many of our kernel's RSTs to those. A flood of them is counted
// (Rejected), and neither pushes a conversation out of its own transcript nor makes one of
// each that is remembered.
const MaxDisbelieved = 8

// A Figure is something that was measured or concluded of a conversation as a
// whole. What counts segments (Rejected, FINRetransmit and their like) is in the
// notes instead.
type Figure struct {
	Observation
	record uint32 // counted from the conversation's first, lost ones included
}

// A Transcript is what happened in one conversation, in order. Its size is
// bounded: of more than MaxRecords records those in the middle are counted, not
// kept, and of more than MaxDisbelieved that were not believed, or RSTs to that, the last
// are neither.
type Transcript struct {
	Tuple   FourTuple
	Kind    Kind
	Number  uint64 // tells the conversations of one engine apart
	Offset  int64  // wall clock − monotonic when it began, ns: Record.At + Offset is in ns since the Unix epoch
	Lost    uint32 // records that are missing after the first FirstRecords
	records []Record
	figures []Figure
}

// mostReused is for how many records the room of one conversation is the next one's, too: more
// than a closing makes without trouble.
const mostReused = 16

// Reset empties the transcript for a new conversation. The room that a long one took goes
// back: with one peer that makes them so each transcript would be a long one's in the end.
func (t *Transcript) Reset(tuple FourTuple, k Kind) {
	if cap(t.records) > mostReused {
		t.records = nil
	}
	*t = Transcript{Tuple: tuple, Kind: k, records: t.records[:0], figures: t.figures[:0]}
}

// NotOpened records that a probe ended in o before it could open a conversation.
func (t *Transcript) NotOpened(now Instant, o *Observation) {
	t.figures = append(t.figures, Figure{Observation: *o})
	t.records = append(t.records, Record{At: now, Local: Closed, Note: NoteNotOpened})
}

// Add records a step that Step returned c and out for.
func (t *Transcript) Add(now Instant, ev *Event, c *Conversation, out *Output) {
	observed := out.Observations()
	for i := range observed {
		switch observed[i].Kind {
		case SYNACKDuplicate, SYNACKLate, Rejected, FINRetransmit:
		default:
			f := extend(&t.figures)
			f.Observation, f.record = observed[i], uint32(len(t.records))+t.Lost
		}
	}
	if t.sated(out.Note, ev) {
		return
	}
	t.room()
	r := extend(&t.records)
	r.At, r.Local, r.Peer, r.Note = now, c.local, c.peer, out.Note
	r.Event = *ev
}

// extend makes a slice longer by one and returns its place, to be written in full: a
// value that is made elsewhere and appended is written twice, and the second time waits
// for the first.
func extend[T any](s *[]T) *T {
	n := len(*s)
	if n == cap(*s) {
		*s = slices.Grow(*s, 1)
	}
	*s = (*s)[:n+1]
	return &(*s)[n]
}

// room makes room for one more record.
func (t *Transcript) room() {
	if len(t.records) == MaxRecords {
		t.Lost++
		t.records = append(t.records[:FirstRecords], t.records[FirstRecords+1:]...)
	}
}

// sated reports whether there is enough of what was not believed, or of RSTs to that.
func (t *Transcript) sated(n Note, ev *Event) bool {
	if !n.Noise(ev) {
		return false
	}
	have := 0
	for i := range t.records {
		if r := &t.records[i]; r.Note.Noise(&r.Event) && r.Note.Disbelieves() == n.Disbelieves() {
			have++
		}
	}
	return have >= MaxDisbelieved
}

// Extend adds what has come since t was handed over, in a transcript of its own: t is
// then as if it had been kept whole.
func (t *Transcript) Extend(since *Transcript) {
	before := uint32(len(t.records)) + t.Lost
	for _, f := range since.figures {
		f.record += before
		t.figures = append(t.figures, f)
	}
	for i := range since.records {
		if t.sated(since.records[i].Note, &since.records[i].Event) {
			for j := range t.figures {
				if t.figures[j].record > uint32(len(t.records))+t.Lost {
					t.figures[j].record-- // that of a record to come
				}
			}
			continue
		}
		t.room()
		t.records = append(t.records, since.records[i])
	}
	t.Lost += since.Lost
}

// Records returns the records in order; if Lost is not 0, that many are missing
// before the one at FirstRecords. They are the transcript's own.
func (t *Transcript) Records() []Record { return t.records }

// Figures returns what was measured, in order, each kind once at most. They are
// the transcript's own.
func (t *Transcript) Figures() []Figure { return t.figures }

// RecordOf returns the index of the record that a figure was complete with, -1
// for one that is lost.
func (t *Transcript) RecordOf(f *Figure) int {
	switch i := int(f.record); {
	case i < FirstRecords:
		return i
	case i < FirstRecords+int(t.Lost):
		return -1
	default:
		return i - int(t.Lost)
	}
}

// Figure returns what was measured of a kind.
func (t *Transcript) Figure(k ObservationKind) (Observation, bool) {
	for i := range t.figures {
		if t.figures[i].Kind == k {
			return t.figures[i].Observation, true
		}
	}
	return Observation{}, false
}

// Settled returns the verdict, or why there is none; both are 0 and ok is false
// before.
func (t *Transcript) Settled() (r Reason, d DiscardReason, ok bool) {
	if o, is := t.Figure(Verdict); is {
		return o.Reason, NotDiscarded, true
	}
	o, is := t.Figure(Discarded)
	return OK, o.Discard, is
}

// Clone returns a copy.
func (t *Transcript) Clone() Transcript {
	c := *t
	c.records, c.figures = slices.Clone(t.records), slices.Clone(t.figures)
	return c
}
