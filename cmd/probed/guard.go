package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// What web clients may have of this process.
const (
	mostConnections = 512
	mostScrapes     = 16
	mostPages       = 32
	mostStreams     = 64 // what the pages allow
	mostReloads     = 4

	scrapeWait = 10 * time.Second // for a place: what Prometheus waits by default
	streamWait = 2 * time.Second
	reloadWait = 30 * time.Second

	// slowReader is how long a client may keep what is written to it waiting before its
	// place goes to another that waits for one.
	slowReader = 3 * time.Second

	mostHeader  = 12 << 10 // octets
	shortHeader = 8 << 10  // of them, within a small budget
	mostFields  = 100      // of it: each takes many times the four octets that it may have
	mostKept    = 4 << 10  // octets of what is asked for, and of it that anything here looks at
	mostBody    = 16 << 10

	headerTimeout = 10 * time.Second // for a request's header, and for TLS's handshake
	readTimeout   = 20 * time.Second // for the whole of a request
	writeTimeout  = 30 * time.Second // for an answer, from the request on
	idleTimeout   = 2 * time.Minute
	mostProbe     = 2 * time.Minute // what /probe takes at most
)

// policy is the Content-Security-Policy of what has none of its own: nothing here is
// made to load anything.
const policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A guard stands before every path, and before TLS's and passwords' handler.
type guard struct {
	next    http.Handler
	hosts   []string // names to be called by; none for any
	origins http.CrossOriginProtection
	guesses *guesses // nil: there are no passwords to guess
	paces   *paces
	clock   func() time.Time
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Context().Err() != nil {
		return // its connection has been reset: what it had yet to ask gets nothing for it
	}
	if len(r.Trailer) > 0 {
		// Nothing here takes any. net/http makes a map of the names that they are announced by, thirty
		// times as long as they are, and keeps it for as long as there is the request: it ends here.
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if fields(r.Header) > mostFields {
		r.Header = nil // which would be kept while the answer waits
		h.Set("Connection", "close")
		http.Error(w, "too many fields in the header", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if len(r.RequestURI) > mostKept || len(r.Host) > mostKept || !keep(r.Header) {
		r.Header = nil
		r.URL, r.RequestURI, r.Host = &url.URL{Path: "/"}, "/", ""
		h.Set("Connection", "close")
		http.Error(w, "too much is asked for at once", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if code, ok := g.paces.wait(r.Context(), clientOf(r.RemoteAddr), g.clock()); !ok {
		if code != 0 {
			h.Set("Connection", "close")
			h.Set("Retry-After", "5")
			http.Error(w, "too many requests at once", code)
		}
		return
	}
	if !takeBody(w, r) {
		return
	}
	// No Host is HTTP/1.0's: a browser always sends one.
	if len(g.hosts) > 0 && r.Host != "" && !plainHost(r.Host) && !slices.Contains(g.hosts, hostname(r.Host)) {
		http.Error(w, "this probed is not called by the name in Host: see --web.allowed-host", http.StatusMisdirectedRequest)
		return
	}
	if g.origins.Check(r) != nil {
		http.Error(w, "another site's page asks for this: Sec-Fetch-Site or Origin says so", http.StatusForbidden)
		return
	}
	if g.guesses == nil {
		g.next.ServeHTTP(w, r)
		return
	}
	g.guesses.serve(w, r, g.next)
}

// read are the fields that something here looks at. Of those that say that a request has been
// passed on the name alone is.
var read = []string{
	"Accept", "Accept-Encoding", "Authorization", "If-Modified-Since", "If-None-Match", "If-Range", "Origin", "Range",
	"Sec-Fetch-Site", "User-Agent", "X-Prometheus-Scrape-Timeout-Seconds",
}

// keep takes out of a header what nothing here looks at: it would be kept while the request
// waits, and its answer. It reports whether what is left is short.
func keep(h http.Header) bool {
	octets := 0
	for name, values := range h {
		if !slices.Contains(read, name) {
			if passedOn(name) {
				h[name] = []string{""}
				octets += len(name)
			} else {
				delete(h, name)
			}
			continue
		}
		for _, v := range values {
			octets += len(v)
		}
	}
	return octets <= mostKept
}

// fields is how many a header has.
func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// checkHosts refuses what can be no name in Host, and brings the others into the form that
// they are compared in.
func (d *daemon) checkHosts() error {
	for i, name := range d.hosts {
		if name == "" || strings.ContainsAny(name, ":/[]*@ \t") {
			return fmt.Errorf("--web.allowed-host=%s: not a name without a port: write one such as probed.example.net", name)
		}
		d.hosts[i] = hostname(name)
	}
	return nil
}

// longestHeader is how many octets a request's may have: net/http keeps several of the kind
// for each connection while it reads one.
func (d *daemon) longestHeader() int {
	if d.budget.Part(mostHeader) < mostHeader {
		return shortHeader
	}
	return mostHeader
}

// takeBody reads what comes with a request and throws it away: nothing here needs it. It
// answers, and returns false, if that is more than a form's, or of a length that is not
// said before: a proxy might see another end of the request than we. No body remains
// unread, so that nothing that is read later is a part of it, and what takes long has
// no time-out on reading.
func takeBody(w http.ResponseWriter, r *http.Request) bool {
	connection := http.NewResponseController(w)
	refuse := func(code int, text string) bool {
		w.Header().Set("Connection", "close")
		http.Error(w, text, code)
		return false
	}
	switch {
	case r.ContentLength < 0 || len(r.TransferEncoding) > 0:
		return refuse(http.StatusLengthRequired, "a body needs a Content-Length here")
	case r.ContentLength > mostBody:
		return refuse(http.StatusRequestEntityTooLarge, "nothing here takes so long a body")
	case r.ContentLength > 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return refuse(http.StatusBadRequest, "GET takes no body here")
	case r.ContentLength > 0:
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return refuse(http.StatusBadRequest, "the body has not come")
		}
	}
	r.Body = http.NoBody
	// A server that can't set a deadline is one of a test.
	_ = connection.SetReadDeadline(time.Time{})
	return true
}

// lasting gives an answer that much more time to begin.
func lasting(d time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		_ = connection.SetWriteDeadline(time.Now().Add(d + writeTimeout))
		next.ServeHTTP(&late{ResponseWriter: w, connection: connection}, r)
	})
}

// late is the writer of an answer that may have taken long: from its first octet it has
// as much time as any.
type late struct {
	http.ResponseWriter
	connection *http.ResponseController
	begun      bool
}

func (w *late) begin() {
	if !w.begun {
		w.begun = true
		_ = w.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *late) WriteHeader(code int) {
	w.begin()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *late) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *late) Unwrap() http.ResponseWriter { return w.ResponseWriter }
