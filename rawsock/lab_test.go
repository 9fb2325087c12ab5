package rawsock

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace of a test's own, with loopback up. It
// lives in one locked thread that is never unlocked: when the test ends the
// thread dies, and with it the namespace.
type namespace struct {
	tid   int
	calls chan func()
}

// newNamespace makes a namespace. Tests need root for it and say so.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	ns := &namespace{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- fmt.Errorf("a network namespace needs root: %w", err)
			return
		}
		ns.tid = unix.Gettid()
		ready <- loopbackUp()
		for call := range ns.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(ns.calls) })
	return ns
}

// do runs f in the namespace; f must not call t.Fatal.
func (ns *namespace) do(f func() error) error {
	done := make(chan error)
	ns.calls <- func() { done <- f() }
	return <-done
}

// must runs f in the namespace and ends the test on error.
func (ns *namespace) must(t testing.TB, f func() error) {
	t.Helper()
	if err := ns.do(f); err != nil {
		t.Fatal(err)
	}
}

// run runs commands there, one a line.
func (ns *namespace) run(t testing.TB, script string, args ...any) {
	t.Helper()
	ns.must(t, func() error {
		for line := range strings.Lines(fmt.Sprintf(script, args...)) {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			cmd := exec.Command(words[0], words[1:]...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.TrimSpace(line), err, out.Bytes())
			}
		}
		return nil
	})
}

// newVeth returns two namespaces joined by a veth pair: 198.18.0.1 and .2,
// 2001:db8::1 and ::2, on devices named veth.
func newVeth(t testing.TB) (here, there *namespace) {
	t.Helper()
	here, there = newNamespace(t), newNamespace(t)
	here.run(t, "ip link add veth type veth peer name veth netns %d", there.tid)
	for i, ns := range []*namespace{here, there} {
		ns.run(t, `
			ip addr add 198.18.0.%[1]d/24 dev veth
			ip addr add 2001:db8::%[1]d/64 dev veth nodad
			ip link set veth up`, i+1)
	}
	here.running(t, "veth")
	there.running(t, "veth")
	return here, there
}

// running waits until the link's event has been worked off, up to 1 s after it
// came up; until then packets go nowhere (net/core/link_watch.c).
func (ns *namespace) running(t testing.TB, device string) {
	t.Helper()
	ns.must(t, func() error {
		for range 300 {
			link, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			if link.Flags&net.FlagRunning != 0 {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return fmt.Errorf("%s does not come up", device)
	})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
