package discovery

import (
	"context"
	"sync"
	"time"

	sd "github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/probed/probed/internal/memory"
)

// settleTime is how long after a source's first answer the answer is taken for
// complete: file_sd gives one a file.
const settleTime = time.Second

// anew is how long after a discoverer has given up it is run again: that of files does if the
// kernel has nothing to watch them by, no descriptor or no inotify instance.
const anew = 5 * time.Second

// A source is one entry of a job's discovery, or of several jobs' that are alike.
// It notes when it has answered, which the manager does not tell: to that, no
// answer and an empty one are the same. (The manager tells sources apart by
// reflect.DeepEqual, to which a channel is equal only to itself.)
type source struct {
	sd.Config
	budget   *memory.Budget // for its answers
	answered chan struct{}  // closed, then
}

func newSource(c sd.Config, b *memory.Budget) *source { return &source{c, b, make(chan struct{})} }

// hasAnswered reports whether the source has, and the manager has been told of it.
func (s *source) hasAnswered() bool {
	select {
	case <-s.answered:
		return true
	default:
		return false
	}
}

// NewDiscoverer implements sd.Config.
func (s *source) NewDiscoverer(o sd.DiscovererOptions) (sd.Discoverer, error) {
	web := newDialer()
	o.HTTPClientOptions = web.clientOptions()
	d, err := s.Config.NewDiscoverer(o)
	if err != nil {
		return nil, err
	}
	if err := bound(d, s.budget); err != nil {
		return nil, err
	}
	doubts, err := newDoubts(s.Config, o)
	if err != nil {
		return nil, err
	}
	return &listener{d, s, web, doubts}, nil
}

// A listener is a source's discoverer, overheard.
type listener struct {
	sd.Discoverer
	source *source
	web    *dialer // the discoverer's
	doubts *doubts // about files; nil: it has none
}

// Run implements sd.Discoverer. What is passed on last, once the first answer is
// complete, is nothing: it has the manager send all that it knows once more.
func (l *listener) Run(ctx context.Context, up chan<- []*targetgroup.Group) {
	answers := make(chan []*targetgroup.Group)
	var discovering sync.WaitGroup
	defer l.web.close()
	defer discovering.Wait()
	discovering.Go(func() {
		for l.Discoverer.Run(ctx, answers); ctx.Err() == nil; l.Discoverer.Run(ctx, answers) {
			select {
			case <-time.After(anew):
			case <-ctx.Done():
			}
		}
	})
	pass := func(groups []*targetgroup.Group) {
		select {
		case up <- groups:
		case <-ctx.Done():
		}
	}
	look, stop := l.doubts.tick()
	defer stop()
	var settled <-chan time.Time
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case groups := <-answers:
			pass(l.doubts.hear(groups))
			if first {
				first, settled = false, time.After(settleTime)
			}
		case <-look:
			if groups := l.doubts.again(); len(groups) > 0 {
				pass(groups)
			}
		case <-settled:
			settled = nil
			close(l.source.answered)
			pass(nil)
		}
	}
}
