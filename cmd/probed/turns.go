package main

import (
	"net/http"
	"sync"
)

// inTurn has requests that run at once take turns, so that together they keep one
// processor busy at most and the probes have another. While an answer is on its way to
// a client, which may be slow, it is the next one's turn.
func inTurn(next http.Handler) http.Handler {
	var turn sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		if r.Context().Err() != nil {
			return // nobody waits for it any more
		}
		next.ServeHTTP(&turned{w, &turn}, r)
	})
}

// turned is an answer's writer in turn.
type turned struct {
	http.ResponseWriter
	turn *sync.Mutex
}

// Write implements io.Writer.
func (w *turned) Write(b []byte) (int, error) {
	w.turn.Unlock()
	defer w.turn.Lock()
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *turned) Unwrap() http.ResponseWriter { return w.ResponseWriter }
