package booted

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asContainer is the variable by which a test has its own binary start a program as a
// container's runtime does; its value is a jail.
const asContainer = "PROBED_TEST_CONTAINER"

// A jail is how a container's program runs.
type jail struct {
	Root       string
	UID, GID   int
	Bounding   []int // capabilities that it may have at most
	Permitted  bool  // it has them already before the program is started, as a pod has
	NoNewPrivs bool
	Args       []string
}

// What Docker leaves to a container by default, capabilities(7) by number: chown,
// dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
// net_raw, sys_chroot, mknod, audit_write, setfcap.
var dockersDefault = []int{0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}

// beContainer becomes the program of the jail in asContainer.
func beContainer() {
	var j jail
	err := json.Unmarshal([]byte(os.Getenv(asContainer)), &j)
	if err == nil {
		runtime.LockOSThread() // all of it is this thread's, which then becomes the program
		err = j.enter()
	}
	fmt.Fprintln(os.Stderr, "container:", err)
	os.Exit(125)
}

// enter does what runc does, in its order.
func (j *jail) enter() error {
	step := os.NewSyscallError
	if err := step("mount private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return err
	}
	if err := step("mount proc", unix.Mount("/proc", filepath.Join(j.Root, "proc"), "", unix.MS_BIND, "")); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link: %w: %s", err, out)
	}
	if err := step("chroot", unix.Chroot(j.Root)); err != nil {
		return err
	}
	if err := step("chdir", unix.Chdir("/")); err != nil {
		return err
	}
	for c := range 64 {
		if !has(j.Bounding, c) && unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) != nil {
			break // beyond the last one that the kernel knows
		}
	}
	if err := step("prctl", unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return step("setgroups", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGID, uintptr(j.GID), 0, 0); e != 0 {
		return step("setgid", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETUID, uintptr(j.UID), 0, 0); e != 0 {
		return step("setuid", e)
	}
	var caps [2]unix.CapUserData
	if j.Permitted || j.UID == 0 {
		for _, c := range j.Bounding {
			caps[c/32].Permitted |= 1 << (c % 32)
			caps[c/32].Effective |= 1 << (c % 32)
		}
	}
	if err := step("capset", unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])); err != nil {
		return err
	}
	if j.NoNewPrivs {
		if err := step("prctl", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); err != nil {
			return err
		}
	}
	return step("execve "+j.Args[0], syscall.Exec(j.Args[0], j.Args, []string{"PATH=/usr/bin"}))
}

func has(all []int, one int) bool {
	for _, c := range all {
		if c == one {
			return true
		}
	}
	return false
}

// A recipe is what the Dockerfile says.
type recipe struct {
	add        [][2]string // from the context, to the image
	uid, gid   int
	entrypoint []string
}

// readRecipe reads a Dockerfile of few words; others are mistakes, or are to be
// taught here and to the test.
func readRecipe(t *testing.T) recipe {
	t.Helper()
	text, err := os.ReadFile("../../deploy/container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var r recipe
	from := ""
	for n, line := range strings.Split(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		bad := func(err error) {
			if err != nil {
				t.Fatalf("Dockerfile:%d: %s: %v", n+1, line, err)
			}
		}
		if from == "" && word != "" && word[0] != '#' && word != "FROM" {
			bad(errors.New("before FROM"))
		}
		switch {
		case line == "" || line[0] == '#':
		case word == "FROM":
			from = rest
		case word == "ADD":
			f := strings.Fields(rest)
			if len(f) != 2 || !strings.HasSuffix(f[0], ".tar") || f[1] != "/" {
				bad(errors.New("not ADD FILE.tar /"))
			}
			r.add = append(r.add, [2]string{f[0], f[1]})
		case word == "USER":
			if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(rest) {
				bad(errors.New("not the numbers of a user and a group that are not root"))
			}
			_, err := fmt.Sscanf(rest, "%d:%d", &r.uid, &r.gid)
			bad(err)
		case word == "EXPOSE":
			if _, port, _ := strings.Cut(page, "1:"); rest != port {
				bad(fmt.Errorf("the pages are at %s", port))
			}
		case word == "ENTRYPOINT":
			bad(json.Unmarshal([]byte(rest), &r.entrypoint))
		default:
			bad(errors.New("unknown instruction"))
		}
	}
	if from != "scratch" || r.add == nil || r.uid == 0 || len(r.entrypoint) == 0 {
		t.Fatalf("the recipe is from %q: %+v", from, r)
	}
	return r
}

// image unpacks what the recipe adds, as Docker does.
func (r *recipe) image(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "probed-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, add := range r.add {
		command(t, "tar", "-C", filepath.Join(root, add[1]), "--numeric-owner", "--xattrs", "--xattrs-include=*",
			"-xpf", built(t, "DIST", "../../dist", add[0]))
	}
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o555); err != nil { // a runtime does
		t.Fatal(err)
	}
	return root
}

// A contained is a program in a jail.
type contained struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}
}

func (j *jail) start(t *testing.T) *contained {
	t.Helper()
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	c := &contained{cmd: exec.Command("/proc/self/exe"), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), asContainer+"="+string(b))
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait()
		}
		close(c.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("it said:\n%s", c.stderr.String())
		}
	})
	return c
}

// TestContainer runs the image's files as a container's runtime would, in the ways
// that the recipe speaks of.
func TestContainer(t *testing.T) {
	t.Parallel()
	const netRaw = 13
	r := readRecipe(t)
	root := r.image(t)
	if caps := command(t, "getcap", filepath.Join(root, r.entrypoint[0])); !strings.HasSuffix(strings.TrimSpace(caps), " cap_net_raw=ep") {
		t.Errorf("getcap says %q", caps)
	}
	for _, tt := range []struct {
		name string
		jail jail
		fail string // what it says then
	}{
		{"NET_RAW added", jail{UID: r.uid, GID: r.gid, Bounding: []int{netRaw}}, ""},
		{"Docker's default capabilities", jail{UID: r.uid, GID: r.gid, Bounding: dockersDefault}, ""},
		{"a pod, no new privileges", jail{UID: r.uid, GID: r.gid, Bounding: []int{netRaw}, Permitted: true, NoNewPrivs: true}, ""},
		{"user 0, no new privileges", jail{Bounding: []int{netRaw}, NoNewPrivs: true}, ""},
		{"Docker, no new privileges", jail{UID: r.uid, GID: r.gid, Bounding: []int{netRaw}, NoNewPrivs: true}, "CAP_NET_RAW"},
		{"without NET_RAW", jail{UID: r.uid, GID: r.gid}, "operation not permitted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := tt.jail
			j.Root, j.Args = root, r.entrypoint
			c := j.start(t)
			if tt.fail != "" {
				select {
				case <-c.ended:
				case <-time.After(10 * time.Second):
					t.Fatal("it runs")
				}
				if said := c.stderr.String(); c.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(said, tt.fail) {
					t.Errorf("%v; it does not say %q:\n%s", c.cmd.ProcessState, tt.fail, said)
				}
				return
			}
			m := at(t, c.cmd.Process.Pid)
			m.awaitSample(2, "probed_handshake_rtt_seconds_count", `module="half_open"`)
			m.awaitSample(1, "probed_teardowns_total", `module="active_close"`)
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
			if want := fmt.Sprintf("\nCapPrm:\t%016x\n", 1<<netRaw); err != nil || !strings.Contains(string(status), want) {
				t.Errorf("%v; not%s in\n%s", err, want, status)
			}
			if want := "\nUid:\t" + strconv.Itoa(j.UID) + "\t"; !strings.Contains(string(status), want) {
				t.Errorf("not%s in\n%s", want, status)
			}
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-c.ended:
			case <-time.After(10 * time.Second):
				t.Fatal("it does not end")
			}
			if code := c.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
