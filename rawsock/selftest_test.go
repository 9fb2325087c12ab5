package rawsock

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// selfTestIn runs the self-test in a namespace and checks what its error says;
// "" stands for none.
func selfTestIn(t *testing.T, ns *namespace, reserved, guarded uint16, want string) time.Duration {
	t.Helper()
	start := time.Now()
	err := ns.do(func() error { return SelfTest(reserved, guarded) })
	if err == nil != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	return time.Since(start)
}

func TestSelfTest(t *testing.T) {
	ns := newNamespace(t)
	holdBoth(t, ns)
	tap := newTap(t, ns, TapConfig{FirstPort: reservedPort, LastPort: guardedPort})
	if took := selfTestIn(t, ns, reservedPort, guardedPort, ""); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	// IPv4 and IPv6, leaving and arriving: two SYNs, two SYN-ACKs and a RST.
	frames := collect(t, tap, 100*time.Millisecond, forTime)
	if len(frames) != 2*2*5 {
		t.Errorf("on the wire:\n%s", summary(frames))
	}
}

// Several at once, as of several probeds on a host, don't confuse each other.
func TestSelfTestConcurrently(t *testing.T) {
	ns := newNamespace(t)
	const runs = 4
	ns.must(t, func() error {
		reserved, err := ReservePorts(61000, 61000+runs-1)
		if err != nil {
			return err
		}
		defer reserved.Close()
		guarded, err := GuardPorts(61100, 61100+runs-1)
		if err != nil {
			return err
		}
		defer guarded.Close()

		var wg sync.WaitGroup
		errs := make([]error, runs)
		for i := range errs {
			tid := ns.tid
			wg.Go(func() { // a thread of its own, which enters the namespace and ends
				errs[i] = inNamespaceOf(tid, func() error {
					return SelfTest(61000+uint16(i), 61100+uint16(i))
				})
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

func TestSelfTestFindsWhatDoesNotHold(t *testing.T) {
	ns := newNamespace(t)
	holdBoth(t, ns)
	selfTestIn(t, ns, guardedPort, reservedPort, "the kernel answered a SYN-ACK to port 61000, which its guard should have kept silent")
	// Two guarded ports: the first is to be reset and isn't.
	selfTestIn(t, ns, guardedPort, guardedPort, "no RST in answer to a SYN-ACK to port 61001")
	// A port that nobody holds is reset like a reserved one.
	selfTestIn(t, ns, reservedPort, 61002, "its guard should have kept silent")
}

func TestSelfTestLoopbackDown(t *testing.T) {
	ns := newNamespace(t)
	holdBoth(t, ns)
	ns.run(t, "ip link set lo down")
	selfTestIn(t, ns, reservedPort, guardedPort, "loopback is down: bring it up (ip link set lo up)")
}

func TestSelfTestWithoutIPv6(t *testing.T) {
	ns := newNamespace(t)
	ns.run(t, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	holdBoth(t, ns)
	selfTestIn(t, ns, reservedPort, guardedPort, "")
	selfTestIn(t, ns, reservedPort, 61002, "IPv4: the kernel answered")
}

// A firewall that drops what connection tracking doesn't know lets the
// self-test pass: its exchange is a real one. One that drops everything is
// named as the likely cause.
func TestSelfTestAndFirewalls(t *testing.T) {
	ns := newNamespace(t)
	holdBoth(t, ns)
	ns.run(t, `
		nft add table inet t
		nft add chain inet t in { type filter hook input priority 0 ; }
		nft add rule inet t in ct state invalid drop`)
	selfTestIn(t, ns, reservedPort, guardedPort, "")
	ns.run(t, "nft add rule inet t in meta l4proto tcp drop")
	selfTestIn(t, ns, reservedPort, guardedPort, "no SYN-ACK came back: does a firewall drop TCP on loopback?")
	ns.run(t, `
		nft add chain inet t out { type filter hook output priority 0 ; }
		nft add rule inet t out meta l4proto tcp drop`)
	selfTestIn(t, ns, reservedPort, guardedPort, "a SYN could not be sent: sendmmsg: operation not permitted")
	ns.run(t, `
		nft flush chain inet t in
		nft flush chain inet t out
		nft add rule inet t out tcp flags rst drop`)
	selfTestIn(t, ns, reservedPort, guardedPort, "no RST in answer to a SYN-ACK to port 61000")
}

// inNamespaceOf runs f on a thread that joins another's network namespace.
func inNamespaceOf(tid int, f func() error) error {
	done := make(chan error)
	go func() {
		done <- func() error {
			if err := join(tid); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

// join locks the goroutine to its thread for good and moves that.
func join(tid int) error {
	runtime.LockOSThread()
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
