package trust

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// taken runs the test's own binary as a probed that somebody has taken over, on a host
// whose other traffic goes on, and returns his account.
func taken(t *testing.T, env ...string) account {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, name := range []string{"file", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	here, there := lab.Pair(t)
	there.Listen("tcp", "0.0.0.0:80")
	ctx, cancel := context.WithCancel(t.Context())
	talked := make(chan int)
	hears, enough, err := os.Pipe() // which ends when others have talked
	if err != nil {
		t.Fatal(err)
	}
	defer hears.Close()
	go func() { // the traffic of others
		defer enough.Close()
		n := 0
		for end := time.Now().Add(patience); ctx.Err() == nil; {
			if c, err := here.Dial("tcp", "198.18.0.2:80", time.Second); err == nil {
				c.Close()
				n++
			}
			if n == 20 || time.Now().After(end) {
				enough.Close()
			}
			time.Sleep(5 * time.Millisecond)
		}
		talked <- n
	}()
	cmd := here.Command(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, takenOver+"="+dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}},
		AmbientCaps: []uintptr{capNetRaw},
	}
	cmd.Stdin = hears
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	cancel()
	if n := <-talked; n < 20 {
		t.Errorf("others made %d connections meanwhile: nothing is shown", n)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, said.String(), out.String())
	}
	var a account
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return a
}

// Somebody who makes probed's process do what he likes is held to what it had opened by
// then: he reads nothing of others, writes no file, runs no program, and gets no socket
// that a user without rights wouldn't get. What he can do all the same is said in
// docs/threat-model.md.
func TestRightsOfWhoTakesOver(t *testing.T) {
	t.Parallel()
	a, frames, before := taken(t), taken(t, sendsFrames+"=1"), taken(t, sendsFrames+"=1", unconfined+"=1")
	anyway := make(map[string]bool)
	for _, try := range attempts("") {
		anyway[try.what] = try.anyway
	}
	went, idle := 0, 0
	for what, got := range a.Attempts {
		want := unix.EPERM.Error()
		if what == "make a process by clone3" {
			want = unix.ENOSYS.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
			went++
		}
		// Without the filter each of these gets further, else nothing is shown; but for
		// filters, which the kernel itself has locked.
		if b := before.Attempts[what]; b == want && !anyway[what] && !strings.Contains(what, "filter") {
			t.Errorf("%s: %q before it was confined too: nothing is shown", what, b)
			idle++
		}
	}
	if a.Packets < 1 || frames.Packets < 2 || a.Raw < 4 || before.Sending != before.Packets {
		t.Errorf("%d packet sockets, %d raw sockets, by %d of %d a frame goes before it is confined: nothing is shown", a.Packets, a.Raw, before.Sending, before.Packets)
	}
	overheard := a.Overheard + frames.Overheard
	if overheard != 0 {
		t.Errorf("%d packets of others were read", overheard)
	}
	forged := a.Sending
	if a.Sending != 0 || a.Foreign == "" || frames.Foreign == "" {
		forged++
		t.Errorf("packets went from anybody's address: by %d packet sockets; by raw sockets %q, %q", a.Sending, a.Foreign, frames.Foreign)
	}
	if frames.Sending != 1 {
		t.Errorf("with transmit: packet %d sockets send frames, want the one that is for that", frames.Sending)
	}
	for what, err := range a.Works {
		if err != "" {
			t.Errorf("%s: %s: probed needs that", what, err)
		}
	}
	book(t, Row{
		Part: "rights", What: "taken over: system calls beyond what probed does", Tried: len(a.Attempts), Of: "calls", False: went, Left: idle,
		Note: fmt.Sprintf("each refused; before it is confined %d of them go", goes(before)),
	})
	book(t, Row{
		Part: "rights", What: "taken over: reading others' traffic by the sockets at hand", Tried: a.Packets + a.Raw + frames.Packets + frames.Raw, Of: "sockets", False: overheard, Left: unlooked,
		Note: "their filters are locked: 0 packets overheard",
	})
	book(t, Row{
		Part: "rights", What: "taken over: sending from addresses of others", Tried: a.Packets + a.Raw, Of: "sockets", False: forged, Left: unlooked,
		Note: "the kernel writes the source; with transmit: packet one socket could",
	})
}

func goes(a account) (n int) {
	for _, err := range a.Attempts {
		if err == "" {
			n++
		}
	}
	return n
}

// Where the kernel has no seccomp, or another filter refuses to have one installed, and
// capabilities can't be given up, probed says so once and probes.
func TestRightsRefused(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.Listen("tcp", "0.0.0.0:80")
	d := start(t, here, "jobs:\n- {name: refused, interval: 100ms, timeout: 90ms, targets: ['198.18.0.2:80']}\n",
		asRoot, func(c *lab.Cmd) { // by way of this binary, which forbids seccomp(2) and capset(2) and becomes probed
			c.Env = append(c.Env, forbidding+"="+c.Path)
			c.Path = "/proc/self/exe"
		})
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 20) })
	said := d.out.String()
	if n := strings.Count(said, "level=WARN"); n != 1 || !strings.Contains(said, "seccomp: operation not permitted") || !strings.Contains(said, "capset: operation not permitted") {
		t.Errorf("probed said %d warnings:\n%s", n, said)
	}
	s := d.scrape()
	book(t, Row{
		Part: "rights", What: "seccomp and capset forbidden to probed", Tried: 1, Of: "times", Probes: int(s.sum("probed_probes_total")),
		False: int(s.sum("probed_probe_failures_total")), Discarded: int(s.sum("probed_probes_discarded_total")), Left: lasting(there), Note: "one warning, and it probes",
	})
}
