//go:build linux && (amd64 || arm64)

package confine

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A call is a system call that is made after the start, by the name that strace(1) has
// for it. Who adds one says what for.
type call struct {
	name   string
	number uintptr
	when   []match // one of them must hold; none: always allowed
	never  []match // none of them may
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

// calls are all that may be made, where nothing is ever sent by the descriptors mute.
// Those of the probing loop come first, since older kernels look through the list at
// every call.
func calls(mute []int) []call {
	return append([]call{
		// The loop, the tap, the pages.
		{"ppoll", unix.SYS_PPOLL, nil, nil},
		{"futex", unix.SYS_FUTEX, nil, nil},
		{"epoll_pwait", unix.SYS_EPOLL_PWAIT, nil, nil},
		{"read", unix.SYS_READ, nil, nil},
		{"getsockopt", unix.SYS_GETSOCKOPT, nil, nil},
		{"epoll_create1", unix.SYS_EPOLL_CREATE1, nil, nil},
		{"epoll_ctl", unix.SYS_EPOLL_CTL, nil, nil},
		{"eventfd2", unix.SYS_EVENTFD2, nil, nil},
		{"accept4", unix.SYS_ACCEPT4, nil, nil},
		{"bind", unix.SYS_BIND, nil, nil},
		{"connect", unix.SYS_CONNECT, nil, nil},
		{"getpeername", unix.SYS_GETPEERNAME, nil, nil},
		{"getsockname", unix.SYS_GETSOCKNAME, nil, nil},
		{"recvfrom", unix.SYS_RECVFROM, nil, nil},
		{"shutdown", unix.SYS_SHUTDOWN, nil, nil},

		// Files, for reading: configuration, lists of targets, certificates, names.
		{"close", unix.SYS_CLOSE, nil, nil},
		{"fstat", unix.SYS_FSTAT, nil, nil},
		{"getcwd", unix.SYS_GETCWD, nil, nil},
		{"getdents64", unix.SYS_GETDENTS64, nil, nil},
		{"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH, nil, nil},
		{"inotify_init1", unix.SYS_INOTIFY_INIT1, nil, nil},
		{"inotify_rm_watch", unix.SYS_INOTIFY_RM_WATCH, nil, nil},
		{"lseek", unix.SYS_LSEEK, nil, nil},
		{"newfstatat", unix.SYS_NEWFSTATAT, nil, nil},
		{"pread64", unix.SYS_PREAD64, nil, nil},
		{"readlinkat", unix.SYS_READLINKAT, nil, nil},
		{"statfs", unix.SYS_STATFS, nil, nil}, // of /proc, for probed's own metrics

		// Go's runtime.
		{"clock_gettime", unix.SYS_CLOCK_GETTIME, nil, nil}, // where the vDSO can't
		{"exit", unix.SYS_EXIT, nil, nil},
		{"exit_group", unix.SYS_EXIT_GROUP, nil, nil},
		{"geteuid", unix.SYS_GETEUID, nil, nil}, // what to say of a file that may not be read
		{"getpid", unix.SYS_GETPID, nil, nil},
		{"getrandom", unix.SYS_GETRANDOM, nil, nil},
		{"gettid", unix.SYS_GETTID, nil, nil},
		{"madvise", unix.SYS_MADVISE, nil, nil},
		{"munmap", unix.SYS_MUNMAP, nil, nil},
		{"nanosleep", unix.SYS_NANOSLEEP, nil, nil},
		{"pipe2", unix.SYS_PIPE2, nil, nil},
		{"restart_syscall", unix.SYS_RESTART_SYSCALL, nil, nil}, // the kernel's own, after SIGCONT
		{"rt_sigaction", unix.SYS_RT_SIGACTION, nil, nil},
		{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, nil, nil},
		{"rt_sigreturn", unix.SYS_RT_SIGRETURN, nil, nil},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY, nil, nil},
		{"sched_yield", unix.SYS_SCHED_YIELD, nil, nil},
		{"setitimer", unix.SYS_SETITIMER, nil, nil}, // CPU profiles, and the three after it
		{"sigaltstack", unix.SYS_SIGALTSTACK, nil, nil},
		{"timer_create", unix.SYS_TIMER_CREATE, nil, nil},
		{"timer_delete", unix.SYS_TIMER_DELETE, nil, nil},
		{"timer_settime", unix.SYS_TIMER_SETTIME, nil, nil},
		{"uname", unix.SYS_UNAME, nil, nil},

		// A C library's threads and memory: what is linked with C is a test under the race
		// detector.
		{"brk", unix.SYS_BRK, nil, nil},
		{"rseq", unix.SYS_RSEQ, nil, nil},
		{"set_robust_list", unix.SYS_SET_ROBUST_LIST, nil, nil},
	}, checked(mute)...)
}

// checked are those whose arguments decide.
func checked(mute []int) []call {
	self := uint32(os.Getpid())
	const executable = unix.PROT_EXEC
	var muted, copied []match
	for _, fd := range mute {
		muted = append(muted, match{is(0, uint32(fd))})
		copied = append(copied, match{is(0, uint32(fd)), is(1, unix.F_DUPFD_CLOEXEC)})
	}
	return []call{
		// Taps and bells only listen: a packet socket could send in anybody's name. Nor is there
		// recvmsg(2), by which a descriptor would come under another number.
		{"sendmmsg", unix.SYS_SENDMMSG, nil, muted},
		{"sendto", unix.SYS_SENDTO, nil, muted},
		{"write", unix.SYS_WRITE, nil, muted},
		{"writev", unix.SYS_WRITEV, nil, muted},

		// Files are read. Nothing is made, cut off or written.
		{"openat", unix.SYS_OPENAT, []match{{without(2, unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)}}, nil},
		{"fcntl", unix.SYS_FCNTL, oneOf(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC), copied},

		// No memory becomes code.
		{"mmap", unix.SYS_MMAP, []match{{without(2, executable)}}, nil},
		{"mprotect", unix.SYS_MPROTECT, []match{{without(2, executable)}}, nil},

		// Threads, and no processes.
		{"clone", unix.SYS_CLONE, []match{{{0, unix.CLONE_THREAD | unix.CLONE_VM | namespaces, unix.CLONE_THREAD | unix.CLONE_VM}}}, nil},

		// Signals to itself: preemption, profiles, and its own end.
		{"tgkill", unix.SYS_TGKILL, []match{{is(0, self)}}, nil},
		{"kill", unix.SYS_KILL, []match{{is(0, self)}}, nil},

		// Precise timers, and the names that Go gives its memory.
		{"prctl", unix.SYS_PRCTL, oneOf(0, unix.PR_SET_TIMERSLACK, unix.PR_SET_VMA), nil},

		// TCP and UDP, as any user's program may open them, and rtnetlink to ask. Raw and
		// packet sockets have been opened by now, behind filters that are locked.
		{"socket", unix.SYS_SOCKET, slices.Concat(
			sockets(unix.AF_INET), sockets(unix.AF_INET6),
			[]match{{is(0, unix.AF_NETLINK), is(2, unix.NETLINK_ROUTE)}},
		), nil},
		// No filter comes off or on, no header is written by us, no address is another's.
		{"setsockopt", unix.SYS_SETSOCKOPT, append(append(
			options(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, unix.SO_BINDTOIFINDEX, unix.SO_BROADCAST, unix.SO_KEEPALIVE, unix.SO_LINGER, unix.SO_PRIORITY),
			options(unix.SOL_TCP, unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT)...),
			append(options(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY), options(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP)...)...), nil},
	}
}

// namespaces are clone(2)'s flags that make one.
const namespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// socketType is socket(2)'s type without SOCK_CLOEXEC and SOCK_NONBLOCK
// (include/linux/net.h, SOCK_TYPE_MASK).
const socketType = 0xf

// sockets are TCP's and UDP's of a family. By other protocols of the same types whoever
// asks has the kernel load what is rarely looked at: SCTP, L2TP, UDP-Lite.
func sockets(family uint32) []match {
	stream, datagram := check{1, socketType, unix.SOCK_STREAM}, check{1, socketType, unix.SOCK_DGRAM}
	return []match{
		{is(0, family), stream, is(2, 0)},
		{is(0, family), stream, is(2, unix.IPPROTO_TCP)},
		{is(0, family), datagram, is(2, 0)},
		{is(0, family), datagram, is(2, unix.IPPROTO_UDP)},
	}
}

// options are options of one level of setsockopt(2).
func options(level uint32, names ...uint32) []match {
	all := make([]match, len(names))
	for i, name := range names {
		all[i] = match{is(1, level), is(2, name)}
	}
	return all
}
