// Package ondemand is the multi-target pattern: Prometheus names a target and a
// module in the scrape's URL, one probe is made, and what it saw is the scrape's
// result.
package ondemand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

const (
	// DefaultModule is what a scrape that names none has its target probed with.
	DefaultModule = "half_open"
	// longest bounds a probe of a scrape that says nothing of its timeout.
	longest = 2 * time.Minute
	// margin is what of a scrape's timeout is left for the way of the answer.
	margin = 500 * time.Millisecond
	// patience is how long a probe may take beyond what its module says.
	patience = 10 * time.Second
	// most is how many probes are made at once, and each how many for one client that is
	// not this host.
	most = 64
	each = most / 2
	// debugWidth is the width of the ladder, in columns.
	debugWidth = 120
)

// timeoutHeader is how Prometheus says how long it waits, in seconds.
const timeoutHeader = "X-Prometheus-Scrape-Timeout-Seconds"

// Options are what the handler needs.
type Options struct {
	Config func() *config.Config // in force
	// Once makes one probe; its error says why there is no verdict. may is asked about
	// the very address that is then probed, and says why it may not be.
	Once func(ctx context.Context, t *config.Target, may func(netip.Addr) error) (probe.Transcript, error)
	// Probes reports whether the jobs probe an address and port, and Names whether a
	// target of theirs has a host name and port.
	Probes func(netip.AddrPort) bool
	Names  func(host string, port uint16) bool
	// FromHere reports whether this host itself asks.
	FromHere func(*http.Request) bool
	Clock    func() time.Time
	Log      *slog.Logger
}

type handler struct {
	Options
	slots slots
}

// New returns the handler of /probe?target=host:port&module=name.
func New(o Options) http.Handler {
	return &handler{Options: o, slots: slots{has: make(map[netip.Prefix][]*slot)}}
}

// An answer is what came of a probe.
type answer struct {
	target   *config.Target
	conv     *show.Conversation
	took     time.Duration
	families prometheus.Gatherer
}

// ServeHTTP implements http.Handler: 400 where the question is wrong, 403 where whoever
// asks may not have that probed, 503 where it was not the target's fault that there is no verdict, so that the scrape fails and
// nothing is booked on the target.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, left, err := h.target(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	may, err := h.forWhom(r, t)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	ctx, out := context.WithCancelCause(r.Context())
	defer out(nil)
	slot, err := h.slots.take(clientOf(r.RemoteAddr), h.FromHere(r), out)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer h.slots.give(slot)
	debug := r.URL.Query().Get("debug") == "true"
	a, err := h.probe(ctx, t, left, may)
	switch {
	case errors.Is(context.Cause(ctx), errGivenUp):
		w.Header().Set("Retry-After", "1")
		http.Error(w, errGivenUp.Error(), http.StatusServiceUnavailable)
	case debug && a != nil:
		h.explain(w, a)
	case forbidden(err):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		h.Log.Warn("no verdict for a probe on request", "target", t.Address, "module", t.Module.Name, "err", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		promhttp.HandlerFor(a.families, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}
}

func forbidden(err error) bool {
	_, is := errors.AsType[refusal](err)
	return is
}

// target reads what to probe, and how, from a request, and how much time there is.
func (h *handler) target(r *http.Request) (*config.Target, time.Duration, error) {
	q := r.URL.Query()
	for _, name := range []string{"target", "module"} {
		if len(q[name]) > 1 {
			return nil, 0, fmt.Errorf("%s is there %d times: give one", name, len(q[name]))
		}
	}
	if !q.Has("target") {
		return nil, 0, errors.New("target is missing: /probe?target=host:port&module=" + DefaultModule)
	}
	module := q.Get("module")
	if module == "" {
		module = DefaultModule
	}
	t, err := h.Config().One(module, q.Get("target"))
	if err != nil {
		return nil, 0, err
	}
	left, spare := longest, margin
	if s := r.Header.Get(timeoutHeader); s != "" {
		seconds, err := strconv.ParseFloat(s, 64)
		if err != nil || !(seconds > 0) || math.IsInf(seconds, 0) {
			return nil, 0, fmt.Errorf("%s: %.100q is not a number of seconds", timeoutHeader, s)
		}
		if seconds < longest.Seconds() {
			left = time.Duration(seconds * float64(time.Second))
		}
		spare = min(margin, left/2)
	}
	// What becomes of a connection whose time is up is told when its second RST has left,
	// 250 ms later: half of the margin would end just then.
	return &t, left - spare/5, t.Within(left - spare)
}

// probe makes one. Without an error there is a verdict; with one there is still an
// answer if a conversation came of it. It is waited for as long as the scrape lasts,
// within reason: before the SYN leaves there is the name's look-up, room to be made
// by the limits, and a neighbour that does not answer, of which our kernel tells
// after three seconds.
func (h *handler) probe(ctx context.Context, t *config.Target, left time.Duration, may func(netip.Addr) error) (*answer, error) {
	began := h.Clock()
	ctx, cancel := context.WithTimeout(ctx, min(left, t.Longest()+patience))
	defer cancel()
	tr, err := h.Once(ctx, t, may)
	if err != nil {
		return nil, err
	}
	a := &answer{target: t, conv: show.Of(&tr), took: h.Clock().Sub(began)}
	a.families = a.gather()
	if a.conv.Discarded != probe.NotDiscarded {
		return a, fmt.Errorf("discarded, through no fault of the target: %s; see probed's log", a.conv.Discarded)
	}
	return a, nil
}

// explain shows the conversation, and the metrics as they would be.
func (h *handler) explain(w http.ResponseWriter, a *answer) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s by module %s (%s), %s\n\n", a.target.Address, a.target.Module.Name, a.conv.Kind, a.conv.Verdict())
	for i := range a.conv.Steps {
		if line := a.conv.AppendSegment(nil, i, show.SegmentOptions{Stamp: true}); len(line) > 0 {
			b.Write(append(line, '\n'))
		}
	}
	b.WriteByte('\n')
	if err := a.conv.WriteLadder(&b, show.TextOptions{Width: debugWidth}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b.WriteByte('\n')
	if err := writeText(&b, a.families); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(b.Bytes())
}
