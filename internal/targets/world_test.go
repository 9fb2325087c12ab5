package targets

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe/engine"
)

// A world is a roster with an engine that keeps books and a resolver that says
// what it is told.
type world struct {
	testing.TB
	*Roster
	engine  *books
	dns     *zone
	metrics *metrics.Metrics
	log     *bytes.Buffer // read it only when nothing runs
}

func newWorld(t testing.TB) *world {
	w := &world{
		TB:      t,
		engine:  &books{TB: t, probed: make(map[uint64]*engine.Target)},
		dns:     &zone{names: make(map[string]reply), asked: make(map[string][]time.Time)},
		metrics: metrics.New(metrics.Options{}),
		log:     new(bytes.Buffer),
	}
	w.Roster = New(w.engine, w.metrics, w.dns, slog.New(slog.NewTextHandler(w.log, nil)))
	return w
}

// inBubble runs a test on a clock that only moves when everybody waits, beside
// a Run.
func inBubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
		}()
		test(w)
	})
}

// load puts a configuration in force.
func (w *world) load(yaml string) {
	w.Helper()
	if err := w.put(parse(w, yaml)); err != nil {
		w.Fatal(err)
	}
}

// put applies a configuration and joins what is left out of it.
func (r *Roster) put(c *config.Config) error {
	return errors.Join(r.Apply(c.Targets(), c.Global.ResolveInterval)...)
}

func parse(t testing.TB, yaml string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// settle lets everything happen that does not wait for time to pass.
func (w *world) settle() { synctest.Wait() }

// pass lets time pass, and what is to happen then happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// addresses are those that the engine probes, sorted; "-" for a target that
// does not resolve.
func (w *world) addresses() string {
	var all []string
	for _, t := range w.engine.targets() {
		if t.Remote.IsValid() {
			all = append(all, t.Remote.String())
		} else {
			all = append(all, "-")
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// series are the labels of the exported targets, sorted.
func (w *world) series() string {
	w.Helper()
	var text bytes.Buffer
	if err := w.metrics.WriteText(&text); err != nil {
		w.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(text.String()) {
		if rest, ok := strings.CutPrefix(line, "probed_probes_total{"); ok {
			all = append(all, rest[:strings.LastIndexByte(rest, '}')])
		}
	}
	return strings.Join(all, "\n")
}

// ips are the values of the label ip, sorted; "" where there is none.
func (w *world) ips() []string {
	w.Helper()
	var all []string
	for line := range strings.Lines(w.series()) {
		_, ip, _ := strings.Cut(line, `ip="`)
		ip, _, _ = strings.Cut(ip, `"`)
		all = append(all, ip)
	}
	slices.Sort(all)
	return all
}

func (w *world) wantAddresses(want string) {
	w.Helper()
	if got := w.addresses(); got != want {
		w.Errorf("the engine probes %q, want %q", got, want)
	}
}

func (w *world) wantIPs(want ...string) {
	w.Helper()
	if got := w.ips(); !slices.Equal(got, want) {
		w.Errorf("series with the ip labels %q, want %q", got, want)
	}
}

func (w *world) wantFailures(want uint64) {
	w.Helper()
	if got := w.ResolveFailures.Load(); got != want {
		w.Errorf("%d failed look-ups, want %d", got, want)
	}
}

// books is an Engine that holds what it is told against what it knows.
type books struct {
	testing.TB
	mu     sync.Mutex
	probed map[uint64]*engine.Target // by ID
	calls  int
}

func (b *books) Update(add, remove []*engine.Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	for _, t := range remove {
		if b.probed[t.ID] != t {
			b.Errorf("%v is removed and is not there", t.Remote)
		}
		delete(b.probed, t.ID)
	}
	for _, t := range add {
		if b.probed[t.ID] != nil {
			b.Errorf("%v is added under an ID that is in use", t.Remote)
		}
		if t.Sink == nil {
			b.Errorf("%v has nobody to tell", t.Remote)
		}
		b.probed[t.ID] = t
	}
}

func (b *books) targets() []*engine.Target {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.probed))
}

// updates returns how often Update was called.
func (b *books) updates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// only returns the engine's one target.
func (b *books) only() *engine.Target {
	b.Helper()
	all := b.targets()
	if len(all) != 1 {
		b.Fatalf("the engine has %d targets, want one", len(all))
	}
	return all[0]
}

// A zone is a Resolver. Names that it does not have do not exist.
type zone struct {
	mu    sync.Mutex
	names map[string]reply
	asked map[string][]time.Time // by network and name
	now   int                    // look-ups under way
	most  int                    // of those
}

// A reply comes after a delay, or not within the time that the asker has.
type reply struct {
	addrs []netip.Addr
	err   error
	delay time.Duration
}

var (
	errNotFound = &net.DNSError{Err: "no such host", IsNotFound: true}
	errServer   = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

// set changes what a name resolves to.
func (z *zone) set(name string, addrs ...string) {
	var r reply
	for _, a := range addrs {
		r.addrs = append(r.addrs, netip.MustParseAddr(a))
	}
	z.reply(name, r)
}

func (z *zone) reply(name string, r reply) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[name] = r
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	key := network + " " + host
	z.asked[key] = append(z.asked[key], time.Now())
	z.now++
	z.most = max(z.most, z.now)
	r, known := z.names[host]
	z.mu.Unlock()
	defer func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		z.now--
	}()
	if !known {
		r.err = errNotFound
	}
	if r.delay > 0 {
		select {
		case <-time.After(r.delay):
		case <-ctx.Done():
			return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	var addrs []netip.Addr
	for _, a := range r.addrs {
		if a.Unmap().Is4() && network != "ip6" || !a.Unmap().Is4() && network != "ip4" {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 && len(r.addrs) > 0 {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: host} // as net does
	}
	return addrs, nil
}

// times returns how often a question was asked.
func (z *zone) times(key string) int { return len(z.questions()[key]) }

// questions returns when each was asked.
func (z *zone) questions() map[string][]time.Time {
	z.mu.Lock()
	defer z.mu.Unlock()
	return maps.Clone(z.asked)
}

// load returns how many look-ups are under way, and the most that were.
func (z *zone) load() (now, most int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.now, z.most
}
