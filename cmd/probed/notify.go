package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	// beatsPerWatchdog is how often the loop says that it is alive in the time
	// after which systemd would restart it: two may be lost or late.
	beatsPerWatchdog = 3
	// statusEvery is the time from one look at what `systemctl status` should say
	// to the next.
	statusEvery = 2 * time.Second
	// tellTime bounds how long a manager that does not read is waited for.
	tellTime = time.Second
)

// A manager is the service manager that has started us, by sd_notify(3)'s
// protocol. Without one, as from a shell, nil, it says nothing to nobody.
type manager struct {
	socket  int
	path    string
	timeout time.Duration // of the watchdog; 0: there is none

	mu     sync.Mutex
	failed time.Time // the last reload, if it has; else zero
	said   string    // the status
}

// findManager returns who listens at NOTIFY_SOCKET, if anybody does.
func findManager() (*manager, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET=%s: not the path of a socket: unset it", path)
	}
	timeout, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("WATCHDOG_USEC=%s: %w", os.Getenv("WATCHDOG_USEC"), err)
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(tellTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		unix.Close(socket)
		return nil, os.NewSyscallError("setsockopt SO_SNDTIMEO", err)
	}
	return &manager{socket: socket, path: path, timeout: timeout}, nil
}

func (m *manager) close() {
	if m != nil {
		unix.Close(m.socket)
	}
}

// tell sends assignments, all in one message.
func (m *manager) tell(assignments ...string) error {
	if m == nil {
		return nil
	}
	message, to := []byte(strings.Join(assignments, "\n")), &unix.SockaddrUnix{Name: m.path}
	err := unix.Sendto(m.socket, message, unix.MSG_NOSIGNAL, to)
	for errors.Is(err, unix.EINTR) {
		err = unix.Sendto(m.socket, message, unix.MSG_NOSIGNAL, to)
	}
	return os.NewSyscallError("sendto NOTIFY_SOCKET", err)
}

// heartbeat returns what the engine's loop calls, and how often; nil without a
// watchdog. It never waits: a manager that does not read must not hold up the
// loop. Nor does it complain: if all of them fail, the manager does.
func (m *manager) heartbeat() (func(), time.Duration) {
	if m == nil || m.timeout == 0 {
		return nil, 0
	}
	alive, to := []byte("WATCHDOG=1"), &unix.SockaddrUnix{Name: m.path}
	return func() {
		_ = unix.Sendto(m.socket, alive, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, to)
	}, m.timeout / beatsPerWatchdog
}

// reloading says that the configuration is being read again. The stamp tells a
// manager that waits for the end of this reload from one that began before
// (systemd.service(5), Type=notify-reload).
func (m *manager) reloading() error {
	if m == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	return m.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// reloaded says that it has been read again, or could not be, in which case the
// service is as well as before: ready, with a status that tells.
func (m *manager) reloaded(failed bool, now time.Time, targets int) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	m.failed = time.Time{}
	if failed {
		m.failed = now
	}
	m.mu.Unlock()
	return m.tell("READY=1", "STATUS="+m.status(targets))
}

// status is what `systemctl status` shows.
func (m *manager) status(targets int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = fmt.Sprintf("probing %d targets", targets)
	if targets == 1 {
		m.said = "probing 1 target"
	}
	if !m.failed.IsZero() {
		m.said += fmt.Sprintf("; the reload at %s failed: the configuration of before is in force", m.failed.Format(time.TimeOnly))
	}
	return m.said
}

// changed returns the status if it is not the one that was last asked for.
func (m *manager) changed(targets int) (string, bool) {
	m.mu.Lock()
	before := m.said
	m.mu.Unlock()
	now := m.status(targets)
	return now, now != before
}

// report keeps the manager's status true until ctx ends.
func (d *daemon) report(ctx context.Context) {
	if d.manager == nil {
		return
	}
	for every := time.NewTicker(statusEvery); ; {
		select {
		case <-ctx.Done():
			every.Stop()
			return
		case <-every.C:
			if status, changed := d.manager.changed(d.probed()); changed {
				d.notified(d.manager.tell("STATUS=" + status))
			}
		}
	}
}

// notified logs that the manager could not be told.
func (d *daemon) notified(err error) {
	if err != nil {
		d.log.Warn("cannot tell the service manager", "err", err)
	}
}
