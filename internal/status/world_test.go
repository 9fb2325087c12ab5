package status

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
)

// A world is targets that are probed by hand: every probe is a conversation that
// is played through probe.Step, and is booked with the recorder and the metrics as
// an engine books it.
type world struct {
	t       testing.TB
	metrics *metrics.Metrics
	clock   func() time.Time
	now     func(ctx context.Context, id string) (probe.Transcript, error)

	mu      sync.Mutex
	targets []Target
	byID    map[string]int
	number  uint64
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, metrics: metrics.New(metrics.Options{}), clock: time.Now, byID: make(map[string]int)}
	w.now = func(_ context.Context, id string) (probe.Transcript, error) {
		tgt, ok := w.Target(id)
		if !ok {
			return probe.Transcript{}, errors.New("gone")
		}
		return w.probe(&tgt, outcome{rtt: 3 * time.Millisecond}), nil
	}
	return w
}

// Targets implements Source.
func (w *world) Targets() []Target {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Target(nil), w.targets...)
}

// Target implements Source.
func (w *world) Target(id string) (Target, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, ok := w.byID[id]
	if !ok {
		return Target{}, false
	}
	return w.targets[i], true
}

// add adds a target, with what tgt leaves open filled in.
func (w *world) add(tgt Target) *Target {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.targets)
	tgt.ID = fmt.Sprintf("%016x", 0xa000000000000000+uint64(n))
	if tgt.Job == "" {
		tgt.Job = "edge"
	}
	if tgt.Kind == 0 {
		tgt.Kind = probe.HalfOpen
	}
	if tgt.Module == "" {
		tgt.Module = tgt.Kind.String()
	}
	if tgt.Interval == 0 {
		tgt.Interval = time.Second
	}
	if !tgt.Remote.IsValid() {
		tgt.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 443)
	}
	l := metrics.Labels{Job: tgt.Job, Target: tgt.Address, Module: tgt.Module, IP: tgt.IP, Extra: map[string]string{"n": fmt.Sprint(n)}}
	for _, own := range tgt.Labels {
		l.Extra[own.Name] = own.Value
	}
	m, err := w.metrics.AddTarget(l, metrics.TargetOptions{Kind: tgt.Kind, Flows: tgt.Flows})
	if err != nil {
		w.t.Fatal(err)
	}
	tgt.Metrics, tgt.Recorder = m, new(recorder.Recorder)
	w.byID[tgt.ID] = n
	w.targets = append(w.targets, tgt)
	return &w.targets[n]
}

// An outcome is what is to become of a half_open probe.
type outcome struct {
	rtt     time.Duration // 0: silence
	refused bool
	discard probe.DiscardReason
	ago     time.Duration // how long before now it began
	mss     uint16        // 1460 if 0
}

// probe plays one.
func (w *world) probe(tgt *Target, o outcome) probe.Transcript {
	w.mu.Lock()
	w.number++
	number := w.number
	w.mu.Unlock()
	const begun = probe.Instant(time.Hour)
	port := uint16(61000)
	if tgt.Flows > 1 {
		port += uint16(number) % uint16(tgt.Flows)
	}
	h := &talk{
		conv: probe.New(probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 4 * time.Second}),
		now:  begun, sink: tgt.Metrics,
	}
	local := netip.AddrFrom4([4]byte{198, 18, 255, 1})
	if tgt.Remote.Addr().Is6() {
		local = netip.MustParseAddr("2001:db8::ff")
	}
	h.tr.Reset(probe.FourTuple{Local: netip.AddrPortFrom(local, port), Remote: tgt.Remote}, probe.HalfOpen)
	h.tr.Number, h.tr.Offset = number, w.clock().Add(-o.ago).UnixNano()-int64(begun)
	syn := probe.Segment{Flags: probe.SYN, Seq: 100, Window: 64240, TTL: 64, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}}
	h.step(probe.Event{Kind: probe.Open, Segment: syn})
	if o.discard != 0 {
		h.step(probe.Event{Kind: probe.Spoiled, Discard: o.discard})
		tgt.Recorder.Settled(&h.tr)
		return h.tr
	}
	h.step(probe.Event{Kind: probe.SegmentSent, Segment: syn, Stamp: h.stamp()})
	answer := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: 7, Ack: 101, TTL: 57, Window: 65160, Options: probe.Options{Set: probe.OptMSS, MSS: 1460}}
	if o.mss != 0 {
		answer.Options.MSS = o.mss
	}
	switch {
	case o.refused:
		h.now = h.now.Add(o.rtt)
		h.step(probe.Event{Kind: probe.SegmentArrives, Stamp: h.stamp(), Segment: probe.Segment{Flags: probe.RST | probe.ACK, Ack: 101, TTL: 57}})
	case o.rtt == 0:
		h.now = h.now.Add(900 * time.Millisecond)
		h.step(probe.Event{Kind: probe.UserTimeout})
	default:
		h.now = h.now.Add(o.rtt)
		h.step(probe.Event{Kind: probe.SegmentArrives, Stamp: h.stamp(), Segment: answer})
		h.now = h.now.Add(30 * time.Microsecond)
		h.step(probe.Event{Kind: probe.SegmentSent, Stamp: h.stamp(), Segment: probe.Segment{Flags: probe.RST, Seq: 101, TTL: 64}})
	}
	tgt.Recorder.Settled(&h.tr)
	return h.tr
}

// A talk is a conversation and its transcript, as an engine holds them.
type talk struct {
	conv probe.Conversation
	tr   probe.Transcript
	now  probe.Instant
	sink *metrics.Target
}

func (h *talk) stamp() probe.Stamp { return probe.Stamp{Wall: h.tr.Offset + int64(h.now), Clock: 1} }

func (h *talk) step(ev probe.Event) {
	var out probe.Output
	h.conv, out = probe.Step(h.conv, h.now, ev)
	h.tr.Add(h.now, &ev, &h.conv, &out)
	observed := out.Observations()
	for i := range observed {
		observed[i].Port = h.tr.Tuple.Local.Port()
		h.sink.Observe(&observed[i])
	}
}

// A site is a world's pages, over loopback.
type site struct {
	*httptest.Server
	handler *Handler
}

func (w *world) handler(t testing.TB) *Handler {
	t.Helper()
	h, err := New(Options{
		Source: w, Clock: w.clock, Version: "1.2.3", MetricsPath: "/metrics",
		Now: func(ctx context.Context, id string) (probe.Transcript, error) { return w.now(ctx, id) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (w *world) serve(t testing.TB) *site {
	t.Helper()
	h := w.handler(t)
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		h.Close()
		s.Close()
	})
	return &site{s, h}
}
