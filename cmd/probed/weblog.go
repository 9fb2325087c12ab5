package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What web clients have us say is a few lines at once, and then one every so often: each
// request could be another.
const (
	sparingAtOnce = 5
	sparingEvery  = 10 * time.Second
)

// sparing is the handler of a log of which some lines are written, and how many were not.
type sparing struct {
	slog.Handler
	*spared
}

// spared is what the handlers of one log have in common.
type spared struct {
	clock func() time.Time

	mu      sync.Mutex
	allowed *rate.Limiter
	more    int
}

// sparingly returns a log that writes into another what web clients have it say.
func sparingly(log *slog.Logger, clock func() time.Time) *slog.Logger {
	return slog.New(&sparing{log.Handler(), &spared{clock: clock, allowed: rate.NewLimiter(rate.Every(sparingEvery), sparingAtOnce)}})
}

// Handle implements slog.Handler.
func (s *sparing) Handle(ctx context.Context, r slog.Record) error {
	more, ok := s.allow()
	if !ok {
		return nil
	}
	r = withoutQuotes(r)
	if more > 0 {
		r.AddAttrs(slog.Int("more_unsaid", more))
	}
	return s.Handler.Handle(ctx, r)
}

// withoutQuotes is a record without what YAML quotes of the web configuration: exporter-toolkit
// reads that for each request and each handshake of TLS, and what is wrong with it since the start
// may be a password.
func withoutQuotes(r slog.Record) slog.Record {
	clean := slog.NewRecord(r.Time, r.Level, withoutSecrets(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(withoutSecrets(a.Value.String()))
		}
		clean.AddAttrs(a)
		return true
	})
	return clean
}

// WithAttrs implements slog.Handler.
func (s *sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sparing{s.Handler.WithAttrs(attrs), s.spared}
}

// WithGroup implements slog.Handler.
func (s *sparing) WithGroup(name string) slog.Handler {
	return &sparing{s.Handler.WithGroup(name), s.spared}
}

// allow reports whether a line may be written, and how many before it were not.
func (s *spared) allow() (more int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.allowed.AllowN(s.clock(), 1) {
		s.more++
		return 0, false
	}
	more, s.more = s.more, 0
	return more, true
}

// A webLog is where http.Server complains of clients.
type webLog struct{ log *slog.Logger }

// Write implements io.Writer, a line at a time.
func (w webLog) Write(line []byte) (int, error) {
	w.log.Warn(strings.TrimSpace(string(line)))
	return len(line), nil
}
