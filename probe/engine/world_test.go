package engine

import (
	"context"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/probe"
)

// A world is a shard in a simulated network, with books of all that it says.
type world struct {
	*sim
	tb    testing.TB
	shard *Shard

	delays   []time.Duration
	skips    [NumSkipReasons]int
	troubles []string
	steps    []time.Duration
	ledgers  []*ledger
	first    map[*Target]probe.Instant // the first slots, if the targets never change
	churn    bool                      // they do
}

// A ledger is what was observed of one target.
type ledger struct {
	verdicts  [probe.NumReasons]int
	discards  [probe.NumDiscardReasons]int
	rejects   [probe.NumRejectReasons]int
	rtts      []time.Duration
	late      int
	dups      int
	peers     int
	reactions int
	reacted   []time.Duration
	records   int                         // handed over again, with something that came since
	handed    int                         // transcripts of settled conversations
	unsettled int                         // of those that were not
	strange   int                         // of what was handed over again, what belongs to nothing
	kept      map[uint64]probe.Transcript // of those, by number
	target    *Target
	onRecord  func(*probe.Transcript)
	onSettled func(*probe.Transcript)
	onEach    func(*probe.Observation)
}

func (l *ledger) Observe(o *probe.Observation) {
	switch o.Kind {
	case probe.Verdict:
		l.verdicts[o.Reason]++
	case probe.Discarded:
		l.discards[o.Discard]++
	case probe.Rejected:
		l.rejects[o.Reject]++
	case probe.HandshakeRTT:
		if l.rtts != nil {
			l.rtts = append(l.rtts, o.Duration)
		}
	case probe.SYNACKLate:
		l.late++
	case probe.SYNACKDuplicate:
		l.dups++
	case probe.PeerSeen:
		l.peers++
	case probe.Reaction:
		l.reactions++
		l.reacted = append(l.reacted, o.Duration)
	}
	if l.onEach != nil {
		l.onEach(o)
	}
}

func (l *ledger) Settled(t *probe.Transcript) {
	if _, _, ok := t.Settled(); !ok {
		l.unsettled++
	}
	l.handed++
	if l.kept == nil {
		l.kept = make(map[uint64]probe.Transcript)
	}
	l.kept[t.Number] = t.Clone()
	if l.onSettled != nil {
		l.onSettled(t)
	}
}

func (l *ledger) Record(t *probe.Transcript) {
	l.records++
	whole, ok := l.kept[t.Number]
	if !ok || len(t.Records()) == 0 || t.Tuple != whole.Tuple || t.Kind != whole.Kind {
		l.strange++
	}
	whole.Extend(t)
	l.kept[t.Number] = whole
	if l.onRecord != nil {
		l.onRecord(&whole)
	}
}

// settled is how many probes have a verdict or a discard.
func (l *ledger) settled() int { return sum(l.verdicts[:]) + sum(l.discards[:]) }

func sum(n []int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

func (w *world) ScheduleDelay(d time.Duration) { w.delays = append(w.delays, d) }
func (w *world) Skipped(r SkipReason, n int)   { w.skips[r] += n }
func (w *world) Trouble(_ *Target, err error)  { w.troubles = append(w.troubles, err.Error()) }
func (w *world) ClockStep(by time.Duration)    { w.steps = append(w.steps, by) }

// unlimited is above anything that a test sends.
var unlimited = Limits{Global: 1 << 30, PerAddress: 1 << 30}

func newWorld(tb testing.TB, change func(*Config)) *world {
	w := &world{sim: newSim(), tb: tb, first: make(map[*Target]probe.Instant)}
	cfg := Config{Network: w.sim, Observer: w, Reserved: Ports{61000, 61127}, Guarded: Ports{61128, 61255}, Limits: unlimited, Drain: 3 * time.Second}
	if change != nil {
		change(&cfg)
	}
	w.shard = New(cfg)
	w.shard.secret = secret{k0: 1, k1: 2, ts: 3}
	w.onWait = func() {
		if w.waits >= w.tally {
			w.tally = w.waits + bookEvery + int(w.shard.table.len())
			w.tallyReserved()
		}
	}
	return w
}

var halfOpen = probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 2 * time.Second, ResetGrace: 50 * time.Millisecond}

// target makes a target at 1 s intervals with a ledger of its own.
func (w *world) target(id uint64, remote string, change func(*Target)) (*Target, *ledger) {
	t := &Target{
		ID:       id,
		Params:   halfOpen,
		SYN:      unique.Make(probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}}),
		Interval: time.Second,
	}
	if remote != "" {
		t.Remote = netip.MustParseAddrPort(remote)
	}
	l := &ledger{target: t, rtts: []time.Duration{}}
	t.Sink = l
	w.ledgers = append(w.ledgers, l)
	if change != nil {
		change(t)
	}
	return t, l
}

// targets makes n targets of one address each, every tenth over IPv6.
func (w *world) targets(n int, change func(*Target)) []*Target {
	all := make([]*Target, n)
	for i := range all {
		all[i], _ = w.target(uint64(i)*7919+1, remote(i).String(), change)
	}
	return all
}

func remote(i int) netip.AddrPort {
	if i%10 == 9 {
		a := netip.MustParseAddr("2001:db8:1::").As16()
		a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
		return netip.AddrPortFrom(netip.AddrFrom16(a), 443)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 443)
}

// run lets the world go on for d, ends it, and checks the books.
func (w *world) run(d time.Duration) {
	w.tb.Helper()
	w.goOn(d)
	w.audit()
}

// goOn lets the world go on for d, and ends it.
func (w *world) goOn(d time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.after(d, func() {
		cancel()
		w.Wake()
	})
	w.shard.read()
	w.obey()
	for t, e := range w.shard.targets {
		w.first[t] = e.slot
	}
	w.shard.Run(ctx)
}

// add gives the shard targets.
func (w *world) add(ts ...*Target) { w.shard.Update(ts, nil) }

// obey has the shard carry out all that it was told.
func (w *world) obey() {
	for w.shard.obey(); len(w.shard.orders) > 0; {
		w.shard.obey()
	}
}

// slots is how many slots have come up since the first.
func (w *world) slots() (n int) {
	for t, e := range w.shard.targets {
		n += int(e.slot.Sub(w.first[t]) / t.Interval)
	}
	return n
}

// audit holds the books against each other: every SYN has one verdict or one
// discard, one schedule delay, one transcript where they are wanted; nothing is
// left open.
func (w *world) audit() {
	w.tb.Helper()
	settled, unsent, strange, handed, recorded := 0, 0, 0, 0, 0
	for _, l := range w.ledgers {
		settled += l.settled()
		unsent += l.verdicts[probe.NotResolved]
		strange += l.strange
		handed += l.handed - l.unsettled
		if l.target.Recorder != nil {
			recorded += l.settled()
		}
	}
	unsent += w.sourceless
	if settled != w.queued+unsent {
		w.tb.Errorf("%d verdicts and discards for %d SYNs and %d probes without one", settled, w.queued, unsent)
	}
	if len(w.delays) != w.queued {
		w.tb.Errorf("%d schedule delays for %d SYNs", len(w.delays), w.queued)
	}
	if handed != recorded || strange != 0 {
		w.tb.Errorf("%d transcripts of %d conversations, %d handed over again of none", handed, recorded, strange)
	}
	if got, want := w.queued+unsent+sum(w.skips[:]), w.slots(); got != want && !w.churn {
		w.tb.Errorf("%d probes sent, failed or skipped for %d slots", got, want)
	}
	s := w.shard
	if s.table.open != 0 || s.table.unsure != 0 || s.Stats.Conversations.Load() != 0 || s.table.index.n != 0 {
		w.tb.Errorf("left at the end: open %d, conversations %d, four-tuples %d", s.table.open, s.Stats.Conversations.Load(), s.table.index.n)
	}
	if len(s.table.spare) != int(s.table.len()) {
		w.tb.Errorf("%d of %d slots free", len(s.table.spare), s.table.len())
	}
	if a, b := s.table.wholes.used(), s.table.transcripts.used(); a+b != 0 {
		w.tb.Errorf("left at the end: %d conversations, %d transcripts", a, b)
	}
	w.tallyReserved()
	if s.reserved != 0 || s.lent.reserved != 0 {
		w.tb.Errorf("left at the end: room for %d packets, %d of them lent", s.reserved, s.lent.reserved)
	}
	if named := len(s.entries) - len(s.spare); named != len(s.targets)+s.goners {
		w.tb.Errorf("%d entries for %d targets and %d that are gone", named, len(s.targets), s.goners)
	}
	spent := 0
	for _, e := range s.targets {
		if e.spent() {
			spent++
		}
	}
	if s.schedule.n != len(s.targets)-spent+s.goners {
		w.tb.Errorf("schedule has %d entries for %d targets and %d that are gone", s.schedule.n, len(s.targets), s.goners)
	}
	for _, sk := range w.delays {
		if sk < 0 {
			w.tb.Fatalf("a probe went %v early", -sk)
		}
	}
}
