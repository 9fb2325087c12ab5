package main

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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A process is a probed that runs inside a host of the laboratory.
type process struct {
	t    *testing.T
	host *lab.Host
	cmd  *lab.Cmd
	base string // of its URLs
	http *http.Client

	out lab.Output

	ended chan struct{}
	err   error // once ended: Wait's
}

func (p *process) said() string { return p.out.String() }

// program returns probed inside a host, not started.
func program(t *testing.T, h *lab.Host, args ...string) *lab.Cmd {
	t.Helper()
	cmd := h.Command(context.WithoutCancel(t.Context()), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), runAsProbed+"=1")
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	return cmd
}

// An option changes how probed is started.
type option func(*lab.Cmd)

// withDNS has probed ask the name server at an address, port 53.
func withDNS(t *testing.T, server string) option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver "+server+"\noptions timeout:1 attempts:1\n")
	return func(c *lab.Cmd) {
		c.Env = append(c.Env, resolvConf+"="+file)
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	}
}

// withArgs adds arguments.
func withArgs(args ...string) option {
	return func(c *lab.Cmd) { c.Args = append(c.Args, args...) }
}

// unprivileged runs probed as a user who has nothing but the given
// capabilities and cannot get more.
func unprivileged(capabilities ...uintptr) option {
	return func(c *lab.Cmd) {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}
		c.SysProcAttr.AmbientCaps = capabilities
		c.Env = append(c.Env, noNewPrivs+"=1")
	}
}

// launch starts probed with a configuration and does not wait for it.
func launch(t *testing.T, h *lab.Host, yaml string, options ...option) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "probed.yml")
	write(t, file, yaml)
	return launchFile(t, h, file, options...)
}

func launchFile(t *testing.T, h *lab.Host, file string, options ...option) *process {
	t.Helper()
	p := &process{
		t: t, host: h, ended: make(chan struct{}), base: "http://127.0.0.1:10965",
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialer(h)}},
	}
	t.Cleanup(p.http.CloseIdleConnections)
	p.cmd = program(t, h, "--config.file="+file)
	for _, o := range options {
		o(p.cmd)
	}
	p.cmd.Stderr, p.cmd.Stdout = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start probed: %v", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("probed said:\n%s", p.said())
		}
		if strings.Contains(p.said(), "DATA RACE") {
			t.Errorf("probed raced:\n%s", p.said())
		}
	})
	return p
}

// start starts probed and waits until it is ready.
func start(t *testing.T, h *lab.Host, yaml string, options ...option) *process {
	t.Helper()
	p := launch(t, h, yaml, options...)
	p.awaitReady()
	return p
}

func (p *process) awaitReady() {
	p.t.Helper()
	lab.Eventually(p.t, 10*time.Second, func() error {
		select {
		case <-p.ended:
			p.t.Fatalf("probed ended: %v\n%s", p.err, p.said())
		default:
		}
		resp, err := p.http.Get(p.base + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// dialer connects from inside a host.
func dialer(h *lab.Host) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, network, addr string) (net.Conn, error) {
		return h.Dial(network, addr, 5*time.Second)
	}
}

// signal sends probed a signal; to one that has ended it does nothing.
func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v: %v", s, err)
	}
}

// end waits for probed's end and returns its exit code, or fails the test after
// limit. A signal's end gives -1.
func (p *process) end(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("probed still runs after %v\n%s", limit, p.said())
	}
	return exitCode(p.t, p.err)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatalf("probed: %v", err)
	return 0
}

// do makes a request and returns the status code and the body.
func (p *process) do(method, path string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.said())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(body)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readableDir is a temporary directory that every user may enter; TempDir's
// parent is for its owner alone.
func readableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// simpleConfig writes a configuration with some targets of one job.
func simpleConfig(interval, timeout string, targets ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {interval: %s, timeout: %s}\njobs:\n- name: test\n  targets:\n", interval, timeout)
	for _, t := range targets {
		fmt.Fprintf(&b, "  - %q\n", t)
	}
	return b.String()
}

// runAlone runs probed where the test runs, for what touches no network.
func runAlone(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), runAsProbed+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	code = exitCode(t, cmd.Run())
	return code, out.String(), errs.String()
}
