package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime reads a process's CPU-time clock: user and system time of all its
// threads, ended ones too, to the nanosecond (clock_getcpuclockid(3); CPUCLOCK_SCHED
// of the kernel's include/linux/posix-timers.h). Where the kernel doesn't account
// interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING), what the network does within the
// process's system calls is in it.
func CPUTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	const sched = 2
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &now); err != nil {
		tb.Fatalf("the CPU clock of process %d: %v", pid, os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(now.Nano())
}

// Resident is a process's resident memory in MiB (proc_pid_statm(5)).
func Resident(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		tb.Fatal(err)
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		tb.Fatalf("statm: %q", text)
	}
	pages, err := strconv.Atoi(f[1])
	if err != nil {
		tb.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// MostResident is the most memory that a process has had resident, in MiB
// (proc_pid_status(5)).
func MostResident(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kibibytes float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kibibytes); err != nil {
		tb.Fatalf("VmHWM of process %d: %v", pid, err)
	}
	return kibibytes / 1024
}
