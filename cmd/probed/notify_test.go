package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// A notified is a service manager's end of sd_notify(3).
type notified struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func listenNotify(t *testing.T) *notified {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notified{t, conn, path}
}

// managed has probed tell n, and be watched if watchdog is not 0.
func (n *notified) managed(watchdog time.Duration) option {
	return func(c *lab.Cmd) {
		c.Env = append(c.Env, "NOTIFY_SOCKET="+n.path)
		if watchdog > 0 {
			c.Env = append(c.Env, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds()))
		}
	}
}

// next returns the next message, or nothing if none comes within limit.
func (n *notified) next(limit time.Duration) string {
	n.t.Helper()
	if err := n.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		n.t.Fatal(err)
	}
	b := make([]byte, 4096)
	size, err := n.conn.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:size])
}

// await returns the next message that has an assignment; those before it must be
// heartbeats, or say the status only.
func (n *notified) await(assignment string, limit time.Duration) string {
	n.t.Helper()
	for end := time.Now().Add(limit); ; {
		m := n.next(time.Until(end))
		switch {
		case m == "":
			n.t.Fatalf("no %s within %v", assignment, limit)
		case strings.Contains("\n"+m+"\n", "\n"+assignment+"\n"):
			return m
		case m != "WATCHDOG=1" && !strings.HasPrefix(m, "STATUS="):
			n.t.Fatalf("%q instead of %s", m, assignment)
		}
	}
}

// beats counts the heartbeats of a while.
func (n *notified) beats(while time.Duration) (count int) {
	n.t.Helper()
	for end := time.Now().Add(while); ; {
		switch m := n.next(time.Until(end)); {
		case m == "":
			return count
		case m == "WATCHDOG=1":
			count++
		case !strings.HasPrefix(m, "STATUS="):
			n.t.Fatalf("unexpected %q", m)
		}
	}
}

// TestNotify follows a life as systemd does: start, reloads, end.
func TestNotify(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	n := listenNotify(t)
	p, file := reloadable(t, h, simpleConfig("100ms", "50ms", "127.0.0.1:10965"), n.managed(0))
	n.await("READY=1", 5*time.Second)
	n.await("STATUS=probing 1 target", 2*statusEvery)

	write(t, file, "jobs: oops\n")
	p.signal(syscall.SIGHUP)
	began := n.await("RELOADING=1", 5*time.Second)
	_, stamp, _ := strings.Cut(began, "MONOTONIC_USEC=")
	usec, err := strconv.ParseInt(stamp, 10, 64)
	var now unix.Timespec
	if clock := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil || clock != nil {
		t.Fatalf("%q: %v, %v", began, err, clock)
	}
	if age := now.Nano()/1000 - usec; age < 0 || age > 5e6 {
		t.Errorf("the reload began %d µs ago", age)
	}
	if m := n.await("READY=1", 5*time.Second); !strings.Contains(m, "STATUS=probing 1 target; the reload at ") || !strings.HasSuffix(m, " failed: the configuration of before is in force") {
		t.Errorf("after a bad reload: %q", m)
	}

	write(t, file, simpleConfig("100ms", "50ms", "127.0.0.1:10965", "127.0.0.2:10965"))
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	n.await("RELOADING=1", 5*time.Second)
	// At once, though the loop may have the new target only a moment later.
	if m := n.await("READY=1", 5*time.Second); m != "READY=1\nSTATUS=probing 2 targets" {
		t.Errorf("after a good reload: %q", m)
	}

	p.signal(syscall.SIGTERM)
	n.await("STOPPING=1", 5*time.Second)
	if code := p.end(5 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestNotifyBadStart holds that nothing is told by a probed that cannot start.
func TestNotifyBadStart(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	for what, yaml := range map[string]string{
		"configuration": "jobs: oops\n",
		"interface":     "modules: {x: {probe: half_open, interface: nosuch0}}\njobs: []\n",
	} {
		n := listenNotify(t)
		p := launch(t, h, yaml, n.managed(time.Second))
		if code := p.end(5 * time.Second); code != 1 {
			t.Errorf("%s: exit code %d", what, code)
		}
		if m := n.next(10 * time.Millisecond); m != "" {
			t.Errorf("%s: told %q", what, m)
		}
	}
}

// TestNotifyWatchdog: an idle probed is alive, a stopped one isn't.
func TestNotifyWatchdog(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	n := listenNotify(t)
	const watchdog = 900 * time.Millisecond
	p := start(t, h, "jobs: []\n", n.managed(watchdog))
	n.await("READY=1", 5*time.Second)
	if got := n.beats(3 * watchdog); got < 6 || got > 3*beatsPerWatchdog+1 {
		t.Errorf("%d heartbeats of an idle loop in %v", got, 3*watchdog)
	}
	p.signal(syscall.SIGSTOP)
	time.Sleep(50 * time.Millisecond)
	for n.next(time.Millisecond) != "" { // what it had said
	}
	if got := n.beats(2 * watchdog); got != 0 {
		t.Errorf("%d heartbeats while stopped", got)
	}
	p.signal(syscall.SIGCONT)
	if got := n.beats(watchdog); got < 2 {
		t.Errorf("%d heartbeats after it", got)
	}
}

// TestNotifyDeafManager: a manager that reads nothing, so that its socket's queue
// is full, holds up nobody.
func TestNotifyDeafManager(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	n := listenNotify(t)
	p := start(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:10965"), n.managed(3*time.Millisecond))
	p.awaitProbes("127.0.0.1:10965", 50) // a heartbeat a millisecond: far more than the queue holds
	p.signal(syscall.SIGTERM)
	if code := p.end(10 * time.Second); code != 0 || !strings.Contains(p.said(), "cannot tell the service manager") {
		t.Errorf("exit code %d: %s", code, p.said())
	}
	if queued := n.beatsQueued(); queued < 10 {
		t.Errorf("%d heartbeats in the queue: it was never full", queued)
	}
}

// TestNotifyNoAllocation: the loop calls it.
func TestNotifyNoAllocation(t *testing.T) {
	n := listenNotify(t)
	t.Setenv("NOTIFY_SOCKET", n.path)
	t.Setenv("WATCHDOG_USEC", "3000000")
	m, err := findManager()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	beat, every := m.heartbeat()
	if every != time.Second {
		t.Errorf("every %v of 3 s", every)
	}
	if allocs := testing.AllocsPerRun(100, beat); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
	if n.beatsQueued() == 0 {
		t.Error("nothing came")
	}
}

// beatsQueued empties the queue.
func (n *notified) beatsQueued() (count int) {
	for n.next(time.Millisecond) != "" && count < 1000 {
		count++
	}
	return count
}

func TestNotifyBadSocket(t *testing.T) {
	t.Parallel()
	t.Run("not a socket", func(t *testing.T) {
		h := lab.NewHost(t, "a")
		p := launch(t, h, "jobs: []\n", func(c *lab.Cmd) { c.Env = append(c.Env, "NOTIFY_SOCKET=vsock:1:2") })
		if code := p.end(5 * time.Second); code != 1 || !strings.Contains(p.said(), "NOTIFY_SOCKET") {
			t.Errorf("exit code %d: %s", code, p.said())
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		h := lab.NewHost(t, "a")
		p := start(t, h, "jobs: []\n", func(c *lab.Cmd) {
			c.Env = append(c.Env, "NOTIFY_SOCKET="+filepath.Join(os.TempDir(), "nobody-is-here"))
		})
		lab.Eventually(t, 5*time.Second, func() error { // it is ready before it says so
			if said := p.said(); !strings.Contains(said, "cannot tell the service manager") {
				return errors.New(said)
			}
			return nil
		})
	})
}
