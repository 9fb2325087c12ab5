package trust

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A webWorld is a probed that a stranger's clients attack over the network, while it
// probes and is scraped over loopback.
type webWorld struct {
	t           *testing.T
	here, there *lab.Host
	d           *daemon
	at          string // its web listener, from there
	targets     int
}

const webYAML = "jobs:\n- {name: web, interval: 200ms, timeout: 150ms, targets: [%s]}\n"

// webTargets is how many there are.
const webTargets = 20

func newWebWorld(t *testing.T, options ...option) *webWorld {
	t.Helper()
	return newWebWorldOf(t, webTargets, webYAML, options...)
}

// newWebWorldOf has so many targets instead.
func newWebWorldOf(t *testing.T, n int, yaml string, options ...option) *webWorld {
	t.Helper()
	here, there := lab.Pair(t)
	there.AnyIP("198.19.0.0/24")
	there.Sysctl("net.core.somaxconn", "65535")
	there.Listen("tcp", "0.0.0.0:80")
	var targets []string
	for i := range n {
		port := 80 + i/250
		if i%250 == 0 && i > 0 {
			there.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		}
		targets = append(targets, fmt.Sprintf("'%s:%d'", stranger(i), port))
	}
	w := &webWorld{t: t, here: here, there: there, at: net.JoinHostPort(here.Addr4().String(), "10965"), targets: n}
	w.d = launch(t, here, fmt.Sprintf(yaml, strings.Join(targets, ", ")), options...)
	return w
}

// ready waits until it probes.
func (w *webWorld) ready() {
	w.t.Helper()
	w.d.awaitReady()
	lab.Eventually(w.t, patience, func() error { return atLeast(w.d.scrape(), float64(3*w.targets)) })
}

// dial connects from there, with a receive buffer of so many octets, 0 for the usual.
func (w *webWorld) dial(buffer int) (net.Conn, error) { return w.dialFrom("", buffer) }

// dialFrom connects from one of the addresses there, "" for the usual.
func (w *webWorld) dialFrom(address string, buffer int) (net.Conn, error) {
	var d net.Dialer
	d.Timeout = patience
	if address != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(address)}
	}
	d.SetMultipathTCP(false)
	if buffer > 0 {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			if e := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffer)
			}); e != nil {
				return e
			}
			return err
		}
	}
	var c net.Conn
	var err error
	w.there.Do(func() { c, err = d.Dial("tcp", w.at) })
	return c, err
}

// under attacks probed and meanwhile scrapes it, and then books what came of it: every
// probe succeeds, every scrape does, and descriptors and goroutines are what they were.
// attack returns how many connections or requests it made.
func (w *webWorld) under(what, of string, attack func() (tried int, note string)) {
	t := w.t
	t.Helper()
	w.d.http.CloseIdleConnections()
	before := w.d.scrape()
	pid := w.d.cmd.Process.Pid
	files, goroutines := descriptors(t, pid), before.sum("go_goroutines")
	ctx, stop := context.WithCancel(t.Context())
	var scraping sync.WaitGroup
	var greatest time.Duration
	scrapes := 0
	scraping.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			resp, err := w.d.http.Get(w.d.base + "/metrics")
			if err != nil {
				t.Errorf("%s: a scrape: %v", what, err)
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s: a scrape: %s %v", what, resp.Status, err)
				return
			}
			greatest = max(greatest, time.Since(began))
			scrapes++
			time.Sleep(20 * time.Millisecond)
		}
	})
	tried, note := attack()
	stop()
	scraping.Wait()
	ended := time.Now()
	left := 0
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		w.d.http.CloseIdleConnections()
		now := w.d.scrape()
		more, others := descriptors(t, pid)-files, int(now.sum("go_goroutines")-goroutines)
		if more <= 3 && others <= 6 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %d descriptors and %d goroutines more than before", what, more, others)
			left = max(more, others)
			break
		}
	}
	after := w.d.scrape()
	if note != "" {
		note = "; " + note
	}
	book(t, Row{
		Part: "web", What: what, Tried: tried, Of: of,
		Probes:    int(after.sum("probed_probes_total") - before.sum("probed_probes_total")),
		False:     int(after.sum("probed_probe_failures_total") - before.sum("probed_probe_failures_total")),
		Discarded: int(after.sum("probed_probes_discarded_total") - before.sum("probed_probes_discarded_total") + after.sum("probed_probes_skipped_total") - before.sum("probed_probes_skipped_total")),
		Recovery:  time.Since(ended), Left: left,
		Note: fmt.Sprintf("%d scrapes, the greatest %s%s", scrapes, short(greatest), note),
	})
	if n := after.sum("probed_probes_total") - before.sum("probed_probes_total"); n == 0 {
		t.Errorf("%s: no probe was made", what)
	}
}

// all does something so many times, so many at once.
func all(n, at int, f func(i int)) {
	var group sync.WaitGroup
	var next atomic.Int64
	for range at {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	group.Wait()
}

// hold opens n connections and says something on each.
func (w *webWorld) hold(n int, say string) []net.Conn {
	var mu sync.Mutex
	var held []net.Conn
	all(n, 8, func(int) {
		c, err := w.dial(0)
		if err != nil {
			w.t.Errorf("a connection: %v", err)
			return
		}
		_, _ = io.WriteString(c, say) // it may have been closed already
		mu.Lock()
		defer mu.Unlock()
		held = append(held, c)
	})
	return held
}

func closeConns(all []net.Conn) {
	for _, c := range all {
		if c != nil {
			_ = c.Close()
		}
	}
}

// ask makes a request from there, as the attackers do, and returns the status code.
func (w *webWorld) ask(request string) (int, error) {
	c, err := w.dial(0)
	return answer(c, err, request)
}

// askFrom makes one from another address there.
func (w *webWorld) askFrom(address, request string) (int, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	d.SetMultipathTCP(false)
	var c net.Conn
	var err error
	w.there.Do(func() { c, err = d.Dial("tcp", w.at) })
	return answer(c, err, request)
}

// answer asks on a new connection.
func answer(c net.Conn, err error, request string) (int, error) {
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

const plainScrape = "GET /metrics HTTP/1.1\r\nHost: probed\r\nConnection: close\r\n\r\n"

// TestWebConnections holds connections that never come to the point.
func TestWebConnections(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	w.ready()
	most := 0
	holding := func(n int, say string, meanwhile func([]net.Conn)) func() (int, string) {
		return func() (int, string) {
			held := w.hold(n, say)
			defer closeConns(held)
			// Whoever has been cut off got a RST, and our kernel has nothing of it to keep. Its
			// client has closed nothing yet.
			waits := 0
			for _, s := range lab.SS(w.here) {
				if strings.HasPrefix(s.State, "FIN-WAIT") {
					waits++
				}
			}
			if waits > 20 { // what asked for a page and was answered closes as ever
				t.Errorf("%d connections are left in FIN-WAIT", waits)
			}
			if meanwhile != nil {
				meanwhile(held)
			}
			most = max(most, descriptors(t, w.d.cmd.Process.Pid))
			// A client of the attacker's own address gets in as well.
			began := time.Now()
			for range 5 {
				if code, err := w.ask(plainScrape); err != nil || code != 200 {
					t.Errorf("a scrape from the attacker's address: %d %v", code, err)
				}
			}
			return n, fmt.Sprintf("from the attacker's own address %s", short(time.Since(began)/5))
		}
	}
	slowly := func(text string) func([]net.Conn) {
		return func(held []net.Conn) {
			for i := range times(100, 10) {
				for _, c := range held {
					_, _ = c.Write([]byte{text[i%len(text)]})
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	w.under("idle connections", "connections", holding(times(10000, 2000), "", nil))
	w.under("headers that never end (slow loris)", "connections", holding(times(3000, 600), "GET / HTTP/1.1\r\nHost: probed\r\nX-Slow: ", slowly("loris")))
	w.under("bodies that never end", "connections", holding(times(3000, 600), "POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: 10000\r\n\r\n", slowly("x")))
	w.under("kept-alive connections", "connections", holding(times(3000, 600), "GET /-/healthy HTTP/1.1\r\nHost: probed\r\n\r\n", nil))
	if most > 1000 {
		t.Errorf("%d descriptors", most)
	}
}

// TestWebCrowds has many clients, and one, scrape again and again. A client of another
// address and one of theirs are served beside them.
func TestWebCrowds(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	w.ready()
	for _, c := range []struct {
		what     string
		from, at int // addresses, and clients of each
	}{
		{"scrapes of many addresses", 40, 1},
		{"scrapes of one address, 60 at once", 1, 60},
	} {
		w.under(c.what, "requests", func() (int, string) {
			var tried, cut, refused atomic.Int64
			var group sync.WaitGroup
			until := time.Now().Add(time.Duration(times(30, 3)) * time.Second)
			for i := range c.from * c.at {
				group.Go(func() {
					for time.Now().Before(until) {
						code, err := w.askFrom(fmt.Sprintf("198.19.0.%d", 100+i/c.at), plainScrape)
						tried.Add(1)
						switch {
						case err != nil || code != 200 && code != 503:
							cut.Add(1)
						case code == 503:
							refused.Add(1)
						}
					}
				})
			}
			served, asked := 0, 0
			for time.Now().Before(until) {
				asked++
				if code, err := w.askFrom("198.19.0.100", plainScrape); err == nil && code == 200 {
					served++
				}
				time.Sleep(100 * time.Millisecond)
			}
			group.Wait()
			if cut.Load() > 0 || served*10 < asked*9 {
				t.Errorf("%s: %d of %d cut off; of one of their addresses %d of %d scrapes served", c.what, cut.Load(), tried.Load(), served, asked)
			}
			return int(tried.Load()), fmt.Sprintf("%d told to come again; from one of their addresses %d of %d", refused.Load(), served, asked)
		})
	}
}

// webPaths are one of each kind.
func (w *webWorld) webPaths() []string {
	w.t.Helper()
	_, body := w.d.do("GET", "/api/v1/targets?limit=1")
	_, rest, ok := strings.Cut(body, `"id":"`)
	if !ok {
		w.t.Fatalf("no target:\n%s", body)
	}
	id := rest[:16]
	return []string{"/", "/targets/" + id, "/metrics", "/config", "/api/v1/targets", "/api/v1/targets/" + id, "/api/v1/targets/" + id + "/samples",
		"/api/v1/targets/" + id + "/transcripts", "/api/v1/targets/" + id + "/capture.pcapng", "/events", "/static/list.js",
		"/probe?target=198.19.0.1:80", "/debug/pprof/", "/-/healthy", "/-/ready", "/nowhere"}
}

// TestWebSlowReaders ask for every path, again and again, and read nothing. At full
// length it waits until probed has done with all of them.
func TestWebSlowReaders(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	w.ready()
	paths := w.webPaths()
	each := times(60, 10)
	w.under("readers of every path that don't read", "connections", func() (int, string) {
		var mu sync.Mutex
		var held []net.Conn
		all(each*len(paths), 8, func(i int) {
			c, err := w.dial(4096)
			if err != nil {
				t.Errorf("a connection: %v", err)
				return
			}
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.WriteString(c, strings.Repeat("GET "+paths[i%len(paths)]+" HTTP/1.1\r\nHost: probed\r\n\r\n", 500)) // as far as it takes them
			mu.Lock()
			defer mu.Unlock()
			held = append(held, c)
		})
		defer closeConns(held)
		if !full() {
			time.Sleep(2 * time.Second)
			return len(held), ""
		}
		// A write deadline and the next request's, and whoever has been cut off is gone.
		began := time.Now()
		lab.Eventually(t, 3*time.Minute, func() error {
			if n := len(lab.SS(w.here, "ESTAB")); n > 3 {
				return fmt.Errorf("%d connections are open", n)
			}
			return nil
		})
		return len(held), fmt.Sprintf("all cut off after %s", short(time.Since(began)))
	})
}

// TestWebRequests floods with requests that are many, huge or ambiguous.
func TestWebRequests(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	w.ready()
	w.under("requests in a pipeline", "requests", func() (int, string) {
		piped := times(500, 100)
		var answered atomic.Int64
		all(times(200, 20), 4, func(int) {
			c, err := w.dial(0)
			if err != nil {
				t.Errorf("a connection: %v", err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			go func() {
				_, _ = io.WriteString(c, strings.Repeat("GET /-/healthy HTTP/1.1\r\nHost: probed\r\n\r\n", piped))
			}()
			r := bufio.NewReader(c)
			for range piped {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("an answer: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				answered.Add(1)
			}
		})
		return int(answered.Load()), ""
	})
	w.under("headers beyond 32 KiB", "requests", func() (int, string) {
		n := times(2000, 100)
		all(n, 4, func(i int) {
			request := "GET / HTTP/1.1\r\nHost: probed\r\n" + strings.Repeat("X-Huge: "+strings.Repeat("x", 1000)+"\r\n", 60+i%10) + "\r\n"
			code, err := w.ask(request)
			if err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("a huge header: %d", code)
			}
			// Or a RST that overtakes the answer, since we were not done with sending.
			if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("a huge header: %v", err)
			}
		})
		return n, ""
	})
	w.under("pages, one after the other", "requests", func() (int, string) {
		paths := w.webPaths()[:9]
		var mu sync.Mutex
		codes := make(map[int]int)
		n := times(10000, 800)
		all(n, 16, func(i int) {
			code, err := w.ask("GET " + paths[i%len(paths)] + " HTTP/1.1\r\nHost: probed\r\nConnection: close\r\n\r\n")
			if err != nil {
				code = 0 // it gave its place to another
			}
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
		if codes[200] < n*9/10 {
			t.Errorf("answers %v", codes)
		}
		return n, ""
	})
	w.under("bodies and lengths that two readers would see differently", "requests", func() (int, string) {
		smuggled := "GET /smuggled HTTP/1.1\r\nHost: probed\r\n\r\n"
		length := fmt.Sprintf("Content-Length: %d\r\n", len(smuggled))
		shapes := []string{
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\n" + length + "Content-Length: 0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: +0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: 0x0\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: -1\r\n\r\n",
			"POST /-/reload HTTP/1.1\r\nHost: probed\r\nContent-Length: 99999999999999999999\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: probed\r\n" + length + "\r\n",
			"GET / HTTP/1.1\r\nHost: probed\r\nX: a\rContent-Length: 0\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: probed\r\nHost: other\r\n\r\n",
			"GET / HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: pro bed\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: probed\r\n X: folded\r\nContent-Length : 0\r\n\r\n",
			"GET /\x00 HTTP/1.1\r\nHost: probed\r\n\r\n",
			"GET / HTTP/9.9\r\nHost: probed\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		}
		repeated := times(50, 2)
		for i := range repeated * len(shapes) {
			shape := shapes[i%len(shapes)]
			c, err := w.dial(0)
			if err != nil {
				t.Errorf("a connection: %v", err)
				continue
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, shape+smuggled)
			said, err := io.ReadAll(c)
			_ = c.Close()
			if err != nil && !errors.Is(err, syscall.ECONNRESET) { // which is a refusal too
				t.Errorf("%q: not closed: %v", shape, err)
			}
			if n := strings.Count(string(said), "HTTP/1."); n > 1 || strings.HasPrefix(string(said), "HTTP/1.1 2") {
				t.Errorf("%q: answered %d times:\n%.300s", shape, n, said)
			}
		}
		return repeated * len(shapes), ""
	})
	w.under("markup in what is asked for", "requests", func() (int, string) {
		const markup = "%3Cscript%3Ealert(1)%3C/script%3E"
		n := 0
		for _, path := range []string{"/" + markup, "/targets/" + markup, "/targets/a/" + markup, "/static/" + markup, "/api/v1/targets/" + markup, "/api/v1/" + markup,
			"/?q=" + markup, "/?sort=" + markup, "/?state=" + markup, "/?group=" + markup, "/?page=" + markup, "/events?sort=" + markup, "/api/v1/targets?sort=" + markup,
			"/api/v1/targets?limit=" + markup, "/probe?target=" + markup, "/probe?target=198.19.0.1:80&module=" + markup, "/probe?target=" + markup + ":80&debug=true",
			"/debug/pprof/" + markup, "/-/" + markup} {
			n++
			c, err := w.dial(0)
			if err != nil {
				t.Errorf("a connection: %v", err)
				continue
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: probed\r\nConnection: close\r\nX-Prometheus-Scrape-Timeout-Seconds: <script>\r\n\r\n")
			said, err := io.ReadAll(c)
			_ = c.Close()
			text := string(said)
			plain := strings.Contains(text, "Content-Type: text/plain") || strings.Contains(text, "Content-Type: application/json")
			if err != nil || !strings.Contains(text, "X-Content-Type-Options: nosniff") || strings.Contains(text, "<script>") && !plain {
				t.Errorf("%s: %v\n%.1000s", path, err, text)
			}
		}
		return n, ""
	})
	w.under("methods that a path does not have", "requests", func() (int, string) {
		n := 0
		for _, path := range w.webPaths() {
			for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
				n++
				code, err := w.ask(method + " " + path + " HTTP/1.1\r\nHost: probed\r\nConnection: close\r\n\r\n")
				if err != nil || code != 405 && code != 404 && code != 400 {
					t.Errorf("%s %s: %d %v", method, path, code, err)
				}
			}
		}
		return n, ""
	})
	w.under("another site's page posts", "requests", func() (int, string) {
		reloads := func() float64 { return w.d.scrape().sum("probed_config_last_reload_success_timestamp_seconds") }
		before, n := reloads(), times(200, 10)
		for i := range n {
			header := []string{"Sec-Fetch-Site: cross-site", "Origin: http://evil.test", "Origin: null", "Sec-Fetch-Site: same-site"}[i%4]
			if code, err := w.ask("POST /-/reload HTTP/1.1\r\nHost: probed\r\n" + header + "\r\nConnection: close\r\n\r\n"); code != 403 {
				t.Errorf("%s: %d %v", header, code, err)
			}
		}
		if after := reloads(); after != before {
			t.Error("the configuration was reloaded")
		}
		if code, err := w.ask("POST /-/reload HTTP/1.1\r\nHost: probed\r\nConnection: close\r\n\r\n"); code != 200 {
			t.Errorf("a script's: %d %v", code, err)
		}
		return n, ""
	})
	w.under("profiles asked for from elsewhere", "requests", func() (int, string) {
		n := times(200, 10)
		for i := range n {
			path := []string{"/debug/pprof/profile", "/debug/pprof/goroutine?debug=2", "/debug/pprof/", "/debug/pprof/trace?seconds=1000"}[i%4]
			if code, err := w.ask("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"); code != 403 {
				t.Errorf("%s: %d %v", path, code, err)
			}
		}
		return n, ""
	})
}
