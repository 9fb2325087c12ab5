package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The variables by which a test has its own binary become probed.
const (
	runAsProbed   = "PROBED_TEST_RUN"         // be probed
	resolvConf    = "PROBED_TEST_RESOLV_CONF" // with this file as /etc/resolv.conf, in a mount namespace of its own
	noNewPrivs    = "PROBED_TEST_NO_NEW_PRIVS"
	afterTheStage = "PROBED_TEST_STAGED"
)

// TestMain makes the test binary probed itself if a test has started it as
// such: so race detector and coverage see the daemon too.
func TestMain(m *testing.M) {
	if os.Getenv(runAsProbed) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(afterTheStage) == "" {
		if err := stage(); err != nil {
			fmt.Fprintln(os.Stderr, "staging probed:", err)
			os.Exit(99)
		}
	}
	main()
}

// stage prepares what only the process itself can, for all of its threads: by
// one thread that then becomes probed.
func stage() error {
	runtime.LockOSThread()
	if file := os.Getenv(resolvConf); file != "" {
		// The process was cloned with a mount namespace of its own.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("mount private", err)
		}
		if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
			return os.NewSyscallError("mount resolv.conf", err)
		}
	}
	if os.Getenv(noNewPrivs) != "" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	env := append(slices.Clone(os.Environ()), afterTheStage+"=1")
	return os.NewSyscallError("execve", syscall.Exec("/proc/self/exe", os.Args, env))
}
