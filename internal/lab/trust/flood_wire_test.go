package trust

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe/wire"
)

// fromOurs is the capture filter for what leaves from probed's source ports, whoever
// sends it.
const fromOurs = "tcp and src portrange 61000-61255"

// A leaver is a segment that left.
type leaver struct {
	wire.Packet
	wall int64
}

// leavers are a capture's.
func leavers(t *testing.T, c *lab.Capture) (all []leaver) {
	t.Helper()
	for _, p := range c.Packets() {
		l := leaver{wall: p.Wall}
		if err := wire.ParseUnverified(p.Data, &l.Packet); err != nil {
			t.Fatalf("captured %x: %v", p.Data, err)
		}
		if p.Outgoing && l.Kind == wire.KindTCP {
			all = append(all, l)
		}
	}
	return all
}

// A load is what segments make of the limits.
type load struct {
	second  int // most in any second, wherever it begins
	address int // most to one address
	above   int // what is beyond the limits, in all
}

// loadOf holds segments from a moment on, 0 for all, against limits.
func loadOf(all []leaver, from int64, global, each int) (l load) {
	to := make(map[netip.Addr][]int64)
	var stamps []int64
	for _, s := range all {
		if s.wall >= from {
			stamps = append(stamps, s.wall)
			to[s.Dst] = append(to[s.Dst], s.wall)
		}
	}
	l.second = busiest(stamps)
	l.above = max(l.second-global, 0)
	for _, stamps := range to {
		n := busiest(stamps)
		l.address = max(l.address, n)
		l.above += max(n-each, 0)
	}
	return l
}

func (l load) String() string {
	return fmt.Sprintf("%s packets in the busiest second, %s to one address", thousands(l.second), thousands(l.address))
}

// busiest is the most stamps, in ns, within one second, wherever it begins.
func busiest(stamps []int64) (most int) {
	slices.Sort(stamps)
	from := 0
	for i, at := range stamps {
		for at-stamps[from] >= int64(time.Second) {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// resolving has the daemon ask a name server on its own host. What mounts a file over
// /etc/resolv.conf must be root, and becomes what start makes of it after.
func resolving(t *testing.T) option {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(c *lab.Cmd) {
		const script = `mount --make-rprivate / && mount --bind "$0" /etc/resolv.conf && exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all,+net_raw --ambient-caps +net_raw --bounding-set -all,+net_raw "$@"`
		c.Args = append([]string{"sh", "-c", script, file, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
}
