package discovery

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// A quitter is a discoverer that gives up at first, as that of files does without inotify.
type quitter struct{ runs int }

func (q *quitter) Run(ctx context.Context, up chan<- []*targetgroup.Group) {
	if q.runs++; q.runs < 3 {
		return
	}
	up <- []*targetgroup.Group{{Source: "found"}}
	<-ctx.Done()
}

func TestDiscovererThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSource(&file.SDConfig{}, nil)
		l := &listener{&quitter{}, s, newDialer(), nil}
		up := make(chan []*targetgroup.Group)
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx, up)
		}()
		groups := <-up
		if len(groups) != 1 || groups[0].Source != "found" {
			t.Errorf("%v", groups)
		}
		cancel()
		<-done
	})
}
