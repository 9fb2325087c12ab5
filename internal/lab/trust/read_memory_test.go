package trust

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/probed/probed/internal/lab"
)

// A container is a control group with so much memory, counted as in version 2 of control
// groups: what the kernel has for its sockets too.
type container struct {
	t   *testing.T
	dir string
	v1  bool
}

// contain makes one.
func contain(t *testing.T, octets int) container {
	t.Helper()
	c, base, limits := container{t: t}, "/sys/fs/cgroup", []string{"memory.max"}
	if _, err := os.Stat(base + "/memory/memory.limit_in_bytes"); err == nil {
		c.v1, base, limits = true, base+"/memory", []string{"memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"}
	}
	dir, err := os.MkdirTemp(base, "probed-trust-")
	if err == nil {
		t.Cleanup(func() { _ = os.Remove(dir) })
	}
	c.dir = dir
	for i, file := range limits {
		if err == nil { // of sockets any limit has them counted
			err = os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, octets<<(8*i)), 0)
		}
	}
	if err != nil {
		t.Fatalf("a control group: %v", err)
	}
	return c
}

// inside has probed run in it.
func (c container) inside(cmd *lab.Cmd) {
	asRoot(cmd) // who may join it
	cmd.Args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(c.dir, "cgroup.procs"), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// most is how much memory it has had, in MiB, and how much of it the kernel's sockets.
func (c container) most() (all, sockets float64) {
	c.t.Helper()
	if !c.v1 { // which says of sockets only what they have
		return c.mebi("memory.peak"), 0
	}
	sockets = c.mebi("memory.kmem.tcp.max_usage_in_bytes")
	return c.mebi("memory.max_usage_in_bytes") + sockets, sockets
}

func (c container) mebi(file string) float64 {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		c.t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return float64(n) / (1 << 20)
}

// TestReadsWithinMemory has probed, in as much memory as deploy/kubernetes gives it, read a
// broken file of 300,000 targets and an answer with as many that are none. It says that they
// are too large, goes on probing, and reads what fits.
func TestReadsWithinMemory(t *testing.T) {
	here, there := lab.Pair(t)
	servers(there)
	var answer atomic.Value
	answer.Store(`[]`)
	var l net.Listener
	var err error
	here.Do(func() { l, err = net.Listen("tcp", "127.0.0.1:8080") })
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer.Load().(string))
	})}
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close() })
	good := everyKind(20) + "- name: found\n  interval: 10s\n  http_sd_configs: [{url: \"http://127.0.0.1:8080/\", refresh_interval: 500ms}]\n"
	d := start(t, here, good, contain(t, 128<<20).inside)
	says := func(text string, from int) {
		t.Helper()
		lab.Eventually(t, patience, func() error {
			select {
			case <-d.ended:
				t.Fatalf("probed has ended: %v", d.err)
			default:
			}
			if out := d.out.String()[from:]; !strings.Contains(out, text) {
				return fmt.Errorf("not said: %s", text)
			}
			return nil
		})
	}
	said := len(d.out.String())
	answer.Store(`[{"targets": ["` + strings.Repeat(`x","`, 300_000) + `x"]}]`)
	says("the answer is too large: reading it takes ", said)

	said = len(d.out.String())
	d.write(good + "- name: broken\n  targets:\n" + strings.Repeat("  - \"no target, this is one of very many\"\n", 300_000))
	d.signal(syscall.SIGHUP)
	says("the file is too large: reading it takes ", said)

	said = len(d.out.String())
	answer.Store(`[{"targets": ["` + strings.Repeat(`x","`, 10_000) + `x"]}]`)
	d.write(good)
	d.signal(syscall.SIGHUP)
	says("configuration reloaded", said)
	says("discovered targets are not probed", said)
	if most := lab.MostResident(t, d.cmd.Process.Pid); most > mostMemory {
		t.Errorf("probed took %.0f MiB", most)
	}
}
