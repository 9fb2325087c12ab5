package booted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is a Debian that is running.
type machine struct {
	t      *testing.T
	leader int // its PID 1, as we see it
	http   *http.Client
}

// debian is where the Debian is unpacked.
var (
	debian     string
	unpackOnce sync.Once
)

func TestMain(m *testing.M) {
	if os.Getenv(asContainer) != "" {
		beContainer()
	}
	dir, err := os.MkdirTemp("", "probed-booted-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	debian = filepath.Join(dir, "debian")
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// built returns a file that make test has built, by the variable that names it or
// where it is by default; the last path element may be a pattern.
func built(t *testing.T, variable, byDefault, name string) string {
	t.Helper()
	pattern := byDefault
	if v := os.Getenv(variable); v != "" {
		pattern = v
	}
	files, err := filepath.Glob(filepath.Join(pattern, name))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %d files, %v; make test makes it", filepath.Join(pattern, name), len(files), err)
	}
	file, err := filepath.Abs(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// thePackage is the .deb for this machine.
func thePackage(t *testing.T) string {
	return built(t, "DIST", "../../dist", "probed_*_"+runtime.GOARCH+".deb")
}

// unpack makes the Debian's folder.
func unpack(t *testing.T) {
	t.Helper()
	tar := built(t, "DEBIAN_ROOT", "../../.cache/debian-bookworm.tar", "")
	if err := os.Mkdir(debian, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", debian, "--numeric-owner", "-xpf", tar).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", tar, err, out)
	}
}

// boot starts a machine that sees the given folders and files, read-only, at /given.
func boot(t *testing.T, given ...string) *machine {
	t.Helper()
	unpackOnce.Do(func() { unpack(t) })
	name := fmt.Sprintf("probed-%d-%d", os.Getpid(), time.Now().UnixNano())
	args := []string{
		"--quiet", "--boot", "--console=pipe", "--directory=" + debian, "--volatile=overlay",
		"--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--machine=" + name,
		"--register=no",
		"--capability=CAP_BPF,CAP_PERFMON", // or the unit's IPAddressDeny= would say nothing
	}
	var group *os.File
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		args = append(args, "--keep-unit") // there is nobody to ask for another
		group = ownGroup(t, name)
		defer group.Close()
	}
	for _, path := range given {
		args = append(args, fmt.Sprintf("--bind-ro=%s:/given/%s", path, filepath.Base(path)))
	}
	cmd := exec.Command("systemd-nspawn", args...)
	cmd.Env = append(os.Environ(),
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", // as machines of today have it, whatever this one has
		"SYSTEMD_NSPAWN_LOCK=0",              // several machines may lie over one Debian
		"SYSTEMD_SECCOMP=0",                  // nspawn's own filter has no bpf(2)
	)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	// It has no terminal, and ends with us: on a thread that lives as long, because the
	// signal is sent when the thread that forked ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if group != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("systemd-nspawn: %v", err)
	}
	m := at(t, 0)
	t.Cleanup(func() {
		if t.Failed() && m.leader != 0 {
			said, _ := m.try("journalctl", "--no-pager", "--lines=60", "--unit=probed.service")
			t.Logf("the journal:\n%s", said)
		}
		// The first one asks the machine to halt, the second doesn't wait for it.
		for range 2 {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(500 * time.Millisecond):
			}
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("the console:\n%s", console.String())
		}
	})
	m.await(30*time.Second, "its PID 1", func() error {
		select {
		case <-ended:
			t.Fatalf("systemd-nspawn ended:\n%s", console.String())
		default:
		}
		m.leader = childOf(cmd.Process.Pid)
		if m.leader == 0 {
			return errors.New("none yet")
		}
		_, err := m.try("test", "-S", "/run/systemd/private")
		return err
	})
	if state, err := m.try("systemctl", "is-system-running", "--wait"); err != nil {
		failed, _ := m.try("systemctl", "--no-pager", "--failed")
		t.Fatalf("it booted %s: %v\n%s", state, err, failed)
	}
	return m
}

// at is the machine, or no more than a network, that a process is in.
func at(t *testing.T, pid int) *machine {
	m := &machine{t: t, leader: pid}
	m.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
			m.inside(func() { c, err = net.DialTimeout(network, address, 5*time.Second) })
			return c, err
		},
	}}
	return m
}

// childOf returns a child of a process, or 0.
func childOf(pid int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return child
		}
	}
	return 0
}

// inside runs f on a thread in the machine's network namespace.
func (m *machine) inside(f func()) {
	m.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader))
		if err == nil {
			err = os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
			ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		m.t.Errorf("the machine's network: %v", err)
	}
}

// try runs a program in the machine and returns what it says.
func (m *machine) try(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
		"SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive", program,
	}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try that must succeed.
func (m *machine) run(program string, args ...string) string {
	m.t.Helper()
	out, err := m.try(program, args...)
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// install installs packages as a person would, without a network.
func (m *machine) install(options ...string) string {
	m.t.Helper()
	return m.run("apt-get", append([]string{"install", "--yes", "--no-install-recommends"}, options...)...)
}

// write writes a file in the machine.
func (m *machine) write(path, text string) {
	m.t.Helper()
	m.run("mkdir", "-p", filepath.Dir(path))
	// By its standard input, lest a shell read it.
	if err := os.WriteFile(m.path(path), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// path is where the machine's file is for us.
func (m *machine) path(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.leader, path) }

// dropIn changes the service, and restarts it.
func (m *machine) dropIn(settings string) {
	m.t.Helper()
	m.write("/etc/systemd/system/probed.service.d/test.conf", "[Service]\n"+settings)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "probed.service")
}

// property is what systemctl says of the service.
func (m *machine) property(name string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+name, "probed.service")
}

// pid is the service's process, as the machine has it.
func (m *machine) pid() string {
	m.t.Helper()
	return m.property("MainPID")
}

// number is a property that is one.
func (m *machine) number(name string) int {
	m.t.Helper()
	n, err := strconv.Atoi(m.property(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// get fetches a page of probed's.
func (m *machine) get(url string) (string, error) {
	resp, err := m.http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

const page = "http://127.0.0.1:10965"

// sample sums a metric over the series that have all the given pairs.
func (m *machine) sample(name string, pairs ...string) (sum float64, err error) {
	text, err := m.get(page + "/metrics")
	if err != nil {
		return 0, err
	}
	found := false
series:
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, pair := range pairs {
			if !strings.Contains(series, pair) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("no %s%v", name, pairs)
	}
	return sum, nil
}

// awaitSample waits until a metric has at least a value.
func (m *machine) awaitSample(least float64, name string, pairs ...string) {
	m.t.Helper()
	m.await(20*time.Second, name, func() error {
		if v, err := m.sample(name, pairs...); err != nil || v < least {
			return fmt.Errorf("%v, %w", v, err)
		}
		return nil
	})
}

// await tries until f succeeds.
func (m *machine) await(limit time.Duration, what string, f func() error) {
	m.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}
