package rawsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childRole names, in the environment, what a re-executed test binary is to do
// instead of the tests.
const childRole = "RAWSOCK_TEST_CHILD"

const nobody = 65534

func TestMain(m *testing.M) {
	role := os.Getenv(childRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := childMain(role); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func childMain(role string) error {
	switch role {
	case "capable":
		return errors.Join(checkPrivileges(1<<unix.CAP_NET_RAW), operate())
	case "incapable":
		return errors.Join(checkPrivileges(0), checkRefusals())
	}
	return fmt.Errorf("no role %q", role)
}

// Everything the package does works as a user without any right but
// CAP_NET_RAW, who cannot gain one.
func TestWithNetRawOnly(t *testing.T) { runChild(t, "capable", unix.CAP_NET_RAW) }

// Without it the error is the one sentence, and what needs no capability works.
func TestWithoutNetRaw(t *testing.T) { runChild(t, "incapable") }

// runChild re-executes the test binary in a namespace of its own as nobody,
// with no_new_privs and the given capabilities alone.
func runChild(t *testing.T, role string, caps ...uintptr) {
	t.Helper()
	binary := readableCopy(t)
	newNamespace(t).must(t, func() error {
		// Inherited by what this thread starts; the thread ends with the test.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		cmd := exec.Command(binary)
		cmd.Dir = "/"
		cmd.Env = []string{childRole + "=" + role}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
			AmbientCaps: caps,
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// readableCopy copies the test binary to where nobody can run it.
func readableCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rawsock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "rawsock.test")
	if err := errors.Join(os.Chmod(dir, 0o755), copyFile(path, "/proc/self/exe")); err != nil {
		t.Fatal(err)
	}
	return path
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// checkPrivileges fails unless the process has just these capabilities.
func checkPrivileges(caps uint64) error {
	if os.Getuid() != nobody || os.Geteuid() != nobody || os.Getgid() != nobody {
		return fmt.Errorf("running as uid %d, gid %d", os.Getuid(), os.Getgid())
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, line := range []string{
		fmt.Sprintf("CapPrm:\t%016x\n", caps), fmt.Sprintf("CapEff:\t%016x\n", caps), "NoNewPrivs:\t1\n",
	} {
		if !bytes.Contains(status, []byte(line)) {
			return fmt.Errorf("not %q in:\n%s", line, status)
		}
	}
	return nil
}

// operate does once what the package can do.
func operate() error {
	reserved, err := ReservePorts(61000, 61003)
	if err != nil {
		return err
	}
	defer reserved.Close()
	guarded, err := GuardPorts(61004, 61007)
	if err != nil {
		return err
	}
	defer guarded.Close()
	if err := SelfTest(61001, 61006); err != nil {
		return err
	}
	routes, err := NewRoutes()
	if err != nil {
		return err
	}
	defer routes.Close()
	tap, err := OpenTap(TapConfig{FirstPort: 61000, LastPort: 61007})
	if err != nil {
		return err
	}
	defer tap.Close()
	sender, err := NewSender()
	if err != nil {
		return err
	}
	defer sender.Close()
	if err := sender.AllowHops(); err != nil {
		return err
	}
	if err := errors.Join(sender.hops.follow(), sender.frames.prioritise(6)); err != nil {
		return err
	}
	if w, ok := sender.hops.kernel.askRoute(netip.IPv6Loopback(), netip.IPv6Loopback(), 0, 0); ok {
		return fmt.Errorf("a way to this host itself: %+v", w)
	}
	if l := sender.hops.kernel.askLink(1); l.ethernet || l.mtu == 0 {
		return fmt.Errorf("lo is %+v", l)
	}
	poller, err := NewPoller(tap.FD())
	if err != nil {
		return err
	}
	defer poller.Close()
	if err := PreciseTimers(); err != nil {
		return err
	}

	for _, to := range []string{"127.0.0.1", "::1"} {
		dst := netip.MustParseAddr(to)
		for _, device := range []string{"", "lo"} {
			for _, source := range []netip.Addr{{}, dst} {
				src, _, err := routes.Source(dst, source, device)
				if err != nil || src != dst {
					return fmt.Errorf("source for %s from %q by %q: %s, %w", to, source, device, src, err)
				}
			}
		}
		if err := exchange(tap, sender, poller, dst); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	if drops, err := tap.Drops(); err != nil || drops != 0 {
		return fmt.Errorf("%d drops, %w", drops, err)
	}
	return refuseSpoofing(sender)
}

// exchange sends a SYN with everything set that a Packet can set to a port
// where nobody listens, and awaits the RST.
func exchange(tap *Tap, sender *Sender, poller *Poller, addr netip.Addr) error {
	s := seg{from: netip.AddrPortFrom(addr, 61000), to: netip.AddrPortFrom(addr, 9), flags: syn}
	p := s.packet()
	p.TTL, p.TOS, p.Ifindex = 77, 0x10, 1
	var failed error
	sender.Send([]Packet{p}, func(_ int, err error) { failed = err })
	if failed != nil {
		return failed
	}
	sent, answered := false, false
	for deadline := time.Now().Add(3 * time.Second); !sent || !answered; {
		if _, err := poller.Wait(time.Until(deadline), true); err != nil || time.Now().After(deadline) {
			return fmt.Errorf("sent %v, answered %v, error %w", sent, answered, err)
		}
		tap.Drain(100, func(f *Frame) {
			got, ttl, tos, ok := seen(f.Data)
			sent = sent || ok && got.from == s.from && got.to == s.to && f.Outgoing && ttl == 77 && tos == 0x10
			answered = answered || ok && got.from == s.to && got.to == s.from && got.flags == rst|ack
		})
	}
	return nil
}

// refuseSpoofing shows that the kernel refuses sources that aren't ours.
func refuseSpoofing(sender *Sender) error {
	for _, pair := range [][2]string{{"198.18.0.9", "127.0.0.1"}, {"2001:db8::9", "::1"}} {
		var refused error
		p := seg{from: addrPort(pair[0], 61000), to: addrPort(pair[1], 9), flags: syn}.packet()
		sender.Send([]Packet{p}, func(_ int, err error) { refused = err })
		if !errors.Is(refused, unix.EINVAL) && !errors.Is(refused, unix.ENETUNREACH) {
			return fmt.Errorf("from %s: %w", pair[0], refused)
		}
	}
	return nil
}

// checkRefusals tries what needs the capability, and what doesn't.
func checkRefusals() error {
	const sentence = "raw sockets need CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep probed`, " +
		"or set AmbientCapabilities=CAP_NET_RAW in the unit"
	_, tapErr := OpenTap(TapConfig{FirstPort: 61000, LastPort: 61007})
	_, senderErr := NewSender()
	for _, err := range []error{tapErr, senderErr} {
		if err == nil || err.Error() != sentence || !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("without CAP_NET_RAW: %w", err)
		}
	}
	reserved, err := ReservePorts(61000, 61003)
	if err != nil {
		return err
	}
	guarded, err := GuardPorts(61004, 61007)
	if err != nil {
		return err
	}
	if err := SelfTest(61000, 61004); err == nil || !strings.HasSuffix(err.Error(), sentence) {
		return fmt.Errorf("self-test without CAP_NET_RAW: %w", err)
	}
	routes, err := NewRoutes()
	if err != nil {
		return err
	}
	return errors.Join(reserved.Close(), guarded.Close(), routes.Close())
}
