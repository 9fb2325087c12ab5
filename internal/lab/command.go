package lab

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"syscall"
	"time"
)

// A Cmd is a program that runs inside a host: an exec.Cmd whose Start, Run,
// Output and CombinedOutput do what their namesakes do there.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command returns a program that will run inside the host. It is killed when
// ctx or the test ends and when the test process dies, by whatever means. Its
// SysProcAttr may be changed but for Pdeathsig: credentials and capabilities
// are the caller's choice, since the child process is born in the namespace.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	return &Cmd{Cmd: cmd, host: h}
}

// Start starts the program and does not wait.
func (c *Cmd) Start() error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return c.host.keeper.call(c.Cmd.Start)
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output. Unlike exec.Cmd's,
// its error does not hold standard error.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("lab: Stdout already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("lab: Stdout or Stderr already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
