package trust

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/probed/probed/internal/lab"
)

// within has probed run in a control group of its own with so much memory.
func within(t *testing.T, octets int) option {
	t.Helper()
	base, file := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(base + "/memory/memory.limit_in_bytes"); err == nil { // version 1
		base, file = base+"/memory", "memory.limit_in_bytes"
	}
	dir, err := os.MkdirTemp(base, "probed-trust-")
	if err == nil {
		t.Cleanup(func() { _ = os.Remove(dir) })
		err = os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, octets), 0)
	}
	if err != nil {
		t.Fatalf("a control group: %v", err)
	}
	return func(c *lab.Cmd) {
		asRoot(c) // who may join it
		c.Args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs"), c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
	}
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
	d := start(t, here, good, within(t, 128<<20))
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
