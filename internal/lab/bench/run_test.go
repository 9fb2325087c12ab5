package bench

import (
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A running is a program that is measured.
type running struct {
	t     testing.TB
	cmd   *lab.Cmd
	pid   int
	said  *lab.Output
	ended chan struct{}
}

// run starts a program, whose output is kept; the test's end ends it.
func (w *world) run(cmd *lab.Cmd) *running {
	w.t.Helper()
	r := &running{t: w.t, cmd: cmd, said: new(lab.Output), ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = r.said
	}
	cmd.Stderr = r.said
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("%v: %v", cmd.Args, err)
	}
	r.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // ended by a signal, it has no better status to offer
		close(r.ended)
	}()
	w.t.Cleanup(func() {
		r.stop()
		if w.t.Failed() {
			w.t.Logf("%v said:\n%s", cmd.Args, r.said.String())
		}
	})
	return r
}

// stop ends it and waits until it has, by SIGTERM first.
func (r *running) stop() {
	r.t.Helper()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = r.cmd.Process.Signal(s) // it may have ended
		select {
		case <-r.ended:
			return
		case <-time.After(5 * time.Second):
		}
	}
	<-r.ended
}

// read runs a program to its end, for a minute at most, and returns what it wrote to its standard output.
func (w *world) read(cmd *lab.Cmd) string {
	w.t.Helper()
	said := new(lab.Output)
	cmd.Stderr = said
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, said.String())
	}
	return string(out)
}
