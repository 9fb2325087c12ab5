package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sd "github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/dns"  // registers itself
	_ "github.com/prometheus/prometheus/discovery/file" // so
	_ "github.com/prometheus/prometheus/discovery/http" // so
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/probed/probed/internal/memory"
)

const (
	// mostOften is the least time between two updates while changes keep coming:
	// the first goes within 150 ms.
	mostOften = 2 * time.Second
	// holdFor bounds how long a job goes on with what was found for it before a
	// reload changed its discovery.
	holdFor = 30 * time.Second
)

// A Runner runs the discovery of all jobs. Its methods may be called from any
// goroutine.
type Runner struct {
	changed func()
	budget  *memory.Budget
	log     *slog.Logger
	started chan *sd.Manager // once there is one

	mu       sync.Mutex
	manager  *sd.Manager // nil until the first job asks for discovery
	end      context.CancelFunc
	registry *prometheus.Registry
	jobs     map[string]*job
	latest   map[string][]*targetgroup.Group // what the manager last said
}

// A job is one that asks for discovery.
type job struct {
	sources []*source
	groups  []*targetgroup.Group // found
	held    time.Time            // until when groups stay as they were before a reload; zero: they don't
}

// New returns a Runner without jobs. changed is called, from Run's goroutine, when
// Found has changed by itself. What web servers answer is read as far as the budget has room.
func New(changed func(), budget *memory.Budget, log *slog.Logger) *Runner {
	return &Runner{changed: changed, budget: budget, log: log, started: make(chan *sd.Manager, 1)}
}

// Check reports what would keep a job's discovery from starting at all, such as a
// certificate that can't be read.
func Check(jobs map[string]sd.Configs) error {
	for _, name := range slices.Sorted(maps.Keys(jobs)) {
		metrics, err := sd.CreateAndRegisterSDMetrics(prometheus.NewRegistry())
		if err != nil {
			return fmt.Errorf("job %q: service discovery: %w", name, err)
		}
		for _, c := range jobs[name] {
			if _, err := newSource(c, nil).NewDiscoverer(sd.DiscovererOptions{
				Logger: slog.New(slog.DiscardHandler), Metrics: metrics.MechanismMetrics[c.Name()], SetName: name,
			}); err != nil {
				return fmt.Errorf("job %q: %s_sd_configs: %w", name, c.Name(), err)
			}
		}
	}
	return nil
}

// Apply puts the jobs' discovery in force. Sources that stay are left alone. A job
// whose sources have changed keeps what was found for it until the new ones have
// answered, for holdFor at most: a reload is no reason to forget a target.
func (r *Runner) Apply(jobs map[string]sd.Configs) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.manager == nil {
		if len(jobs) == 0 {
			return nil
		}
		if err := r.start(); err != nil {
			return err
		}
	}
	var sources []*source
	for _, j := range r.jobs {
		sources = append(sources, j.sources...)
	}
	next, configs := make(map[string]*job, len(jobs)), make(map[string]sd.Configs, len(jobs))
	for name, cs := range jobs {
		j := new(job)
		for _, c := range cs {
			i := slices.IndexFunc(sources, func(s *source) bool { return reflect.DeepEqual(s.Config, c) })
			if i < 0 {
				i, sources = len(sources), append(sources, newSource(c, r.budget))
			}
			j.sources = append(j.sources, sources[i])
			configs[name] = append(configs[name], sources[i])
		}
		if old := r.jobs[name]; old != nil {
			j.groups, j.held = old.groups, old.held
			if !slices.Equal(old.sources, j.sources) {
				j.held = time.Now().Add(holdFor)
			}
		}
		next[name] = j
	}
	r.jobs = next
	if err := r.manager.ApplyConfig(configs); err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	return nil
}

// start makes the manager. Without a job that asks for discovery there is none,
// nor are there its metrics and its wake-ups.
func (r *Runner) start() error {
	registry := prometheus.NewRegistry()
	metrics, err := sd.CreateAndRegisterSDMetrics(registry)
	if err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	m := sd.NewManager(ctx, r.log, registry, metrics, sd.Name("probe"), sd.Updatert(mostOften))
	if m == nil {
		end()
		return fmt.Errorf("service discovery: the manager does not start") // it has logged why
	}
	r.manager, r.end, r.registry = m, end, registry
	r.started <- m
	return nil
}

// Found returns the target groups of every job with discovery, as last found. They
// are not to be changed.
func (r *Runner) Found() map[string][]*targetgroup.Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string][]*targetgroup.Group, len(r.jobs))
	for name, j := range r.jobs {
		all[name] = j.groups
	}
	return all
}

// Gather implements prometheus.Gatherer, with the prometheus_sd_ metrics.
func (r *Runner) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	registry := r.registry
	r.mu.Unlock()
	if registry == nil {
		return nil, nil
	}
	return registry.Gather()
}

// Run discovers until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	var updates <-chan map[string][]*targetgroup.Group
	var managing sync.WaitGroup
	defer func() {
		r.stop() // also where changed panics: a process that waits for ever is worse than one that ends
		managing.Wait()
	}()
	for {
		var over <-chan time.Time
		if next, held := r.nextRelease(); held {
			over = time.After(time.Until(next))
		}
		changed := false
		select {
		case <-ctx.Done():
			return
		case m := <-r.started:
			managing.Go(func() { _ = m.Run() }) // its error is its context's
			updates = m.SyncCh()
		case sets, ok := <-updates:
			if !ok {
				updates = nil
				break
			}
			changed = r.take(sets, time.Now())
		case <-over:
			changed = r.take(nil, time.Now())
		}
		if changed {
			r.changed()
		}
	}
}

// stop ends the manager, if there is one.
func (r *Runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		r.end()
	}
}

// nextRelease returns when the first hold ends, if there is one.
func (r *Runner) nextRelease() (first time.Time, held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if !j.held.IsZero() && (!held || j.held.Before(first)) {
			first, held = j.held, true
		}
	}
	return first, held
}

// take takes over what the manager says, nil for what it said before, and reports
// whether anything is new.
func (r *Runner) take(sets map[string][]*targetgroup.Group, now time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sets != nil {
		r.latest = sets
	}
	for name, j := range r.jobs {
		// What was said before the last answer does not count as its absence.
		answered := sets != nil && !slices.ContainsFunc(j.sources, func(s *source) bool { return !s.hasAnswered() })
		if !j.held.IsZero() && !answered && now.Before(j.held) {
			continue
		}
		j.held = time.Time{}
		groups, known := r.latest[name]
		if !known {
			continue // said before the job was there
		}
		groups = inOrder(groups)
		if !same(groups, j.groups) {
			j.groups, changed = groups, true
		}
	}
	return changed
}
