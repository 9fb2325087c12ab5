//go:build linux && (amd64 || arm64)

package confine

import (
	"os"

	"golang.org/x/sys/unix"
)

// A call is a system call that is made after the start, by the name that strace(1) has
// for it. Who adds one says what for.
type call struct {
	name   string
	number uintptr
	when   []match // one of them must hold; none: always allowed
}

// A match holds for arguments of which all checks hold.
type match []check

// A check is on the lower 32 bits of an argument: the kernel reads no more of those
// that are looked at. It holds if (argument & mask) == value.
type check struct {
	argument    int
	mask, value uint32
}

const whole = 0xffffffff

func is(argument int, value uint32) check          { return check{argument, whole, value} }
func without(argument int, forbidden uint32) check { return check{argument, forbidden, 0} }

// oneOf are matches on an argument alone.
func oneOf(argument int, values ...uint32) []match {
	all := make([]match, len(values))
	for i, v := range values {
		all[i] = match{is(argument, v)}
	}
	return all
}

// calls are all that may be made. Those of the probing loop come first, since older
// kernels look through the list at every call.
func calls() []call {
	return append([]call{
		// The loop, the tap, the pages.
		{"ppoll", unix.SYS_PPOLL, nil},
		{"sendmmsg", unix.SYS_SENDMMSG, nil},
		{"futex", unix.SYS_FUTEX, nil},
		{"epoll_pwait", unix.SYS_EPOLL_PWAIT, nil},
		{"read", unix.SYS_READ, nil},
		{"write", unix.SYS_WRITE, nil},
		{"getsockopt", unix.SYS_GETSOCKOPT, nil},
		{"epoll_create1", unix.SYS_EPOLL_CREATE1, nil},
		{"epoll_ctl", unix.SYS_EPOLL_CTL, nil},
		{"eventfd2", unix.SYS_EVENTFD2, nil},
		{"writev", unix.SYS_WRITEV, nil},
		{"accept4", unix.SYS_ACCEPT4, nil},
		{"bind", unix.SYS_BIND, nil},
		{"connect", unix.SYS_CONNECT, nil},
		{"getpeername", unix.SYS_GETPEERNAME, nil},
		{"getsockname", unix.SYS_GETSOCKNAME, nil},
		{"recvfrom", unix.SYS_RECVFROM, nil},
		{"recvmsg", unix.SYS_RECVMSG, nil},
		{"sendmsg", unix.SYS_SENDMSG, nil},
		{"sendto", unix.SYS_SENDTO, nil},
		{"shutdown", unix.SYS_SHUTDOWN, nil},

		// Files, for reading: configuration, lists of targets, certificates, names.
		{"close", unix.SYS_CLOSE, nil},
		{"fstat", unix.SYS_FSTAT, nil},
		{"getcwd", unix.SYS_GETCWD, nil},
		{"getdents64", unix.SYS_GETDENTS64, nil},
		{"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH, nil},
		{"inotify_init1", unix.SYS_INOTIFY_INIT1, nil},
		{"inotify_rm_watch", unix.SYS_INOTIFY_RM_WATCH, nil},
		{"lseek", unix.SYS_LSEEK, nil},
		{"newfstatat", unix.SYS_NEWFSTATAT, nil},
		{"pread64", unix.SYS_PREAD64, nil},
		{"readlinkat", unix.SYS_READLINKAT, nil},
		{"statfs", unix.SYS_STATFS, nil}, // of /proc, for probed's own metrics

		// Go's runtime.
		{"clock_gettime", unix.SYS_CLOCK_GETTIME, nil}, // where the vDSO can't
		{"exit", unix.SYS_EXIT, nil},
		{"exit_group", unix.SYS_EXIT_GROUP, nil},
		{"geteuid", unix.SYS_GETEUID, nil}, // what to say of a file that may not be read
		{"getpid", unix.SYS_GETPID, nil},
		{"getrandom", unix.SYS_GETRANDOM, nil},
		{"gettid", unix.SYS_GETTID, nil},
		{"madvise", unix.SYS_MADVISE, nil},
		{"munmap", unix.SYS_MUNMAP, nil},
		{"nanosleep", unix.SYS_NANOSLEEP, nil},
		{"pipe2", unix.SYS_PIPE2, nil},
		{"restart_syscall", unix.SYS_RESTART_SYSCALL, nil}, // the kernel's own, after SIGCONT
		{"rt_sigaction", unix.SYS_RT_SIGACTION, nil},
		{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, nil},
		{"rt_sigreturn", unix.SYS_RT_SIGRETURN, nil},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY, nil},
		{"sched_yield", unix.SYS_SCHED_YIELD, nil},
		{"setitimer", unix.SYS_SETITIMER, nil}, // CPU profiles, and the three after it
		{"sigaltstack", unix.SYS_SIGALTSTACK, nil},
		{"timer_create", unix.SYS_TIMER_CREATE, nil},
		{"timer_delete", unix.SYS_TIMER_DELETE, nil},
		{"timer_settime", unix.SYS_TIMER_SETTIME, nil},
		{"uname", unix.SYS_UNAME, nil},

		// A C library's threads and memory: what is linked with C is a test under the race
		// detector.
		{"brk", unix.SYS_BRK, nil},
		{"rseq", unix.SYS_RSEQ, nil},
		{"set_robust_list", unix.SYS_SET_ROBUST_LIST, nil},
	}, checked()...)
}

// checked are those whose arguments decide.
func checked() []call {
	self := uint32(os.Getpid())
	const executable = unix.PROT_EXEC
	return []call{
		// Files are read. Nothing is made, cut off or written.
		{"openat", unix.SYS_OPENAT, []match{{without(2, unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)}}},
		{"fcntl", unix.SYS_FCNTL, oneOf(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC)},

		// No memory becomes code.
		{"mmap", unix.SYS_MMAP, []match{{without(2, executable)}}},
		{"mprotect", unix.SYS_MPROTECT, []match{{without(2, executable)}}},

		// Threads, and no processes.
		{"clone", unix.SYS_CLONE, []match{{{0, unix.CLONE_THREAD | unix.CLONE_VM | namespaces, unix.CLONE_THREAD | unix.CLONE_VM}}}},

		// Signals to itself: preemption, profiles, and its own end.
		{"tgkill", unix.SYS_TGKILL, []match{{is(0, self)}}},
		{"kill", unix.SYS_KILL, []match{{is(0, self)}}},

		// Precise timers, and the names that Go gives its memory.
		{"prctl", unix.SYS_PRCTL, oneOf(0, unix.PR_SET_TIMERSLACK, unix.PR_SET_VMA)},

		// What any user's program may open, and rtnetlink to ask. Raw and packet sockets
		// have been opened by now, behind filters that are locked.
		{"socket", unix.SYS_SOCKET, []match{
			{is(0, unix.AF_INET), {1, socketType, unix.SOCK_STREAM}},
			{is(0, unix.AF_INET), {1, socketType, unix.SOCK_DGRAM}},
			{is(0, unix.AF_INET6), {1, socketType, unix.SOCK_STREAM}},
			{is(0, unix.AF_INET6), {1, socketType, unix.SOCK_DGRAM}},
			{is(0, unix.AF_NETLINK), is(2, unix.NETLINK_ROUTE)},
		}},
		// No filter comes off or on, no header is written by us, no address is another's.
		{"setsockopt", unix.SYS_SETSOCKOPT, append(append(
			options(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, unix.SO_BINDTOIFINDEX, unix.SO_BROADCAST, unix.SO_KEEPALIVE, unix.SO_PRIORITY),
			options(unix.SOL_TCP, unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT)...),
			append(options(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY), options(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP)...)...)},
	}
}

// namespaces are clone(2)'s flags that make one.
const namespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// socketType is socket(2)'s type without SOCK_CLOEXEC and SOCK_NONBLOCK
// (include/linux/net.h, SOCK_TYPE_MASK).
const socketType = 0xf

// options are options of one level of setsockopt(2).
func options(level uint32, names ...uint32) []match {
	all := make([]match, len(names))
	for i, name := range names {
		all[i] = match{is(1, level), is(2, name)}
	}
	return all
}
