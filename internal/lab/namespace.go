package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// errGoexit tells that a function left its goroutine instead of returning, as
// testing's FailNow does.
var errGoexit = errors.New("lab: the function ended its goroutine")

// A panicked is a panic carried from a namespace's thread to its caller.
type panicked struct {
	value any
	stack []byte
}

func (p panicked) Error() string {
	return fmt.Sprintf("panic in a namespace: %v\n\n%s", p.value, p.stack)
}

// A keeper is a thread inside a namespace that lives until it is told to end.
// Programs are started on it: a parent-death signal is sent when the *thread*
// that forked ends (prctl(2)), and any other thread of the runtime may, since a
// goroutine that onThread locked ends whichever it was given.
type keeper struct {
	calls chan func() error
	errs  chan error
	end   chan struct{} // closed to end it
	ended chan struct{}
}

// newNamespace makes a network namespace without a name and returns its only
// reference and its first thread. Errors are unshare's and open's.
func newNamespace() (*os.File, *keeper, error) {
	type made struct {
		ns  *os.File
		err error
	}
	k := &keeper{make(chan func() error), make(chan error), make(chan struct{}), make(chan struct{})}
	ready := make(chan made)
	go func() {
		defer close(k.ended)
		_ = onThread(func() {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				ready <- made{nil, fmt.Errorf("a network namespace needs root: %w", os.NewSyscallError("unshare", err))}
				return
			}
			ns, err := os.Open("/proc/thread-self/ns/net")
			ready <- made{ns, err}
			for {
				select {
				case f := <-k.calls:
					k.errs <- f()
				case <-k.end:
					return
				}
			}
		})
	}()
	m := <-ready
	return m.ns, k, m.err
}

// call runs f on the keeper's thread.
func (k *keeper) call(f func() error) error {
	select {
	case k.calls <- f:
		return <-k.errs
	case <-k.ended:
		return errors.New("lab: the host has ended")
	}
}

// close ends the thread, and with it every program that it started.
func (k *keeper) close() {
	close(k.end)
	<-k.ended
}

// inNamespace runs f on a thread of its own in ns.
func inNamespace(ns *os.File, f func()) error {
	var failed error
	err := onThread(func() {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			failed = os.NewSyscallError("setns", err)
			return
		}
		f()
	})
	return errors.Join(err, failed)
}

// onThread runs f on an OS thread that nothing else will ever run on: the
// goroutine stays locked, so the runtime ends the thread with it. A thread
// whose namespace was changed must not go back to the pool. A panic of f is
// returned as panicked, runtime.Goexit as errGoexit.
func onThread(f func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread is never ended, and its namespace is what
			// /proc/self shows: keep it busy while another thread does it.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		err := errGoexit
		defer func() {
			if v := recover(); v != nil {
				err = panicked{v, debug.Stack()}
			}
			done <- err
		}()
		f()
		err = nil
	}()
	return <-done
}
