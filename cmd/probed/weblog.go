package main

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A webLog is where http.Server complains of clients: each could have it say a line for
// every connection. A few are written, and how many were not.
type webLog struct {
	log   *slog.Logger
	clock func() time.Time

	mu      sync.Mutex
	allowed *rate.Limiter
	more    int
}

func newWebLog(log *slog.Logger, clock func() time.Time) *webLog {
	return &webLog{log: log, clock: clock, allowed: rate.NewLimiter(rate.Every(10*time.Second), 5)}
}

// Write implements io.Writer, a line at a time.
func (w *webLog) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.allowed.AllowN(w.clock(), 1) {
		w.more++
		return len(line), nil
	}
	args := []any{}
	if w.more > 0 {
		args = append(args, "more_unsaid", fmt.Sprint(w.more))
		w.more = 0
	}
	w.log.Warn(strings.TrimSpace(string(line)), args...)
	return len(line), nil
}
