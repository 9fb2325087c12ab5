package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/probed/probed/probe/engine"
)

// complaintsEvery is how long complaints like the last are only counted.
const complaintsEvery = 10 * time.Second

// Complaints are what this host has against probed's segments, said in the log
// without holding up the loop that comes upon them or flooding whoever reads it:
// ten thousand targets without a route are two lines.
type complaints struct {
	log *slog.Logger
	box chan complaint
}

type complaint struct {
	remote string // empty: it concerns no target in particular
	err    error
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, box: make(chan complaint, 256)}
}

// Trouble is engine.Observer's.
func (c *complaints) Trouble(t *engine.Target, err error) {
	c.put(complaint{t.Remote.String(), err})
}

// ClockStep is engine.Observer's.
func (c *complaints) ClockStep(by time.Duration) {
	c.put(complaint{"", clockStepError(by)})
}

// put drops what there is no room for: the log tells which kinds of trouble
// there are, the metrics how much of it.
func (c *complaints) put(one complaint) {
	select {
	case c.box <- one:
	default:
	}
}

// run logs the first complaint of a kind at once and counts the others until
// complaintsEvery has gone.
func (c *complaints) run(ctx context.Context) {
	tick := time.NewTicker(complaintsEvery)
	defer tick.Stop()
	more := make(map[string]int)
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-c.box:
			kind := kindOf(one.err)
			if n, known := more[kind]; known {
				more[kind] = n + 1
				continue
			}
			more[kind] = 0
			if one.remote == "" {
				c.log.Warn(one.err.Error())
			} else {
				c.log.Warn("this host keeps segments from leaving", "remote", one.remote, "err", one.err)
			}
		case <-tick.C:
			for kind, n := range more {
				if n > 0 {
					c.log.Warn("this host keeps segments from leaving: more of the same", "times", n, "err", kind)
				}
			}
			clear(more)
		}
	}
}

// kindOf names an error without what differs from target to target.
func kindOf(err error) string {
	if _, is := errors.AsType[clockStepError](err); is {
		return "clock step"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// clockStepError says that the clock which stamps packets was set.
type clockStepError time.Duration

func (e clockStepError) Error() string {
	return "the clock was set by " + time.Duration(e).String() + ": probes under way are discarded as clock_step"
}
