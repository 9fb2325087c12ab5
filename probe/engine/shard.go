package engine

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

const (
	// tick is the least time between two turns of an unhurried loop: probes
	// that fall due within one go out together, in bursts.
	tick = 800 * time.Microsecond
	// idlePause is how long a loop sleeps at most: strays want an answer too.
	idlePause = time.Second
	// reactionGap is the least time between two turns that frames on guarded
	// ports call for, on average: hasty of them may follow each other at once.
	reactionGap = 50 * time.Microsecond
	hasty       = 16
	// batch is how many frames are read between two looks at the clocks.
	batch = 64
	// maxBatches bounds the reading in one turn, so that a flood of segments
	// does not stop the sending; more than calmBatches are unlike a load of a few probes.
	maxBatches  = 64
	calmBatches = 2
	// stepTolerance is how far two readings of the clocks' difference may lie
	// apart by being preempted between the two clocks.
	stepTolerance = 10 * time.Microsecond
	// suspectFor is how long after a clock step frames may still carry stamps
	// from before it.
	suspectFor = 10 * time.Millisecond
	// partTime is how long connections that are aborted at the end have to send
	// their RSTs once more.
	partTime = 300 * time.Millisecond
)

// Config is what a Shard needs to run.
type Config struct {
	Network  Network
	Observer Observer
	Reserved Ports // of half_open: our kernel resets what comes there
	Guarded  Ports // of the other kinds: our kernel keeps quiet there
	Limits   Limits
	// Seed keys the ISSs. The same one after a restart keeps them rising on
	// four-tuples that peers remember. It has 20 octets or more that nobody
	// else can guess; without it they are random.
	Seed []byte
	// Drain bounds the time from the end of Run's context to Run's return.
	Drain time.Duration
	// Heartbeat, if there is one, is called by the loop between two turns, whether
	// or not it has anything to do: HeartbeatEvery after the last call, or as soon
	// after that as a turn has ended. So a loop that is stuck, in a Sink or anywhere
	// else, does not call it. It must not block.
	Heartbeat      func()
	HeartbeatEvery time.Duration
	// Burst is how many SYNs go out together at most, and BurstGap the pause between
	// two such bursts: 4 and 50 µs if they are 0. A loop that cannot keep up so sends
	// more, faster.
	Burst    int
	BurstGap time.Duration
}

// Ports is a range of source ports, both ends included.
type Ports struct{ First, Last uint16 }

// len is how many ports the range has.
func (r Ports) len() uint32 { return uint32(r.Last) - uint32(r.First) + 1 }

// has reports whether a port is in the range.
func (r Ports) has(port uint16) bool { return r.First <= port && port <= r.Last }

// Stats are a shard's running totals, to be read from any goroutine.
type Stats struct {
	SegmentsSent     atomic.Uint64 // TCP segments seen leaving from our ports, those that our kernel sends included
	SegmentsReceived atomic.Uint64 // TCP segments and ICMP errors to our ports
	StampFallbacks   atomic.Uint64 // segments and ICMP errors of conversations that the kernel had not stamped as they arrived
	TapDrops         atomic.Uint64 // frames lost between the kernel and the loop
	Conversations    atomic.Int64  // open ones
	Targets          atomic.Int64
}

// A Shard is one loop and all the state it owns.
type Shard struct {
	cfg    Config
	net    Network
	secret secret
	limits Limits

	targets   map[*Target]*entry
	entries   []*entry // by number; nil: none has it
	spare     []int32  // those numbers
	manners   manners
	schedule  wheel
	goners    int  // entries in the schedule whose target is gone
	throttled bool // probes are waiting for the global limit
	pace      pace
	company   company
	peers     peers
	table     table
	window    window
	lent      lending        // of it, what went beside the schedule
	refusals  ration         // RSTs to what nobody believes
	demand    demand         // of all targets
	sizes     sizes          // of the scheduled probes
	largest   int            // packets of the largest of them
	unsent    int            // packets, booked with their SYN, of probes whose SYN lies in this host
	reserved  int            // packets that open conversations may send yet
	wanted    int            // packets of conversations that wait for room, of each address a second's at most
	numbers   *atomic.Uint64 // the last transcript's, of all shards
	budget    *budget        // nil: the limits are this shard's alone
	seat      int            // in the budget
	claimed   uint64         // its version
	claiming  bool           // the share is not whole yet
	rules     judgement      // those in force, which forbid nothing
	ruled     probe.Instant  // when they came
	purge     probe.Instant  // when what they forbid is to be let go of; 0: it has been

	now          probe.Instant // as last read
	caughtUp     probe.Instant // every frame that arrived before was handled
	clock        clock
	losses       []loss        // of the host, not yet noticed
	dark         []int32       // interfaces without a carrier, not yet noticed
	looked       probe.Instant // for such, the last time
	homes        []home        // by the number of an address of ours
	homing       probe.Instant // until when silence may be excused by any of them
	lose         func(int, addr, bool)
	holds        queue[ref]    // the conversations whose four-tuples are held, in order, some that are no more among them
	inherited    uint8         // held of the four-tuple that is taken
	fresh        bool          // nobody of this life has used that before
	born         probe.Instant // when this life began
	drops        uint64
	dropped      probe.Instant // when they were last noticed to have risen
	sightings    sightings
	layers       []layer
	frames       [batch]frame
	nFrames      int
	drained      bool          // the ring was, when it was read last
	busy         bool          // the last turn had frames to handle
	calm         bool          // and not many
	hurried      probe.Instant // when turns with frames would be reactionGap apart on average
	keep         func(*Frame)
	sending      []ref              // whose segments are in the batch
	arena        []byte             // the batch's bytes
	payload      []byte             // of the segment that is being queued
	launched     []launch           // the SYNs in the batch
	leaving      queue[departure]   // the SYNs that were not looked for yet
	reservations queue[reservation] // in order
	resets       queue[reservation] // those that keep room for their RSTs alone
	booked       []*address         // of the segments in the batch, but for SYNs
	bookedFrom   probe.Instant      // when the first of those was
	failed       func(int, error)
	event        probe.Event        // the one that is being delivered
	scratch      probe.Conversation // a small one, while it is stepped
	output       probe.Output       // of the last step: on a function's stack it would escape to the heap
	told         [1]probe.Observation
	warmth       uint64        // nobody's
	fetched      int           // of the targets that are due next, those whose memory was
	answered     []*entry      // whose answers have come, of one batch of frames
	addresses    []uintptr     // to be fetched
	trimmed      probe.Instant // when memory was given back last
	beaten       probe.Instant // the last Heartbeat
	orders       []command     // what is not carried out yet

	mu    sync.Mutex
	inbox []command
	Stats Stats
}

// A frame is a received one, parsed, with what concerns its stamp.
type frame struct {
	packet   wire.Packet
	key      key    // of its conversation
	hash     uint64 // the key's
	local    addr   // our end
	wall     int64
	ifindex  int
	stamped  bool // as it arrived or left
	outgoing bool
	intact   bool // the checksum holds

	malformed bool // no more is known of it than whose it claims to be
}

// A launch is a SYN that goes with the next batch.
type launch struct {
	due     probe.Instant
	address *address
}

// New returns a Shard that is ready to Run.
func New(cfg Config) *Shard {
	s := &Shard{
		cfg:     cfg,
		net:     cfg.Network,
		secret:  newSecret(cfg.Seed),
		limits:  cfg.Limits,
		numbers: new(atomic.Uint64),
		targets: make(map[*Target]*entry),
		sizes:   make(sizes),
		pace:    newPace(cfg.Burst, cfg.BurstGap),
		rules:   2,
	}
	s.peers.byRemote = make(map[addrPort]*peer)
	s.peers.byAddress = make(map[addr]*address)
	s.manners = make(manners)
	s.table.index.reserve(1)
	s.keep = s.keepFrame
	s.failed = s.sendFailed
	s.lose = s.addLoss
	s.born, _ = s.net.Clocks()
	return s
}

// Run is the loop. It returns after ctx has ended and every conversation is
// closed, or cfg.Drain and a moment later, when those that are left are reset.
func (s *Shard) Run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, s.net.Wake)
	defer stop()
	for ctx.Err() == nil {
		s.sleep(s.turn(true))
	}
	now, _ := s.net.Clocks()
	for end := now.Add(s.cfg.Drain); s.now < end; {
		pause := s.turn(false)
		if s.table.open == 0 {
			break
		}
		s.sleep(min(pause, tick))
	}
	s.abort(probe.DiscardShutdown)
	for end := s.now.Add(partTime); s.table.open > 0 && s.now < end; {
		s.sleep(min(s.turn(false), tick))
	}
	s.abort(probe.DiscardShutdown)
}

// sleep waits for what is next. What arrives on a guarded port waits for our
// answer, so that it ends the sleep; but under load, where something arrives all
// the time, no sleep is shorter than reactionGap. Without load there is no such
// sleep: the timer at its end would go off just when a peer close by answers, and
// hold up the segment between the stamps of two captures.
func (s *Shard) sleep(pause time.Duration) {
	if pause <= 0 {
		return
	}
	if s.table.guarded == 0 {
		s.net.Wait(pause, false)
		return
	}
	if s.busy {
		s.hurried = max(s.hurried, s.now).Add(reactionGap)
	}
	if s.busy && s.hurried.Sub(s.now) > hasty*reactionGap {
		gap := min(pause, reactionGap)
		s.net.Wait(gap, false)
		pause -= gap
	}
	if pause > 0 {
		s.net.Wait(pause, true)
	}
}

// turn does all that is due and returns how long there is nothing more to do.
func (s *Shard) turn(probing bool) time.Duration {
	drained := s.receive()
	s.obey()
	s.expire()
	s.letGoOldest()
	s.letGoForbidden()
	s.giveBack()
	next := s.now.Add(idlePause)
	if probing {
		next = min(next, s.send())
	}
	s.flush()
	s.peers.sweep(s.now)
	s.trim()
	s.read() // all of that took its time
	if s.cfg.Heartbeat != nil {
		next = min(next, s.beat())
	}
	if !drained || len(s.orders) > 0 {
		return 0
	}
	if s.table.open > 0 {
		next = min(next, s.now.Add(s.readPause()))
	}
	s.table.settle(s.now)
	if x, ok := s.table.first(s.now, next); ok {
		next = min(next, max(x.at, s.now.Add(tick)))
	}
	return max(next.Sub(s.now), 0)
}

// readPause is how long frames may lie in the ring while conversations wait for them: until
// the next stretch has begun, unless so many come that the ring may fill meanwhile. The
// kernel has stamped them, so it delays no figure.
func (s *Shard) readPause() time.Duration {
	if !s.calm {
		return maxStretch
	}
	return s.longest() + 2*early
}

// trimEvery is how often memory is given back that was not needed in between.
const trimEvery = time.Minute

// trim gives it back.
func (s *Shard) trim() {
	if s.now.Sub(s.trimmed) >= trimEvery {
		s.trimmed = s.now
		s.table.wholes.trim()
		s.table.transcripts.trim()
	}
}

// beat says that the loop is alive, if it is time, and returns until when it may
// sleep before it must say so again.
func (s *Shard) beat() probe.Instant {
	if s.now.Sub(s.beaten) >= s.cfg.HeartbeatEvery {
		s.beaten = s.now
		s.cfg.Heartbeat()
	}
	return max(s.beaten.Add(s.cfg.HeartbeatEvery), s.now.Add(tick))
}

// abort ends every conversation that is left.
func (s *Shard) abort(r probe.DiscardReason) {
	for i := range s.table.len() {
		switch sl := s.table.slot(i); {
		case sl.target == free:
		case s.noRoomToInsist(sl):
			s.release(i)
		default:
			s.step(i, &probe.Event{Kind: probe.Abort, Discard: r})
		}
	}
	s.flush()
}
