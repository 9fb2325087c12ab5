package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The cores: what is measured is tied to the first, everything else that we start
// to the second.
const ours, theirs = 0, 1

// Where the targets are, 65,536 of them, and the ports that they listen on.
const (
	prefix    = "198.19.0.0/16"
	firstPort = 80
	ports     = 16
)

// A world is a host to measure from and one whose every address of prefix is a
// target: a real kernel's listeners.
type world struct {
	t           testing.TB
	here, there *lab.Host
}

// newWorld makes one, with room for every handshake that is under way: SYN cookies
// are another job.
func newWorld(t testing.TB) *world {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Fatalf("%d core: what is measured wants one of its own, and everything else another", runtime.NumCPU())
	}
	w := &world{t: t}
	stayOff(t, ours)
	w.here, w.there = lab.Pair(t)
	w.there.AnyIP(prefix)
	w.there.Sysctl("net.core.somaxconn", "262144")
	w.there.Sysctl("net.ipv4.tcp_max_syn_backlog", "262144")
	return w
}

// listen opens the targets' ports. Nothing accepts: a handshake that ends with a
// RST never gets to the accept queue.
func (w *world) listen() {
	w.t.Helper()
	for port := range uint16(ports) {
		w.there.Backlog(netip.AddrPortFrom(netip.IPv4Unspecified(), firstPort+port), 262144)
	}
}

// target is the nth address of prefix, which begins anew after the last.
func target(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 19, byte(n >> 8), byte(n)})
}

// steer has the kernel take what arrives at a host on one core (RPS), or, with -1,
// on the core that sends it.
func (w *world) steer(h *lab.Host, core int) {
	w.t.Helper()
	mask := "0"
	if core >= 0 {
		mask = fmt.Sprintf("%x", 1<<core)
	}
	folder := w.t.TempDir()
	var err error
	h.Do(func() { err = writeSysfs(folder, "class/net/"+h.Iface()+"/queues/rx-0/rps_cpus", mask) })
	if err != nil {
		w.t.Fatalf("host %s: %v", h.Name, err)
	}
}

// writeSysfs writes to a file of the sysfs that shows the calling thread's network
// namespace: a mount of it shows whoever made it. The thread gets a mount namespace
// of its own, and is of no use afterwards.
func writeSysfs(folder, file, text string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("sysfs", folder, "sysfs", 0, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return os.WriteFile(folder+"/"+file, []byte(text), 0)
}

// command returns a program that runs inside a host and on one core only, or with
// core -1 wherever the kernel lets it.
func (w *world) command(core int, h *lab.Host, name string, args ...string) *lab.Cmd {
	w.t.Helper()
	cores := fmt.Sprint(core)
	if core < 0 {
		cores = fmt.Sprintf("0-%d", runtime.NumCPU()-1)
	}
	return h.Command(context.WithoutCancel(w.t.Context()), "taskset", append([]string{"-c", cores, name}, args...)...)
}

// settle waits until no handshake is left half open at the targets, and fails the
// test if one is after limit.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	lab.Eventually(w.t, limit, func() error {
		if n := len(lab.SS(w.there, "SYN-RECV")); n > 0 {
			return fmt.Errorf("%d handshakes are half open", n)
		}
		return nil
	})
}

// stayOff keeps this process, with the targets' application and what drives a tool,
// off a core: its threads, and so those that they will make.
func stayOff(t testing.TB, core int) {
	t.Helper()
	var set unix.CPUSet
	for i := range runtime.NumCPU() {
		if i != core {
			set.Set(i)
		}
	}
	threads, err := filepath.Glob("/proc/self/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(os.NewSyscallError("sched_setaffinity", err))
		}
	}
}

// dropped is how many packets a host's device dropped on arrival.
func (w *world) dropped(h *lab.Host) (n int64) {
	w.t.Helper()
	h.Do(func() {
		link, err := netlink.LinkByName(h.Iface())
		if err != nil {
			w.t.Fatal(err)
		}
		n = int64(link.Attrs().Statistics.RxDropped)
	})
	return n
}
