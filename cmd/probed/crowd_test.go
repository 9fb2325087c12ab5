package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/internal/memory"
)

// Whoever has the most places gives one up, so that nobody is locked out.
func TestCrowd(t *testing.T) {
	t.Parallel()
	many, few := clientOf("198.18.0.1:1"), clientOf("198.18.0.2:1")
	now := time.Unix(1e9, 0)
	c := newCrowd(4, func() time.Time { return now })
	var out []string
	enter := func(name string, client netip.Prefix, busy bool) *guest {
		g := c.enter(client, func() { out = append(out, name) })
		g.works(busy)
		return g
	}
	expect := func(want ...string) {
		t.Helper()
		if fmt.Sprint(out) != fmt.Sprint(want) {
			t.Errorf("out %v, want %v", out, want)
		}
		out = nil
	}
	enter("few", few, false)
	first := enter("many 1", many, false)
	first.works(true)
	enter("many 2", many, false)
	enter("many 3", many, false)
	expect()
	now = now.Add(quiet)
	enter("many 4", many, false)
	expect("many 2") // the oldest that has done nothing for a while
	newcomer := enter("few 2", few, true)
	expect("many 3")
	enter("many 5", many, true) // two and three: its own again
	expect("many 1")            // many 4 may yet speak
	enter("many 6", many, true)
	expect("many 4")
	newcomer.leave()
	newcomer.leave()
	enter("many 7", many, true)
	expect()
	first.leave() // it had lost its place
	if len(c.guests) != 4 || c.places[many] != 3 || c.places[few] != 1 {
		t.Errorf("%d guests, places %v", len(c.guests), c.places)
	}
}

// Connections of as many clients as there are, which say nothing and come faster than any is idle, don't
// end what is served to another.
func TestCrowdOfStrangers(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	c := newCrowd(4, func() time.Time { return now })
	out := false
	scrape := c.enter(clientOf("198.18.0.1:1"), func() { out = true })
	scrape.works(true)
	for i := range 1000 {
		now = now.Add(quiet / 10)
		c.enter(clientOf(fmt.Sprintf("[2001:db8:0:%x::1]:1", i)), func() {})
	}
	if out {
		t.Error("what was being served was ended for one that says nothing")
	}
}

func TestClientOf(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"198.18.0.1:80":             "198.18.0.1/32",
		"[::ffff:198.18.0.1]:80":    "198.18.0.1/32",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"@":                         "invalid Prefix",
		"":                          "invalid Prefix",
	} {
		if got := clientOf(remote).String(); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

// A thousand connections that say nothing don't keep one out that does.
func TestDoors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const most = 20
	c := newCrowd(most, time.Now)
	s := &http.Server{ConnState: connState, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "here")
	})}
	var served sync.WaitGroup
	served.Go(func() {
		if err := s.Serve(&doors{l, c}); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	for range 1000 {
		idle, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
	}
	for range 3 {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(body) != "here" {
			t.Errorf("%q, %v", body, err)
		}
	}
	c.mu.Lock()
	if n := len(c.guests); n > most {
		t.Errorf("%d connections", n)
	}
	c.mu.Unlock()
	_ = s.Close()
	served.Wait()
	lab.Eventually(t, 10*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.guests)+len(c.places) > 0 {
			return fmt.Errorf("%d connections are left", len(c.guests))
		}
		return nil
	})
}

// A connection keeps its place until its client has taken what was last said to it, or has
// had time for that.
func TestDoorsLastWords(t *testing.T) {
	t.Parallel()
	c := newCrowd(20, time.Now)
	words := strings.Repeat("x", 8_000) // more than its client has room for
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(words)))
		_, _ = io.WriteString(w, words)
	}))
	if err := narrow([]net.Listener{s.Listener}, 64<<10); err != nil {
		t.Fatal(err)
	}
	s.Listener = &doors{s.Listener, c}
	s.Config.ConnState = connState
	s.Start()
	defer s.Close()
	guests := func(want int) {
		t.Helper()
		lab.Eventually(t, 2*lastWords, func() error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.guests) != want {
				return fmt.Errorf("%d connections, want %d", len(c.guests), want)
			}
			return nil
		})
	}
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		e := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
		return cmp.Or(e, err)
	}}
	d.SetMultipathTCP(false)
	for _, reads := range []bool{true, false} {
		conn, err := d.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lastWords / 5)
		guests(1)
		if !reads {
			guests(0)
		}
		said, err := io.ReadAll(conn)
		if whole := err == nil && strings.HasSuffix(string(said), words); whole != reads {
			t.Errorf("reads %v: %d octets, %v", reads, len(said), err)
		}
		_ = conn.Close()
		guests(0)
	}
}

// A request ends with its connection, though there is more to read, which net/http takes for
// a sign of life.
func TestDoorsEndRequests(t *testing.T) {
	t.Parallel()
	came, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}))
	s.Listener = &doors{s.Listener, newCrowd(1, time.Now)}
	s.Config.ConnState, s.Config.ConnContext = connState, connContext
	s.Start()
	for range 2 { // of which the second takes the first's place, and each asks for more than is read at once
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: probed\r\n\r\n", 200)); err != nil {
			t.Fatal(err)
		}
		<-came
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a request is served whose connection has been reset")
	}
	s.CloseClientConnections()
	s.Config.Close()
}

// Within a small budget there is less for web clients, and else as much as ever.
func TestPlacesWithinABudget(t *testing.T) {
	for _, c := range []struct {
		budget         *memory.Budget
		places, header int
	}{
		{nil, 512, 12 << 10},
		{memory.Limited(0), 512, 12 << 10},
		{memory.Limited(256 << 20), 512, 12 << 10},
		{memory.Limited(128 << 20), 256, 8 << 10},
	} {
		d := &daemon{budget: c.budget}
		if most := d.crowd().most; most != c.places || d.longestHeader() != c.header {
			t.Errorf("%+v: %d, %d", c.budget, most, d.longestHeader())
		}
	}
}

// The listeners are TCP's: what a connection of Multipath TCP has not sent would outlive its
// place.
func TestListensByPlainTCP(t *testing.T) {
	t.Parallel()
	addresses, systemd := []string{"127.0.0.1:0"}, false
	d := &daemon{web: &web.FlagConfig{WebListenAddresses: &addresses, WebSystemdSocket: &systemd}}
	listeners, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(listeners)
	var multipath net.Dialer
	multipath.SetMultipathTCP(true)
	c, err := multipath.DialContext(t.Context(), "tcp", listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if is, err := c.(*net.TCPConn).MultipathTCP(); is || err != nil {
		t.Errorf("Multipath TCP is spoken: %v, %v", is, err)
	}
}
