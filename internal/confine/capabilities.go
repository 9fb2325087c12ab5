package confine

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keep has every thread of the process keep those of the given capabilities
// (CAP_NET_RAW, …) that it is permitted, and make them effective; all others are
// given up, and the inheritable and ambient sets emptied. (The inheritable one stays where
// a filter forbids capset(2) and nothing else is left to give up.) The bounding set is
// emptied too by whoever may (CAP_SETPCAP, as root has). no_new_privs is set, so that no
// program that it might start gets more either.
//
// Without CAP_DAC_OVERRIDE uid 0 is the owner of root's files and nobody's superior.
// A program that is linked with C gives an error: its threads are not Go's to command.
func Keep(capabilities ...int) error {
	if err := onAllThreads("prctl PR_SET_NO_NEW_PRIVS", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have, keep [2]unix.CapUserData // 64 bits, the lower half first
	if err := unix.Capget(&header, &have[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if have[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		if err := emptyBounding(); err != nil {
			return err
		}
	}
	if err := onAllThreads("prctl PR_CAP_AMBIENT", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return err
	}
	for _, c := range capabilities {
		keep[c/32].Permitted |= have[c/32].Permitted & (1 << (c % 32))
	}
	for i := range keep {
		keep[i].Effective = keep[i].Permitted
	}
	err := onAllThreads("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&keep[0])))
	for i := range have {
		have[i].Inheritable = 0 // which is for programs to be started, of which there are none
	}
	if errors.Is(err, unix.EPERM) && have == keep {
		return nil // a filter forbids it, as systemd's @privileged does, and it has changed nothing
	}
	return err
}

// emptyBounding has no thread ever be given a capability again by execve(2).
func emptyBounding() error {
	for c := uintptr(0); ; c++ {
		there, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no further one
		}
		if err != nil {
			return os.NewSyscallError("prctl PR_CAPBSET_READ", err)
		}
		if there == 0 {
			continue
		}
		if err := onAllThreads("prctl PR_CAPBSET_DROP", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c); err != nil {
			return err
		}
	}
}

// onAllThreads makes a system call on each thread: capabilities are a thread's.
//
//go:uintptrescapes
func onAllThreads(name string, call, a1, a2 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(call, a1, a2, 0, 0, 0, 0)
	if errno == unix.ENOTSUP {
		return errors.New("built with cgo: build it with CGO_ENABLED=0")
	}
	if errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}

// Undumpable keeps other processes of the same user out of this one's memory, where
// keys and passwords are: they can't trace it, and it leaves no core (PR_SET_DUMPABLE,
// prctl(2)). Go's own stack trace at SIGABRT is written as ever.
func Undumpable() error {
	return os.NewSyscallError("prctl PR_SET_DUMPABLE", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
