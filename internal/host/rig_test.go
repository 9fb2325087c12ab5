package host_test

import (
	"context"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// testPorts are the source ports of the tests: the default ones.
var testPorts = host.Ports{
	Reserved: host.Range{First: 61000, Last: 61127},
	Guarded:  host.Range{First: 61128, Last: 61255},
	Packet:   true,
}

// A rig is a shard that probes from a lab host.
type rig struct {
	shard *engine.Shard
	end   func() // drains and waits
}

// rest has targets probed no more, and lets what is open come to its end.
func (r *rig) rest(targets []*engine.Target) {
	resting := make([]*engine.Target, len(targets))
	for i, x := range targets {
		y := *x
		y.Interval = 24 * time.Hour
		resting[i] = &y
	}
	r.shard.Update(resting, targets)
}

// giveLoops has the Go scheduler run more threads, as probed does for each of its loops,
// since a loop keeps its place while it sleeps briefly. Some tests run side by side.
func giveLoops() {
	if n := runtime.NumCPU() + 4; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
}

// newRig opens the host's network and starts a shard on it.
func newRig(t testing.TB, h *lab.Host, o engine.Observer, limits engine.Limits) *rig {
	t.Helper()
	giveLoops()
	return newRigOf(t, h, engine.Config{Observer: o, Limits: limits})
}

// newRigOf is newRig for a shard with more to say of.
func newRigOf(t testing.TB, h *lab.Host, cfg engine.Config) *rig {
	t.Helper()
	var network *host.Network
	var err error
	h.Do(func() { network, err = host.Open(testPorts) })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Network, cfg.Drain = network, time.Second
	cfg.Reserved, cfg.Guarded = engine.Ports(testPorts.Reserved), engine.Ports(testPorts.Guarded)
	s := engine.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	h.Go(func() {
		defer close(done)
		s.Run(ctx)
	})
	r := &rig{shard: s}
	r.end = sync.OnceFunc(func() {
		stop()
		<-done
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.end)
	return r
}

// A ledger is a sink and a recorder: it keeps what is observed of its targets.
type ledger struct {
	mu          sync.Mutex
	verdicts    map[probe.Reason]int
	discards    map[probe.DiscardReason]int
	rejects     map[probe.RejectReason]int
	rtts        []time.Duration
	reactions   []time.Duration
	peers       []probe.Fingerprint
	duplicates  int
	late        int
	transcripts []probe.Transcript
}

func newLedger() *ledger {
	return &ledger{
		verdicts: make(map[probe.Reason]int),
		discards: make(map[probe.DiscardReason]int),
		rejects:  make(map[probe.RejectReason]int),
	}
}

func (l *ledger) Observe(o *probe.Observation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch o.Kind {
	case probe.Verdict:
		l.verdicts[o.Reason]++
	case probe.Discarded:
		l.discards[o.Discard]++
	case probe.Rejected:
		l.rejects[o.Reject]++
	case probe.HandshakeRTT:
		l.rtts = append(l.rtts, o.Duration)
	case probe.PeerSeen:
		l.peers = append(l.peers, o.Peer)
	case probe.Reaction:
		l.reactions = append(l.reactions, o.Duration)
	case probe.SYNACKDuplicate:
		l.duplicates++
	case probe.SYNACKLate:
		l.late++
	}
}

func (l *ledger) Settled(tr *probe.Transcript) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transcripts = append(l.transcripts, tr.Clone())
}

func (l *ledger) Record(since *probe.Transcript) {
	l.mu.Lock()
	defer l.mu.Unlock()
	extend(l.transcripts, since)
}

// extend adds what has come since a transcript was handed over, unless that was
// forgotten since.
func extend(all []probe.Transcript, since *probe.Transcript) {
	for i := range all {
		if all[i].Number == since.Number {
			all[i].Extend(since)
		}
	}
}

// settled is how many probes have a verdict or were discarded.
func (l *ledger) settled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, k := range l.verdicts {
		n += k
	}
	for _, k := range l.discards {
		n += k
	}
	return n
}

// count is how many verdicts there are of each reason.
func (l *ledger) count() map[probe.Reason]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.verdicts)
}

// self keeps what concerns probed itself.
type self struct {
	mu      sync.Mutex
	delays  []time.Duration
	skipped map[engine.SkipReason]int
}

func newSelf() *self { return &self{skipped: make(map[engine.SkipReason]int)} }

func (o *self) ScheduleDelay(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delays = append(o.delays, d)
}

// delay is the quantile q of how late the probes were.
func (o *self) delay(q float64) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.delays)
	return o.delays[int(q*float64(len(o.delays)-1))]
}

func (o *self) Skipped(r engine.SkipReason, probes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skipped[r] += probes
}

func (o *self) Trouble(*engine.Target, error) {}

func (o *self) ClockStep(time.Duration) {}

// skips is how many probes were skipped for each reason.
func (o *self) skips() map[engine.SkipReason]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.skipped)
}

// target returns a half-open target with Linux's usual SYN.
func target(id uint64, remote netip.AddrPort, interval, timeout time.Duration, l *ledger) *engine.Target {
	return &engine.Target{
		ID:     id,
		Remote: remote,
		Params: probe.Params{Kind: probe.HalfOpen, Timeout: timeout, Linger: 4 * time.Second, ResetGrace: 50 * time.Millisecond},
		SYN: unique.Make(probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{
			Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale,
			MSS: 1460, WindowScale: 7,
		}}),
		Interval: interval,
		Sink:     l,
		Recorder: l,
	}
}

// await polls until done, or fails the test at the deadline.
func await(t *testing.T, deadline time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", deadline, what)
		}
	}
}
