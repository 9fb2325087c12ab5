package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
)

// guarded is a guard before a handler that says yes.
func guarded(hosts ...string) *guard {
	return &guard{hosts: hosts, guesses: newGuesses(time.Now), paces: newPaces(requestsPerSecond, requestsAtOnce), clock: time.Now, next: admitting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))}
}

func TestGuardHeaders(t *testing.T) {
	t.Parallel()
	for _, r := range []*http.Request{
		httptest.NewRequest("GET", "/", nil),
		httptest.NewRequest("GET", "/", strings.NewReader("refused")),
	} {
		w := httptest.NewRecorder()
		guarded().ServeHTTP(w, r)
		for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy",
			"Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy", "Cache-Control"} {
			if w.Header().Get(name) == "" {
				t.Errorf("%d without %s", w.Code, name)
			}
		}
	}
}

// A request that nobody waits for any more gets nowhere.
func TestGuardReset(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := guarded()
	g.next = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is served") })
	g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
}

// A header of many fields is not kept.
func TestGuardFields(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{mostFields: 204, mostFields + 1: 431} {
		for _, name := range []string{"Same", "Another%d"} {
			r := httptest.NewRequest("GET", "/", nil)
			for i := range n {
				if strings.Contains(name, "%") {
					r.Header.Add(fmt.Sprintf(name, i), "")
				} else {
					r.Header.Add(name, "")
				}
			}
			w := httptest.NewRecorder()
			guarded().ServeHTTP(w, r)
			if w.Code != want || (want == 431) != (r.Header == nil) {
				t.Errorf("%d fields: %d, %d kept", n, w.Code, len(r.Header))
			}
			if closes := w.Header().Get("Connection") == "close"; closes != (want == 431) {
				t.Errorf("%d fields: closes the connection: %t", n, closes)
			}
		}
	}
}

// What nothing here looks at is not kept while a request waits, nor is much of the rest.
func TestGuardKeeps(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", mostKept)
	for _, c := range []struct {
		uri, name, value string
		want             int
	}{
		{"/", "X-Any", long, 204},
		{"/", "Cookie", long, 204},
		{"/", "Accept", "text/plain", 204},
		{"/", "Accept", long + "x", 431},
		{"/?" + long, "Accept", "text/plain", 431},
		{"/", "X-Forwarded-" + long, "", 431},
	} {
		r := httptest.NewRequest("GET", c.uri, nil)
		r.Header.Set(c.name, c.value)
		w := httptest.NewRecorder()
		guarded().ServeHTTP(w, r)
		kept := len(r.RequestURI)
		for name, values := range r.Header {
			kept += len(name) + len(strings.Join(values, ""))
		}
		if w.Code != c.want || kept > 100 {
			t.Errorf("%.20s, %s of %d octets: %d, %d octets kept", c.uri, c.name, len(c.value), w.Code, kept)
		}
	}
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	r.Host = long + "x"
	if guarded().ServeHTTP(w, r); w.Code != 431 || r.Host != "" {
		t.Errorf("Host of %d octets: %d", len(long)+1, w.Code)
	}
	r = httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1"
	r.Header.Set("X-Forwarded-For", long)
	guarded().ServeHTTP(httptest.NewRecorder(), r)
	if fromHere(r) {
		t.Error("what has been passed on is taken for this host's")
	}
}

func TestGuardBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method string
		length int
		said   int64
		want   int
	}{
		{"GET", 0, 0, 204},
		{"POST", 0, 0, 204},
		{"POST", 100, 100, 204},
		{"POST", mostBody, mostBody, 204},
		{"POST", mostBody + 1, mostBody + 1, 413},
		{"POST", 10, -1, 411},
		{"POST", 10, 20, 400},
		{"GET", 1, 1, 400},
		{"HEAD", 1, 1, 400},
	} {
		r := httptest.NewRequest(c.method, "/", strings.NewReader(strings.Repeat("x", c.length)))
		r.ContentLength = c.said
		if c.said > int64(c.length) {
			r.Body = http.MaxBytesReader(nil, r.Body, 5) // fails on the way
		}
		w := httptest.NewRecorder()
		guarded().ServeHTTP(w, r)
		if w.Code != c.want || (w.Header().Get("Connection") == "close") != (c.want != 204) {
			t.Errorf("%+v: %d, Connection: %q", c, w.Code, w.Header().Get("Connection"))
		}
	}
}

// What takes long to begin has no longer to be read than anything else.
func TestLasting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		lasting(time.Hour, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Minute)
			for range 3 {
				_, _ = w.Write([]byte("late"))
			}
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		want := []time.Time{began.Add(time.Hour + writeTimeout), began.Add(time.Minute + writeTimeout)}
		if !slices.Equal(w.set, want) {
			t.Errorf("deadlines %v, want %v", w.set, want)
		}
	})
}

// deadlined notes the write deadlines that are set.
type deadlined struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlined) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

func TestGuardOrigins(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, header, value string
		want                  int
	}{
		{"POST", "", "", 204}, // curl, a script
		{"POST", "Sec-Fetch-Site", "same-origin", 204},
		{"POST", "Sec-Fetch-Site", "none", 204},
		{"POST", "Origin", "http://example.com", 204}, // httptest's Host
		{"POST", "Sec-Fetch-Site", "cross-site", 403},
		{"POST", "Sec-Fetch-Site", "same-site", 403},
		{"POST", "Origin", "http://evil.example", 403},
		{"POST", "Origin", "null", 403},
		{"DELETE", "Origin", "null", 403},
		{"GET", "Sec-Fetch-Site", "cross-site", 204},
	} {
		r := httptest.NewRequest(c.method, "/-/reload", nil)
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		w := httptest.NewRecorder()
		guarded().ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}

func TestGuardHosts(t *testing.T) {
	t.Parallel()
	d := daemon{hosts: []string{"Probed.example.net."}}
	if err := d.checkHosts(); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"probed.example.net:10965": 204, "PROBED.example.net": 204, "198.18.0.1:10965": 204, "[2001:db8::1]": 204, "localhost:1": 204,
		"rebound.example.net:10965": 421, "probed": 421, "": 204, "probed.example.net.evil.example": 421,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		guarded(d.hosts...).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
		w = httptest.NewRecorder()
		guarded().ServeHTTP(w, r)
		if w.Code != 204 {
			t.Errorf("%q where any name will do: %d", host, w.Code)
		}
	}
	for _, bad := range []string{"", "probed:10965", "http://probed", "*.example.net", "a b"} {
		if err := (&daemon{hosts: []string{bad}}).checkHosts(); err == nil || !strings.HasPrefix(err.Error(), "--web.allowed-host=") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Passwords that were right go on; others are tried a few at a time, and then one a
// second of each client.
func TestGuesses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looked := 0
		g := newGuesses(time.Now)
		inner := admitting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		right := "right"
		auth := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			looked++
			if _, password, _ := r.BasicAuth(); password != right {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			inner.ServeHTTP(w, r)
		})
		ask := func(from, password string) int {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = from
			if password != "" {
				r.SetBasicAuth("prometheus", password)
			}
			w := httptest.NewRecorder()
			g.serve(w, r, auth)
			return w.Code
		}
		const good, evil = "198.18.0.1:4711", "198.18.0.2:4711"
		if code := ask(good, "right"); code != 204 {
			t.Fatalf("the right one: %d", code)
		}
		codes := make(map[int]int)
		for i := range 1000 {
			codes[ask(evil, string(rune('a'+i%26))+"wrong")]++
			if code := ask(good, "right"); code != 204 {
				t.Fatalf("the right one, after %d guesses: %d", i, code)
			}
		}
		if codes[401] != guessesAtOnce || codes[429] != 1000-guessesAtOnce {
			t.Errorf("guesses: %v", codes)
		}
		if code := ask(evil, ""); code != 401 {
			t.Errorf("without a password: %d", code)
		}
		if code := ask(evil, "right"); code != 204 {
			t.Errorf("known to be right, from there: %d", code)
		}
		right = "another"
		if code := ask(good, "right"); code != 401 {
			t.Errorf("right no more: %d", code)
		}
		for range guessesAtOnce { // what was right is a guess now
			ask(good, "right")
		}
		if code := ask(good, "right"); code != 429 {
			t.Errorf("right no more, tried again: %d", code)
		}
		time.Sleep(time.Second)
		if code := ask(good, "another"); code != 204 {
			t.Errorf("a second later: %d", code)
		}
		for i := range 3 * mostClients {
			ask(clientAddress(i), "wrong")
		}
		for i := range 3 * mostKnown {
			g.learn([32]byte{byte(i), byte(i >> 8)})
		}
		if len(g.known) > mostKnown || len(g.each.known) > mostClients || len(g.others.inside)+len(g.unblemished.inside) > 0 {
			t.Errorf("%d known, %d guessers, %d under way", len(g.known), len(g.each.known), len(g.others.inside)+len(g.unblemished.inside))
		}
	})
}

// clientAddress is the nth of many clients.
func clientAddress(n int) string { return fmt.Sprintf("198.18.%d.%d:1", n>>8&255, n&255) }

// Whoever guesses waits, a few are looked at at a time, and who knows the password gets in
// beside a hundred that try again and again.
func TestGuessesAtTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(time.Now)
		var looking, most atomic.Int32
		inner := admitting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		auth := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), looking.Add(1)))
			time.Sleep(100 * time.Millisecond) // as bcrypt takes
			looking.Add(-1)
			if _, password, _ := r.BasicAuth(); password != "right" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			inner.ServeHTTP(w, r)
		})
		ask := func(from, password string) int {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.RemoteAddr = from
			r.SetBasicAuth("prometheus", password)
			w := httptest.NewRecorder()
			g.serve(w, r, auth)
			return w.Code
		}
		began := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				for i := 0; time.Since(began) < time.Minute; i++ {
					ask(clientAddress(n), fmt.Sprint("wrong", i))
					time.Sleep(250 * time.Millisecond)
				}
			})
		}
		time.Sleep(15 * time.Second)
		for n := range 9 {
			if code := ask(fmt.Sprintf("198.19.0.%d:1", n), "right"); code != 204 {
				t.Errorf("the right one, of another client: %d", code)
			}
			g.mu.Lock()
			clear(g.known) // as after a restart
			g.mu.Unlock()
			time.Sleep(time.Second)
		}
		all.Wait()
		if n := most.Load(); n > 2*guessing {
			t.Errorf("%d looked at at the same time", n)
		}
	})
}

// A client is served at its pace, whatever it sends; others don't wait for it.
func TestPaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := guarded()
		var served, refused atomic.Int64
		var all sync.WaitGroup
		began := time.Now()
		for range requestsAtOnce + 10*requestsPerSecond {
			all.Go(func() {
				r := httptest.NewRequest("GET", "/", nil)
				r.RemoteAddr = clientAddress(1)
				w := httptest.NewRecorder()
				g.ServeHTTP(w, r)
				switch w.Code {
				case 204:
					served.Add(1)
				case 429:
					refused.Add(1)
				default:
					t.Errorf("%d", w.Code)
				}
			})
		}
		synctest.Wait()
		if n := served.Load(); n != requestsAtOnce {
			t.Errorf("%d at once", n)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 204 || time.Since(began) != 0 {
			t.Errorf("another client: %d after %v", w.Code, time.Since(began))
		}
		all.Wait()
		if s, r := served.Load(), refused.Load(); s != requestsAtOnce+5*requestsPerSecond || r != 5*requestsPerSecond || time.Since(began) != longestWait {
			t.Errorf("%d served, %d refused, after %v", s, r, time.Since(began))
		}
	})
}

func TestWebLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		l := webLog{sparingly(slog.New(slog.NewTextHandler(&said, nil)), time.Now)}
		for range 1000 {
			_, _ = l.Write([]byte("http: TLS handshake error from 198.18.0.1:4711: EOF\n"))
		}
		if n := strings.Count(said.String(), "\n"); n != 5 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(10 * time.Second)
		_, _ = l.Write([]byte("again\n"))
		if !strings.Contains(said.String(), "msg=again more_unsaid=995") {
			t.Errorf("said\n%s", said.String())
		}
	})
}

// However a log is written to, its lines are counted together.
func TestSparingly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		l := sparingly(slog.New(slog.NewTextHandler(&said, nil)), time.Now)
		for range 10 {
			l.Warn("one")
			l.With("a", 1).Error("two")
			l.WithGroup("g").Info("three", "b", 2)
		}
		if n := strings.Count(said.String(), "\n"); n != sparingAtOnce {
			t.Errorf("%d lines", n)
		}
		time.Sleep(sparingEvery)
		said.Reset()
		l.Info("again")
		if !strings.Contains(said.String(), "msg=again more_unsaid=25") {
			t.Errorf("said %s", said.String())
		}
	})
}

// Who announces trailers has the request ended.
func TestGuardTrailers(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/", nil)
	r.Trailer = http.Header{"Any": nil}
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Error("it was served")
		}
	}()
	guarded().ServeHTTP(httptest.NewRecorder(), r)
}

// The web configuration is read for each request and each handshake: what becomes wrong with it
// while we run is logged without the password that it may be about.
func TestWebLogQuotesNoPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.yml")
	for _, password := range []string{"{u: *hush }", "{u: !!int hush }", `{u: !!int "a\nhush" }`, "{u: !!float hush }", "{u: !!bool hush }", "{u:hush, u:hush}",
		"{}\ntls_server_config: {key:hush}", "{}\ntls_server_config: {key:hush hush, key:hush hush}",
		"{u=hush, u=hush}", "{}\ntls_server_config: {key=hush}", "{}\ntls_server_config: {key hush}", "{}\ntls_server_config: {a key:hush}", "{}\ntls_server_config: {key：hush}"} {
		if err := os.WriteFile(file, []byte("basic_auth_users: "+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := web.Validate(file)
		if err == nil {
			t.Errorf("%s is no error", password)
			continue
		}
		var said strings.Builder
		l := sparingly(slog.New(slog.NewTextHandler(&said, nil)), time.Now)
		l.Error("Unable to parse configuration", "err", err.Error())
		_, _ = webLog{l}.Write([]byte("http: TLS handshake error from 198.18.0.1:4711: " + err.Error() + "\n"))
		if s := said.String(); strings.Contains(s, "hush") || strings.Count(s, "yaml: ") != 2 {
			t.Errorf("%s: said\n%s", password, s)
		}
	}
}
