package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probed/probed/internal/lab"
)

// inLine is a handler whose requests take so long each, one after the other, as scrapes do.
func inLine(d time.Duration) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		time.Sleep(d)
		if r.Context().Err() == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// asked is the code that a client gets.
func asked(ctx context.Context, h http.Handler, client string) int {
	r := httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil)
	r.RemoteAddr = client
	w := httptest.NewRecorder()
	w.Code = 0
	h.ServeHTTP(w, r)
	return w.Code
}

// Whatever crowds ask, all are served or told to wait, and Prometheus is served.
func TestCrowdsQueue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what          string
		clients, each int // that ask again and again
		prometheus    string
	}{
		{what: "many clients, Prometheus another", clients: 40, each: 1, prometheus: "198.19.0.1:1"},
		{what: "many clients, Prometheus one of them", clients: 40, each: 1, prometheus: clientAddress(0)},
		{what: "one client, Prometheus another", clients: 1, each: 60, prometheus: "198.19.0.1:1"},
		{what: "one client, Prometheus the same", clients: 1, each: 60, prometheus: clientAddress(0)},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := answers(mostScrapes)
				h := q.serve(inLine(30 * time.Millisecond))
				began := time.Now()
				var all sync.WaitGroup
				var served, refused, others atomic.Int64
				for n := range c.clients * c.each {
					all.Go(func() {
						for time.Since(began) < time.Minute {
							switch asked(t.Context(), h, clientAddress(n/c.each)) {
							case http.StatusNoContent:
								served.Add(1)
							case http.StatusServiceUnavailable:
								refused.Add(1)
							default:
								others.Add(1)
							}
						}
					})
				}
				for range 10 {
					time.Sleep(3 * time.Second)
					from := time.Now()
					if code := asked(t.Context(), h, c.prometheus); code != http.StatusNoContent || time.Since(from) > scrapeWait {
						t.Errorf("Prometheus: %d after %v", code, time.Since(from))
					}
				}
				all.Wait()
				if served.Load() < 1500 || others.Load() > 0 || refused.Load() > 0 {
					t.Errorf("%d served, %d told to come again, %d neither", served.Load(), refused.Load(), others.Load())
				}
				if len(q.inside)+len(q.waiting)+len(q.parties) > 0 {
					t.Error("something is left")
				}
			})
		})
	}
}

// Who waits for longer than there is time is told so, who goes away waits no more, and of
// too many those go whose client has the most.
func TestQueueEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(queueOptions{places: 1, wait: 5 * time.Second}, time.Now)
		h := q.serve(inLine(time.Minute))
		var all sync.WaitGroup
		all.Go(func() { asked(t.Context(), h, clientAddress(1)) })
		synctest.Wait()
		began := time.Now()
		if code := asked(t.Context(), h, clientAddress(2)); code != http.StatusServiceUnavailable || time.Since(began) != 5*time.Second {
			t.Errorf("%d after %v", code, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		asked(ctx, h, clientAddress(2))
		if time.Since(began) != time.Second {
			t.Errorf("who has gone waited %v", time.Since(began))
		}
		var refused atomic.Int64
		for range mostWaiting {
			all.Go(func() {
				if began := time.Now(); asked(t.Context(), h, clientAddress(1)) == http.StatusServiceUnavailable && time.Since(began) == 0 {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		all.Go(func() {
			if began := time.Now(); asked(t.Context(), h, clientAddress(2)) != http.StatusServiceUnavailable || time.Since(began) == 0 {
				t.Error("refused at once, for others' sake")
			}
		})
		synctest.Wait()
		if n := refused.Load(); n != 1 {
			t.Errorf("%d refused at once", n)
		}
		all.Wait()
	})
}

// What lasts is shared evenly, and once it is nobody puts another out.
func TestQueueLevels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(queueOptions{places: mostStreams, wait: streamWait, level: true}, time.Now)
		var running, ended atomic.Int64
		h := q.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			running.Add(1)
			<-r.Context().Done()
			running.Add(-1)
			ended.Add(1)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		come := func(client, n int) {
			for range n {
				all.Go(func() { // as the page does
					for ctx.Err() == nil {
						asked(ctx, h, clientAddress(client))
						time.Sleep(2 * time.Second)
					}
				})
			}
			time.Sleep(time.Minute)
		}
		expect := func(ends, ones, twos int) {
			t.Helper()
			q.mu.Lock()
			defer q.mu.Unlock()
			has := map[string]int{}
			for p, party := range q.parties {
				has[p.String()] = party.inside
			}
			one, two := has[clientOf(clientAddress(1)).String()], has[clientOf(clientAddress(2)).String()]
			if running.Load() != mostStreams || ended.Load() != int64(ends) || one != ones || two != twos {
				t.Errorf("%d run, %d have ended: %d and %d", running.Load(), ended.Load(), one, two)
			}
		}
		come(1, mostStreams+10)
		expect(0, mostStreams, 0)
		come(2, 1)
		expect(1, mostStreams-1, 1)
		come(2, mostStreams)
		expect(mostStreams/2, mostStreams/2, mostStreams/2)
		cancel()
		all.Wait()
	})
}

// Who reads nothing gives its place to another that waits, though it is the same client's.
func TestQueueSlowReaders(t *testing.T) {
	t.Parallel()
	q := newQueue(queueOptions{places: 2, wait: 30 * time.Second, slow: 200 * time.Millisecond}, time.Now)
	var running atomic.Int32
	piece := bytes.Repeat([]byte("x"), 1<<20)
	s := httptest.NewServer(q.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		for range 64 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})))
	defer s.Close()
	for range 4 {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if n := running.Load(); n != 2 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 64<<20 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
}

// The more clients wait, the less time have those that read nothing.
func TestQueueHurries(t *testing.T) {
	q := newQueue(queueOptions{places: 16, wait: 10 * time.Second, slow: 3 * time.Second}, time.Now)
	came := 0
	for _, c := range []struct {
		waiting int
		want    time.Duration
	}{{0, 3 * time.Second}, {26, 3 * time.Second}, {100, 800 * time.Millisecond}, {500, hurry}} {
		for ; came < 16+c.waiting; came++ {
			at := netip.AddrFrom4([4]byte{10, 0, byte(came >> 8), byte(came)})
			q.join(&visitor{queue: q, in: make(chan bool, 1)}, netip.PrefixFrom(at, 32))
		}
		if got := q.patience(); got != c.want {
			t.Errorf("%d wait: %v, want %v", c.waiting, got, c.want)
		}
	}
}
