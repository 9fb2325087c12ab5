package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	sd "github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// A scripted source answers what the test says, when it says so.
type scripted struct {
	ID      string
	answers chan []*targetgroup.Group
	runs    *atomic.Int32
}

func newScripted(id string) *scripted {
	return &scripted{id, make(chan []*targetgroup.Group), new(atomic.Int32)}
}

func (s *scripted) Name() string { return "scripted" }

func (s *scripted) NewDiscoverer(sd.DiscovererOptions) (sd.Discoverer, error) { return s, nil }

func (s *scripted) NewDiscovererMetrics(prometheus.Registerer, sd.RefreshMetricsInstantiator) sd.DiscovererMetrics {
	return nil
}

func (s *scripted) Run(ctx context.Context, up chan<- []*targetgroup.Group) {
	s.runs.Add(1)
	for {
		select {
		case <-ctx.Done():
			return
		case groups := <-s.answers:
			select {
			case up <- groups:
			case <-ctx.Done():
			}
		}
	}
}

// group is one of a source's, each target an address.
func group(source string, addresses ...string) *targetgroup.Group {
	g := &targetgroup.Group{Source: source}
	for _, a := range addresses {
		g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
	}
	return g
}

// A world is a Runner that runs, on a clock that moves when everybody waits.
type world struct {
	testing.TB
	*Runner
	changed atomic.Int32
}

func inBubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{TB: t}
		w.Runner = New(func() { w.changed.Add(1) }, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		test(w)
		cancel()
		<-done // and every goroutine ends with the bubble
	})
}

func (w *world) apply(jobs map[string]sd.Configs) {
	w.Helper()
	if err := w.Apply(jobs); err != nil {
		w.Fatal(err)
	}
}

func one(configs ...sd.Config) map[string]sd.Configs { return map[string]sd.Configs{"job": configs} }

// changes is how often Found has changed by itself.
func (w *world) changes() int { return int(w.changed.Load()) }

// pass lets time pass, and what is to happen then happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// found writes what is found for a job.
func (w *world) found(job string) string {
	var all []string
	for _, g := range w.Found()[job] {
		for _, t := range g.Targets {
			all = append(all, string(t[model.AddressLabel]))
		}
	}
	return strings.Join(all, " ")
}

func (w *world) want(want string) {
	w.Helper()
	if got := w.found("job"); got != want {
		w.Errorf("found %q, want %q", got, want)
	}
}

func TestWithoutDiscovery(t *testing.T) {
	inBubble(t, func(w *world) {
		w.apply(nil)
		w.pass(time.Hour)
		families, err := w.Gather()
		if len(w.Found())+w.changes()+len(families) > 0 || err != nil {
			t.Errorf("%v, %d changes, %d metrics, %v", w.Found(), w.changes(), len(families), err)
		}
	})
}

func TestUpdates(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b := newScripted("a"), newScripted("b")
		w.apply(map[string]sd.Configs{"job": {a, b}, "other": {a}})
		w.want("")
		a.answers <- []*targetgroup.Group{group("2", "x"), group("1", "y", "z")}
		w.pass(200 * time.Millisecond)
		w.want("y z x")
		b.answers <- []*targetgroup.Group{group("0", "w")}
		w.pass(5 * time.Second)
		w.want("w y z x")
		if got := w.found("other"); got != "y z x" {
			t.Errorf("the other job found %q", got)
		}
		if a.runs.Load() != 1 {
			t.Errorf("a source that two jobs share runs %d times", a.runs.Load())
		}

		// An answer like the last is no change.
		before := w.changes()
		a.answers <- []*targetgroup.Group{group("2", "x"), group("1", "y", "z")}
		w.pass(5 * time.Second)
		if w.changes() != before {
			t.Errorf("%d changes by the same answer", w.changes()-before)
		}
		a.answers <- []*targetgroup.Group{group("1")}
		w.pass(5 * time.Second)
		w.want("w x")
		if w.changes() != before+1 {
			t.Errorf("%d changes by another answer", w.changes()-before)
		}

		// Reloads: of the same, then without b, then without any.
		w.apply(map[string]sd.Configs{"job": {a, b}, "other": {a}})
		w.want("w x")
		a.answers <- []*targetgroup.Group{group("3", "v")}
		w.pass(5 * time.Second)
		w.want("w x v")
		w.apply(one(a))
		w.pass(5 * time.Second)
		w.want("x v")
		if a.runs.Load() != 1 {
			t.Error("reloads have restarted a source that stays")
		}
		if len(w.Found()) != 1 {
			t.Errorf("found %v", w.Found())
		}
		w.apply(nil)
		w.pass(time.Minute)
		if len(w.Found()) > 0 {
			t.Errorf("found %v", w.Found())
		}
	})
}

// A panic of whoever is told of changes ends Run, and so the process, rather than wait for sources that nobody ends.
func TestPanicEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(func() { panic("told") }, nil, slog.New(slog.DiscardHandler))
		ended := make(chan any)
		go func() {
			defer func() { ended <- recover() }()
			r.Run(t.Context())
		}()
		a := newScripted("a")
		if err := r.Apply(one(a)); err != nil {
			t.Fatal(err)
		}
		a.answers <- []*targetgroup.Group{group("1", "x")}
		select {
		case got := <-ended:
			if got != "told" {
				t.Errorf("Run ended by %v", got)
			}
		case <-time.After(time.Minute):
			t.Error("Run waits")
		}
	})
}

// Changes that keep coming are handed on every two seconds or so, the last too.
func TestMostOften(t *testing.T) {
	inBubble(t, func(w *world) {
		a := newScripted("a")
		w.apply(one(a))
		const seconds = 60
		for i := range seconds * 20 {
			a.answers <- []*targetgroup.Group{group("1", fmt.Sprint(i))}
			w.pass(50 * time.Millisecond)
		}
		if w.changes() < seconds/4 || w.changes() > seconds {
			t.Errorf("%d changes in %d s", w.changes(), seconds)
		}
		w.pass(5 * time.Second)
		w.want(fmt.Sprint(seconds*20 - 1))
	})
}

// A job whose discovery a reload changes goes on with what was found until all of
// the new one's answer is there.
func TestReloadKeepsWhatWasFound(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b, c := newScripted("a"), newScripted("b"), newScripted("c")
		w.apply(one(a))
		a.answers <- []*targetgroup.Group{group("1", "x", "y")}
		w.pass(5 * time.Second)
		w.apply(one(b))
		for range 100 {
			w.pass(100 * time.Millisecond)
			w.want("x y")
		}
		b.answers <- []*targetgroup.Group{group("1", "x")}
		w.pass(500 * time.Millisecond)
		w.want("x y")
		b.answers <- []*targetgroup.Group{group("2", "z")} // as of a second file
		w.pass(5 * time.Second)
		w.want("x z")
		if a.runs.Load() != 1 || b.runs.Load() != 1 {
			t.Error("not each ran once")
		}

		// One that never answers is not waited for.
		w.apply(one(c))
		w.pass(holdFor - time.Second)
		w.want("x z")
		w.pass(2 * time.Second)
		w.want("")
		c.answers <- []*targetgroup.Group{group("1", "late")}
		w.pass(5 * time.Second)
		w.want("late")

		// An empty answer is an answer.
		b = newScripted("b again")
		w.apply(one(b))
		w.pass(time.Second)
		b.answers <- []*targetgroup.Group{group("1")}
		w.pass(5 * time.Second)
		w.want("")
	})
}

// A source that never answers does not keep others from being heard, whatever is
// reloaded meanwhile.
func TestReloadWithASilentSource(t *testing.T) {
	inBubble(t, func(w *world) {
		a, silent := newScripted("a"), newScripted("silent")
		w.apply(one(a, silent))
		a.answers <- []*targetgroup.Group{group("1", "x")}
		w.pass(5 * time.Second)
		w.apply(one(a, silent))
		a.answers <- []*targetgroup.Group{group("1", "y")}
		w.pass(5 * time.Second)
		w.want("y")
		w.apply(one(a))
		a.answers <- []*targetgroup.Group{group("1", "z")}
		w.pass(5 * time.Second)
		w.want("z")
	})
}

// Name servers give their answers another order each time.
func TestOrderOfNameServers(t *testing.T) {
	inBubble(t, func(w *world) {
		a := newScripted("a")
		w.apply(one(a))
		answer := func(addresses ...string) {
			g := group("db.test", addresses...)
			for _, target := range g.Targets {
				target[dnsName] = "db.test"
			}
			a.answers <- []*targetgroup.Group{g}
			w.pass(5 * time.Second)
			w.want("1 2 3")
		}
		answer("1", "2", "3")
		before := w.changes()
		answer("2", "3", "1")
		answer("3", "2", "1")
		if w.changes() != before {
			t.Errorf("%d changes", w.changes()-before)
		}
	})
}
