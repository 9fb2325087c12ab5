package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	gopath "path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/ondemand"
	"github.com/probed/probed/internal/status"
)

// webGrace bounds how long running HTTP requests are waited for at the end.
const webGrace = time.Second

// listen opens the web listeners, those of systemd if it has been asked for.
func (d *daemon) listen() ([]net.Listener, error) {
	if *d.web.WebSystemdSocket {
		listeners, err := activation.Listeners()
		if err == nil && len(listeners) == 0 {
			err = errors.New("systemd passed no socket: start probed by its .socket unit")
		}
		// What is not a listener is nil: a datagram socket, a FIFO, a descriptor that is not there.
		if i := slices.Index(listeners, nil); err == nil && i >= 0 {
			err = fmt.Errorf("socket %d of those that systemd passed is none that listens: ListenStream is what its .socket unit may have", i+1)
		}
		if err != nil {
			return nil, fmt.Errorf("--web.systemd-socket: %w", err)
		}
		return listeners, nil
	}
	// Not Multipath TCP, which Go would have: what a client has not taken of its connection the
	// kernel keeps for a minute once we have closed.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	var listeners []net.Listener
	for _, address := range *d.web.WebListenAddresses {
		if strings.Contains(address, "://") {
			closeAll(listeners)
			return nil, fmt.Errorf("--web.listen-address=%s: not an address to listen on over TCP: write one such as :10965", address)
		}
		l, err := plain.Listen(context.Background(), "tcp", address)
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("--web.listen-address=%s: cannot listen: %w: choose a free address of this host, such as :10965", address, cause(err))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// narrow has the kernel keep so many octets at most of each connection that the listeners
// will accept, of what it has not sent or we have not read. It would let what a client
// leaves unread grow to 4 MiB, and counts it as a container's memory. 0 is no bound.
func narrow(listeners []net.Listener, octets int64) error {
	if octets == 0 {
		return nil
	}
	for _, l := range listeners {
		socket, ok := l.(syscall.Conn)
		if !ok {
			continue
		}
		raw, err := socket.SyscallConn()
		if err != nil {
			return fmt.Errorf("the web listener's buffers: %w", err)
		}
		// The kernel takes twice what it is told, for what it needs itself. Answers are
		// longer than requests.
		if e := raw.Control(func(fd uintptr) {
			err = cmp.Or(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, int(octets*3/8)),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, int(octets/8)),
			)
		}); cmp.Or(e, err) != nil {
			return fmt.Errorf("the web listener's buffers: %w", cmp.Or(e, err))
		}
	}
	return nil
}

// webConfigError puts what exporter-toolkit says about its file into one line.
func webConfigError(err error) string {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err.Error()
	}
	text := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n")
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return withoutSecrets(strings.Join(lines, "; "))
}

// withoutSecrets is what YAML says without what it quotes of a password or a key.
func withoutSecrets(text string) string {
	return unspaced.ReplaceAllStringFunc(unquoted.ReplaceAllString(text, "$1"), func(said string) string {
		parts := unspaced.FindStringSubmatch(said)
		key := parts[2]
		i := strings.IndexFunc(key, func(r rune) bool {
			return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
		})
		if i >= 0 {
			_, size := utf8.DecodeRuneInString(key[i:])
			key = key[:i+size] + "…"
		}
		return parts[1] + key + parts[3]
	})
}

// unspaced is what YAML says of a key, with what was meant to be its value right behind the colon,
// or behind what was meant to be one.
var unspaced = regexp.MustCompile("(?s)(field |key \")(.*?)(\"? (?:not found in type|already set in) )")

// unquoted is what YAML says of a password without quotes, with what it quotes of that.
var unquoted = regexp.MustCompile("(?s)(unknown anchor|cannot (?:decode|unmarshal) !!\\w+) (?:'.*' referenced|`.*`)")

// cause strips net.OpError's own words from its error.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// ownAddresses are those at which this host reaches its own web listeners, for
// the embedded default: loopback where they listen on every address.
func ownAddresses(listeners []net.Listener) ([]netip.AddrPort, error) {
	have, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	var own []netip.AddrPort
	for _, l := range listeners {
		tcp, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		ip := tcp.AddrPort().Addr().Unmap()
		all := []netip.Addr{ip}
		if ip.IsUnspecified() {
			all = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
			if ip.Is6() {
				all = append(all, netip.IPv6Loopback())
			}
		}
		for _, ip := range all {
			a := netip.AddrPortFrom(ip, uint16(tcp.Port))
			if slices.Contains(have, ip.WithZone("")) && !slices.Contains(own, a) {
				own = append(own, a)
			}
		}
	}
	return own, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// servers returns an HTTP server for each of n listeners: exporter-toolkit
// changes the server that it is given, so that two listeners can't share one.
func (d *daemon) servers(n int) ([]*http.Server, error) {
	pages, err := d.pages()
	if err != nil {
		return nil, err
	}
	routes := admitting(d.routes(pages))
	complain := log.New(webLog{sparingly(d.log, time.Now)}, "", 0)
	paces := newPaces(requestsPerSecond, requestsAtOnce)
	var trials *guesses // there are no passwords without a file: what comes by a proxy is for that
	if *d.web.WebConfigFile != "" {
		trials = newGuesses(time.Now)
	}
	servers := make([]*http.Server, n)
	for i := range servers {
		s := &http.Server{
			Handler:           routes,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    d.longestHeader(),
			// Else net/http itself answers OPTIONS *, before any handler and as often as asked.
			DisableGeneralOptionsHandler: true,
			Protocols:                    new(http.Protocols),
			ConnState:                    connState,
			ConnContext:                  connContext,
			ErrorLog:                     complain,
		}
		// No HTTP/2, whatever the web configuration says of it: a connection of it is many clients,
		// with frames, windows and memory that no bound here would see.
		s.Protocols.SetHTTP1(true)
		// exporter-toolkit puts its own handler before ours, and then serves. The guard
		// stands before both: what is too much must not get as far as to bcrypt.
		s.BaseContext = func(net.Listener) context.Context {
			s.Handler = &guard{next: s.Handler, hosts: d.hosts, guesses: trials, paces: paces, clock: time.Now}
			return context.Background()
		}
		s.RegisterOnShutdown(pages.Close)
		servers[i] = s
	}
	return servers, nil
}

// serveWeb serves until the server is shut down.
func (d *daemon) serveWeb(s *http.Server, l net.Listener) error {
	err := web.Serve(&doors{l, d.callers}, s, d.web, sparingly(d.log, time.Now)) // which complains at each request
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown ends servers once their running requests are done, or at once after
// webGrace.
func shutdown(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), webGrace)
	defer cancel()
	var done sync.WaitGroup
	for _, s := range servers {
		done.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
		})
	}
	done.Wait()
}

// pagesPaths are those of the pages beside the list at /.
var pagesPaths = []string{"/targets/", "/api/", "/static/", "/events"}

// routes returns the handler of every path.
func (d *daemon) routes(pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	metricsPath := d.metricsPath
	if metricsPath == "/" {
		metricsPath = "/{$}" // and nothing below it
	}
	mux.Handle("GET "+metricsPath, answers(mostScrapes).serve(d.metrics.Handler(prometheus.Gatherers{processMetrics(), d.discovery})))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		d.serveHealthy(w, time.Now())
	})
	mux.HandleFunc("GET /-/ready", d.serveReady)
	mux.Handle("POST /-/reload", lasting(reloadWait+reloadTime, newQueue(queueOptions{places: mostReloads, wait: reloadWait}, time.Now).serve(d.serveReload(sparingly(d.log, time.Now)))))
	mux.Handle("GET /probe", lasting(mostProbe, ondemand.New(ondemand.Options{
		Config: d.running, Once: d.roster.Once, Probes: d.roster.Probes, Names: d.roster.Names, FromHere: fromHere,
		Clock: time.Now, Log: sparingly(d.log, time.Now),
	})))
	mux.Handle("GET /debug/pprof/", d.profiles())
	some := answers(mostPages).serve(d.made(pages))
	mux.Handle("GET /config", some)
	mux.Handle("/targets/", some)
	mux.Handle("POST /targets/{id}/probe", lasting(status.ProbeTimeout, pages))
	mux.Handle("/api/", some)
	mux.Handle("/static/", some)
	mux.Handle("/events", newQueue(queueOptions{places: mostStreams, wait: streamWait, level: true}, time.Now).serve(pages))
	if d.metricsPath != "/" {
		mux.Handle("GET /{$}", some)
	}
	return mux
}

// made returns the handler of what is made in turn: the pages and the configuration.
func (d *daemon) made(pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.HandleFunc("GET /config", d.serveConfig)
	return inTurn(mux)
}

// answers is a queue for what is soon answered. One client has three quarters of the
// places at most, so that another's slow readers are in nobody's way.
func answers(places int) *queue {
	return newQueue(queueOptions{places: places, each: places - places/4, wait: scrapeWait, slow: slowReader}, time.Now)
}

// checkMetricsPath refuses a path that another page has, or that http.ServeMux
// would take for a pattern.
func checkMetricsPath(path string) error {
	taken := slices.Contains([]string{"/config", "/probe", "/-/healthy", "/-/ready", "/-/reload"}, path) ||
		strings.HasPrefix(path, "/debug/pprof") ||
		slices.ContainsFunc(pagesPaths, func(p string) bool { return strings.HasPrefix(path, strings.TrimSuffix(p, "/")) })
	u, err := url.Parse(path)
	switch {
	case taken:
		return fmt.Errorf("--web.telemetry-path=%s: another page has this path: choose a free one, such as /metrics", path)
	case err != nil || u.Path != path || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{} \t\r\n") || gopath.Clean(path) != path:
		return fmt.Errorf("--web.telemetry-path=%s: not a plain absolute path: write one such as /metrics", path)
	}
	return nil
}

// processMetrics are the Go runtime's and the process's.
func processMetrics() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func (d *daemon) serveReady(w http.ResponseWriter, _ *http.Request) {
	if !d.ready.Load() {
		http.Error(w, "probed is not ready.", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "probed is ready.")
}

// reloadTime is how long a reload may take.
const reloadTime = time.Minute

func (d *daemon) serveReload(log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := d.reload(log); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "configuration reloaded")
	})
}

func (d *daemon) serveConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(d.running().YAML())
}
