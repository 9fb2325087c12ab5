package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/version"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// pingBacklog is how many lines wait for a terminal that takes none, since somebody
// has stopped it: probing goes on, and what is more than these is counted only.
const pingBacklog = 4096

// A pingEvent is something to show: a conversation, or what this host is up to.
type pingEvent struct {
	transcript *probe.Transcript
	late       bool // it was shown before, and there is an answer now
	ours       string
	grave      bool // it concerns more than one probe
}

// A pingOutput shows events in a goroutine of its own, so that whoever reads cannot
// hold up the measurement.
type pingOutput struct {
	*pinger
	text    io.Writer // what a person reads
	paint   ping.Paint
	width   int
	json    *json.Encoder // nil: no JSON
	capture *show.Capture // nil: none
	flush   func() error
	file    io.Closer // the capture's, or nil
	failed  func()    // called once something cannot be written
	ports   pingPorts

	events chan pingEvent
	missed atomic.Uint64
	done   chan struct{}
	err    error // the first one, once done
}

// output opens what is written to.
func (p *pinger) output(ports pingPorts) (*pingOutput, error) {
	o := &pingOutput{
		pinger: p, text: p.stdout, ports: ports, flush: func() error { return nil }, failed: func() {},
		events: make(chan pingEvent, pingBacklog), done: make(chan struct{}),
	}
	if p.json || p.write == "-" {
		o.text = p.stderr
	}
	t := terminalOf(o.text, os.Getenv)
	o.paint, o.width = ping.Paint(t.color), t.width
	if p.json {
		o.json = json.NewEncoder(p.stdout)
		o.json.SetEscapeHTML(false)
	}
	if p.write == "" {
		return o, nil
	}
	file := p.stdout
	if p.write != "-" {
		f, err := os.Create(p.write)
		if err != nil {
			return nil, fmt.Errorf("-w: %w", err)
		}
		file, o.file = f, f
	}
	w := bufio.NewWriter(file)
	capture, err := show.NewCapture(w, version.Version)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("-w: %w", err)
	}
	o.capture, o.flush = capture, w.Flush
	return o, nil
}

// begin shows what begins, and from then on what is put.
func (o *pingOutput) begin() {
	if o.json == nil && !o.quiet {
		used := o.ports.guarded
		if o.target.Kind == probe.HalfOpen {
			used = o.ports.reserved
		}
		if _, o.err = fmt.Fprintf(o.text, "probing %s: %s every %s, timeout %s, from source %s\n", &o.target, o.target.Kind,
			show.FormatDuration(o.target.Interval), show.FormatDuration(o.target.Timeout), portsText(used.First, used.Last)); o.err != nil {
			o.failed()
		}
	}
	go func() {
		defer close(o.done)
		for e := range o.events {
			if o.err == nil {
				if o.err = o.show(e); o.err != nil {
					o.failed()
				}
			}
		}
	}()
}

func portsText(first, last uint16) string {
	if first == last {
		return fmt.Sprintf("port %d", first)
	}
	return fmt.Sprintf("ports %d-%d", first, last)
}

// put has an event shown. It does not wait, and keeps nothing of what is not the
// event's own.
func (o *pingOutput) put(e pingEvent) {
	if o.quiet && o.capture == nil && !e.grave {
		return
	}
	if len(o.events) == cap(o.events) { // only this goroutine puts
		o.missed.Add(1)
		return
	}
	if e.transcript != nil {
		t := e.transcript.Clone()
		e.transcript = &t
	}
	o.events <- e
}

// end waits until everything is shown and shows the summary.
func (o *pingOutput) end(tally *ping.Tally, took time.Duration) error {
	close(o.events)
	<-o.done
	if o.err == nil {
		o.err = o.sayMissed()
	}
	if o.file != nil {
		if err := o.file.Close(); o.err == nil && err != nil {
			o.err = fmt.Errorf("-w: %w", err)
		}
	}
	switch {
	case o.err != nil:
		return o.err
	case o.json != nil:
		return o.json.Encode(struct {
			Summary ping.SummaryJSON `json:"summary"`
		}{tally.JSON(&o.target, took)})
	case !o.quiet:
		fmt.Fprintln(o.text)
	}
	_, err := io.WriteString(o.text, tally.Summary(&o.target, took, ping.Options{Width: o.width, Paint: o.paint}))
	return err
}

// show shows an event.
func (o *pingOutput) show(e pingEvent) error {
	if err := o.sayMissed(); err != nil {
		return err
	}
	if e.transcript == nil {
		if o.quiet && !e.grave {
			return nil
		}
		return o.sayOurs(e.ours)
	}
	c := show.Of(e.transcript)
	if e.late {
		if o.json != nil || o.quiet {
			return nil // it is counted in the summary
		}
		return o.say(o.target.LateLine(c, o.paint))
	}
	if o.capture != nil {
		if err := o.capture.Write(c); err != nil {
			return fmt.Errorf("-w: %w", err)
		}
		if err := o.flush(); err != nil {
			return fmt.Errorf("-w: %w", err)
		}
	}
	switch {
	case o.quiet:
		return nil
	case o.json != nil:
		return o.json.Encode(c.JSON())
	}
	if err := o.say(o.target.Line(c, o.paint)); err != nil {
		return err
	}
	return o.details(c)
}

// sayMissed says how much was not shown, if anything.
func (o *pingOutput) sayMissed() error {
	n := o.missed.Swap(0)
	if n == 0 {
		return nil
	}
	return o.sayOurs(fmt.Sprintf("%d lines are not shown: nobody took them", n))
}

// details shows the segments and the ladder of a conversation, if they are asked
// for.
func (o *pingOutput) details(c *show.Conversation) error {
	if o.segments {
		var b []byte
		for i := range c.Steps {
			from := len(b)
			b = c.AppendSegment(b, i, show.SegmentOptions{Absolute: o.absolute, Stamp: true})
			if len(b) > from {
				b = append(b, '\n')
			}
		}
		if _, err := o.text.Write(b); err != nil {
			return err
		}
	}
	if !o.ladder {
		return nil
	}
	w := bufio.NewWriter(o.text)
	if err := c.WriteLadder(w, show.TextOptions{Width: o.width, Color: bool(o.paint)}); err != nil {
		return err
	}
	return w.Flush()
}

func (o *pingOutput) say(line string) error {
	_, err := fmt.Fprintln(o.text, line)
	return err
}

// sayOurs says what this host is up to, apart from what the network and the peer
// are.
func (o *pingOutput) sayOurs(s string) error {
	return o.say(o.paint.Ours("ours, not the network's: " + show.SafeText(s)))
}
