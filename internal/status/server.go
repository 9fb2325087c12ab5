package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
)

// A Handler serves the pages and the API.
type Handler struct {
	server *server
	routes http.Handler
}

// A server is what the pages have in common.
type server struct {
	Options
	pages  map[string]*template.Template // by name: list, target, error
	assets map[string]asset              // by path below /static/

	snapshots snapshots
	viewers   chan struct{} // one for each live stream
	limiter   *limiter
	running   context.Context // until the end
	end       context.CancelFunc
}

// New returns the handler of /, /targets/{id}, /events, /api/v1/ and /static/.
func New(o Options) (*Handler, error) {
	if o.Source == nil || o.Now == nil || o.Clock == nil {
		return nil, errors.New("status: Source, Now and Clock are needed")
	}
	s := &server{
		Options:   o,
		snapshots: snapshots{source: o.Source, clock: o.Clock},
		viewers:   make(chan struct{}, maxStreams),
		limiter:   newLimiter(),
	}
	s.running, s.end = context.WithCancel(context.Background())
	var err error
	if s.assets, err = loadAssets(); err != nil {
		return nil, fmt.Errorf("status: static files: %w", err)
	}
	if s.pages, err = s.loadPages(); err != nil {
		return nil, fmt.Errorf("status: templates: %w", err)
	}
	return &Handler{s, secure(s.routes())}, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.routes.ServeHTTP(w, r) }

// Close ends the live streams and probes that are waited for, so that the HTTP
// server's Shutdown need not: http.Server.RegisterOnShutdown takes it. It may be
// called more than once.
func (h *Handler) Close() { h.server.end() }

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.listPage)
	mux.HandleFunc("GET /targets/{id}", s.targetPage)
	mux.HandleFunc("POST /targets/{id}/probe", s.probeNow)
	mux.HandleFunc("GET /events", s.stream)
	mux.HandleFunc("GET /static/{file}", s.static)
	mux.HandleFunc("GET /api/v1/targets", s.apiTargets)
	mux.HandleFunc("GET /api/v1/targets/{id}", s.withTarget(s.apiTarget))
	mux.HandleFunc("GET /api/v1/targets/{id}/samples", s.withTarget(s.apiSamples))
	mux.HandleFunc("GET /api/v1/targets/{id}/transcripts", s.withTarget(s.apiTranscripts))
	mux.HandleFunc("GET /api/v1/targets/{id}/capture.pcapng", s.withTarget(s.apiCapture))
	mux.HandleFunc("/api/", apiElse)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, http.StatusNotFound, "There is no such page.")
	})
	return mux
}

// secure sets the headers that every answer has. The policy lets a page load and
// run only what comes from here, be framed by nobody, and post only to here.
func secure(next http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// A page is what templates/base.html takes. Body is what the page's own template
// finds as .Body.
type page struct {
	Title string
	Name  string // of the template, and of its style sheet and script in static/, where there are such: list, target, error
	Body  any

	Version, MetricsPath string // render's
}

// render answers with a page. It is made whole before the first octet is sent, so
// that an error in it is an error and not half a page.
func (s *server) render(w http.ResponseWriter, r *http.Request, code int, p page) {
	p.Version, p.MetricsPath = s.Version, s.MetricsPath
	var b bytes.Buffer
	if err := s.pages[p.Name].ExecuteTemplate(&b, "base.html", &p); err != nil {
		http.Error(w, "The page cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	send(w, r, code, "text/html; charset=utf-8", b.Bytes())
}

// A failure is what templates/error.html shows.
type failure struct {
	Text   string
	Target string // ID of the one to go back to; may be empty
}

// fail answers a browser with an error.
func (s *server) fail(w http.ResponseWriter, r *http.Request, code int, text string) {
	s.failAt(w, r, code, text, "")
}

// failAt is fail with a way back to a target's page.
func (s *server) failAt(w http.ResponseWriter, r *http.Request, code int, text, target string) {
	s.render(w, r, code, page{Title: http.StatusText(code), Name: "error", Body: failure{text, target}})
}
