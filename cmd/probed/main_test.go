package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The variables by which a test has its own binary become probed.
const (
	runAsProbed   = "PROBED_TEST_RUN"         // be probed
	resolvConf    = "PROBED_TEST_RESOLV_CONF" // with this file as /etc/resolv.conf, in a mount namespace of its own
	noNewPrivs    = "PROBED_TEST_NO_NEW_PRIVS"
	noMD5         = "PROBED_TEST_NO_MD5"    // have the kernel say that it has no TCP MD5 signatures
	fewFiles      = "PROBED_TEST_FEW_FILES" // be allowed no more open files than this
	traced        = "PROBED_TEST_TRACE"     // have strace write its system calls into a file in this folder
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
	if os.Getenv(noMD5) != "" {
		if err := refuseMD5(); err != nil {
			return os.NewSyscallError("seccomp", err)
		}
	}
	if n, err := strconv.ParseUint(os.Getenv(fewFiles), 10, 32); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	env := append(slices.Clone(os.Environ()), afterTheStage+"=1")
	if dir := os.Getenv(traced); dir != "" {
		return trace(dir, env)
	}
	return os.NewSyscallError("execve", syscall.Exec("/proc/self/exe", os.Args, env))
}

// trace becomes probed under strace(1), which stands aside: probed is the test's child.
// What the loop calls all the time is left out.
func trace(dir string, env []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, fmt.Sprintf("%d.strace", os.Getpid()))
	args := []string{"strace", "-D", "-f", "-qq", "-e", "signal=none", "-e", "trace=!ppoll,sendmmsg,futex,nanosleep,getpid,tgkill,rt_sigreturn", "-o", file, self}
	return os.NewSyscallError("execve", syscall.Exec(strace, append(args, os.Args[1:]...), env))
}

// refuseMD5 has setsockopt(2) answer TCP_MD5SIG_EXT as a kernel without
// CONFIG_TCP_MD5SIG does. It needs no_new_privs.
func refuseMD5() error {
	code, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4}, // struct seccomp_data: the call's number, and then its arguments
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SETSOCKOPT, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 16 + 8, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 16 + 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.TCP_MD5SIG_EXT, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOPROTOOPT)},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
