package main

import (
	"io"
	"sync/atomic"
	"time"
)

const (
	// logLines is how many lines wait for standard error's reader at most.
	logLines = 1024
	// logGrace bounds how long the last of them are waited for at the end.
	logGrace = time.Second
)

// A logWriter writes lines without ever keeping who says them waiting: a pipe whose
// reader is asleep would else hold up reloads and the web pages, each at its next word.
// What there is no room for is lost, and counted.
type logWriter struct {
	lines chan []byte
	lost  atomic.Uint64
	end   chan struct{} // closed by flush
	ended chan struct{} // when all is written
}

// newLogWriter returns one that writes to out, and calls lost from time to time with how
// many lines were.
func newLogWriter(out io.Writer, lost func(lines uint64)) *logWriter {
	w := &logWriter{lines: make(chan []byte, logLines), end: make(chan struct{}), ended: make(chan struct{})}
	write := func(line []byte) {
		_, _ = out.Write(line) // there is nowhere to say that it failed
		if n := w.lost.Swap(0); n > 0 {
			lost(n)
		}
	}
	go func() {
		defer close(w.ended)
		for {
			select {
			case line := <-w.lines:
				write(line)
			case <-w.end:
				for range len(w.lines) {
					write(<-w.lines)
				}
				return
			}
		}
	}()
	return w
}

// Write implements io.Writer. It never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.lost.Add(1)
	}
	return len(line), nil
}

// flush waits for what was said, for logGrace at most. What is said later is lost.
func (w *logWriter) flush() {
	close(w.end)
	select {
	case <-w.ended:
	case <-time.After(logGrace):
	}
}
