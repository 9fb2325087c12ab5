package trust

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"
	"unique"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// A stepping network is a host's whose wall clock is set to and fro: the kernel's own
// must stay as it is, since others live by it. What the kernel stamps after a step carries
// the new time, as if it had been the kernel's.
type stepping struct {
	*host.Network
	mu    sync.Mutex
	steps []step // in order
}

// A step sets the clock, by in all, at a moment of the kernel's.
type step struct{ at, by int64 }

// shifted is what the clock shows at a moment of the kernel's.
func (s *stepping) shifted(wall int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.steps) - 1; i >= 0; i-- {
		if wall >= s.steps[i].at {
			return wall + s.steps[i].by
		}
	}
	return wall
}

func (s *stepping) step(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := int64(0)
	if n := len(s.steps); n > 0 {
		was = s.steps[n-1].by
	}
	s.steps = append(s.steps, step{time.Now().UnixNano(), was + int64(by)})
}

func (s *stepping) Clocks() (probe.Instant, int64) {
	now, wall := s.Network.Clocks()
	return now, s.shifted(wall)
}

func (s *stepping) Receive(limit int, fn func(*engine.Frame)) int {
	return s.Network.Receive(limit, func(f *engine.Frame) {
		f.Wall = s.shifted(f.Wall)
		fn(f)
	})
}

// wallBooks are what an engine says.
type wallBooks struct {
	mu       sync.Mutex
	verdicts map[probe.Reason]int
	discards map[probe.DiscardReason]int
	slowest  time.Duration
	fastest  time.Duration
	goods    map[uint64]time.Time // when each target's last good verdict came
	steps    int
	skipped  int
}

// Of is the sink of a target.
func (a *wallBooks) of(id uint64) engine.Sink { return sink{a, id} }

type sink struct {
	*wallBooks
	id uint64
}

func (s sink) Observe(o *probe.Observation) {
	a := s.wallBooks
	a.mu.Lock()
	defer a.mu.Unlock()
	switch o.Kind {
	case probe.Verdict:
		if a.verdicts[o.Reason]++; o.Reason == probe.OK {
			a.goods[s.id] = time.Now()
		}
	case probe.Discarded:
		a.discards[o.Discard]++
	case probe.HandshakeRTT, probe.FINACKRTT, probe.CloseWaitTime, probe.PeerCloseTime, probe.LastACKRTT:
		a.slowest, a.fastest = max(a.slowest, o.Duration), min(a.fastest, o.Duration)
	}
}

func (a *wallBooks) ScheduleDelay(time.Duration)   {}
func (a *wallBooks) Trouble(*engine.Target, error) {}
func (a *wallBooks) Skipped(_ engine.SkipReason, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skipped += n
}

func (a *wallBooks) ClockStep(time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps++
}

// The wall clock is set by an hour to and fro while probes are under way.
func TestFaultClockStepped(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	servers(there)
	capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
	var network *host.Network
	var err error
	reserved, guarded := host.Range{First: 61000, Last: 61127}, host.Range{First: 61128, Last: 61255}
	here.Do(func() { network, err = host.Open(host.Ports{Reserved: reserved, Guarded: guarded}) })
	if err != nil {
		t.Fatal(err)
	}
	wall := &stepping{Network: network}
	books := &wallBooks{verdicts: make(map[probe.Reason]int), discards: make(map[probe.DiscardReason]int), goods: make(map[uint64]time.Time), fastest: time.Hour}
	shard := engine.New(engine.Config{
		Network: wall, Observer: books, Reserved: engine.Ports(reserved), Guarded: engine.Ports(guarded),
		Limits: engine.Limits{Global: 1e6, PerAddress: 1e6}, Drain: time.Second,
	})
	syn := unique.Make(probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}})
	var targets []*engine.Target
	for i := range 40 {
		x := &engine.Target{
			ID: uint64(i), Remote: netip.MustParseAddrPort(fmt.Sprintf("198.18.64.%d:80", i+1)), SYN: syn, Interval: 20 * time.Millisecond,
			Params: probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: time.Second, ResetGrace: 50 * time.Millisecond},
		}
		if i%4 == 0 {
			x.Params = probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: time.Second}
			x.Interval = 100 * time.Millisecond
		}
		x.Sink = books.of(x.ID)
		targets = append(targets, x)
	}
	shard.Update(targets, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	here.Go(func() {
		defer close(done)
		shard.Run(ctx)
	})
	time.Sleep(time.Second)
	n := times(500, 20)
	var slowest time.Duration
	for i := range n {
		by := time.Hour
		if i%2 == 1 {
			by = -by
		}
		wall.step(by)
		stepped := time.Now()
		lab.Eventually(t, patience, func() error {
			books.mu.Lock()
			defer books.mu.Unlock()
			for id := range uint64(len(targets)) {
				if !books.goods[id].After(stepped) {
					return fmt.Errorf("no good verdict of target %d", id)
				}
			}
			return nil
		})
		slowest = max(slowest, time.Since(stepped))
		time.Sleep(time.Duration(i*13%40) * time.Millisecond)
	}
	stop()
	<-done
	if err := network.Close(); err != nil {
		t.Error(err)
	}
	x := exchanges(capture.Packets())
	probes, wrong, discarded := 0, 0, books.skipped
	for r, k := range books.verdicts {
		if probes += k; r != probe.OK {
			wrong += k
		}
	}
	for _, k := range books.discards {
		discarded += k
	}
	if books.slowest > x.bound() || books.fastest < 0 {
		wrong++
	}
	if books.steps != n || books.discards[probe.DiscardClockStep] == 0 {
		t.Errorf("%d steps noticed of %d, discarded %v", books.steps, n, books.discards)
	}
	book(t, Row{
		Part: "fault", What: "wall clock set by an hour, to and fro", Tried: n, Of: "times", Probes: probes, False: wrong,
		Discarded: discarded, Recovery: slowest, Left: lasting(there),
		Note: fmt.Sprintf("figures from %v to %s; %v; the engine's wall clock, not this host's", books.fastest, short(books.slowest), x),
	})
	if t.Failed() {
		t.Logf("verdicts %v, discarded %v", books.verdicts, books.discards)
	}
}

// The monotonic clock is years ahead of the host's, or at its beginning, as in a container
// that was moved: probed is started in a time namespace.
func TestFaultTimeNamespace(t *testing.T) {
	t.Parallel()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	for what, offset := range map[string]string{"30 years ahead": "946080000", "at its beginning": fmt.Sprint(3 - now.Sec)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			here, there := lab.Pair(t)
			servers(there)
			capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
			d := start(t, here, everyKind(20), asRoot, func(c *lab.Cmd) {
				path, err := exec.LookPath("unshare")
				if err != nil {
					t.Fatalf("util-linux: %v", err)
				}
				args := []string{"unshare", "--time", "--fork", "--kill-child", "--monotonic", offset, "--boottime", offset}
				c.Path, c.Args = path, append(args, c.Args...)
			})
			began := time.Now()
			recovery := d.recovers(scrape{}, began)
			lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 300) })
			s, x := d.scrape(), exchanges(capture.Packets())
			book(t, Row{
				Part: "fault", What: "monotonic clock " + what + " (time namespace)", Tried: 1, Of: "times",
				Probes: int(s.sum("probed_probes_total")), False: s.falsehoods(x), Discarded: s.ours(), Recovery: recovery,
				Left: lasting(there), Note: x.String(),
			})
			if t.Failed() {
				t.Log(s.told(x))
			}
		})
	}
}
