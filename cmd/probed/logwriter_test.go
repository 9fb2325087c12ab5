package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// What is said comes out in order, the last of it too.
func TestLogWriter(t *testing.T) {
	var out bytes.Buffer
	w := newLogWriter(&out, func(uint64) { t.Error("lines were lost") })
	for i := range logLines {
		fmt.Fprintf(w, "line %d\n", i)
	}
	w.flush()
	if lines := strings.Count(out.String(), "\n"); lines != logLines || !strings.HasPrefix(out.String(), "line 0\nline 1\n") {
		t.Errorf("%d lines of %d", lines, logLines)
	}
}

// A reader that is asleep keeps nobody waiting, and learns what it has missed.
func TestLogWriterNobodyReads(t *testing.T) {
	r, out := io.Pipe()
	lost := make(chan uint64, 10)
	w := newLogWriter(out, func(n uint64) { lost <- n })
	began := time.Now()
	for range 3 * logLines {
		fmt.Fprintln(w, "a line")
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("who speaks waited for %v", d)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if n := <-lost; n < 2*logLines-1 || n > 2*logLines {
		t.Errorf("%d lines lost of %d", n, 3*logLines)
	}
	w.flush()
}
