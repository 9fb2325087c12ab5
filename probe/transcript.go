package probe

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
	"accepted: a new connection", "reset: nobody listens", "four-tuple free"}

// String is the note in words.
func (n Note) String() string { return name(noteNames[:], int(n)) }

// A Record is one step of a conversation: the event, the moment at which it was
// handled, both states after it, and what was concluded.
type Record struct {
	At          Instant // when it was handled, monotonic
	Event       Event   // with the kernel's stamp where it has one
	Local, Peer State   // after the event; the peer's is inferred
	Note        Note
}

// MaxRecords is how many records a Transcript keeps. A half_open conversation
// makes three to five, a closing that loses nothing some fifteen; a flood of
// forged segments must not make more of it.
const MaxRecords = 64

// FirstRecords is how many of them are a conversation's first: the handshake and
// what the trouble began with. The rest are its last: how it ended.
const FirstRecords = 32

// A Transcript is what happened in one conversation, in order. Its size is
// fixed: of more than MaxRecords records those in the middle are counted, not
// kept.
type Transcript struct {
	Tuple   FourTuple
	Kind    Kind
	Lost    uint32 // records that are missing after the first FirstRecords
	n       uint8
	records [MaxRecords]Record
}

// Reset empties the transcript for a new conversation.
func (t *Transcript) Reset(tuple FourTuple, k Kind) {
	t.Tuple, t.Kind, t.Lost, t.n = tuple, k, 0, 0
}

// Add records a step that Step returned c and out for.
func (t *Transcript) Add(now Instant, ev *Event, c *Conversation, out *Output) {
	if int(t.n) == MaxRecords {
		t.Lost++
		copy(t.records[FirstRecords:], t.records[FirstRecords+1:])
		t.n--
	}
	t.records[t.n] = Record{At: now, Event: *ev, Local: c.local, Peer: c.peer, Note: out.Note}
	t.n++
}

// Records returns the records in order; if Lost is not 0, that many are missing
// before the one at FirstRecords. They are the transcript's own.
func (t *Transcript) Records() []Record { return t.records[:t.n] }
