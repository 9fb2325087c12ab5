package status

import (
	"context"
	"net/netip"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
)

// A Label is one of a target's own.
type Label struct{ Name, Value string }

// A Target is one that is probed: a row of the list.
type Target struct {
	ID      string // 16 hexadecimal digits
	Job     string
	Address string // host:port as written
	Module  string
	IP      string         // the label of that name: with resolve: all
	Remote  netip.AddrPort // invalid while the host name does not resolve
	Kind    probe.Kind
	// Interval is the time between two probes.
	Interval time.Duration
	Flows    int     // fixed source ports; 0 or 1 without
	Labels   []Label // by name
	// OneAtATime is set where a probe more would disturb the one that is under way:
	// time_wait probes that measure a duration.
	OneAtATime bool

	Metrics  *metrics.Target
	Recorder *recorder.Recorder
}

// A Source knows the targets.
type Source interface {
	// Targets returns what is probed, in the configuration's order. The slice is
	// the caller's.
	Targets() []Target
	// Target returns that of an ID.
	Target(id string) (Target, bool)
}

// Options are what a Handler needs.
type Options struct {
	Source Source
	// Now probes a target one time more and returns the transcript.
	Now         func(ctx context.Context, id string) (probe.Transcript, error)
	Clock       func() time.Time
	Version     string // of probed
	MetricsPath string // where /metrics is
}
