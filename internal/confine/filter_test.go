//go:build linux && (amd64 || arm64)

package confine

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the filter on a call. The machine reads numbers in network byte order,
// the kernel in its own.
func verdict(t *testing.T, vm *bpf.VM, architecture, number uint32, arguments ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[dataNumber:], number)
	binary.BigEndian.PutUint32(data[dataArch:], architecture)
	for i, a := range arguments {
		binary.BigEndian.PutUint32(data[dataArguments+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[dataArguments+8*i+4:], uint32(a>>32))
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

func TestFilter(t *testing.T) {
	const tap, other = 7, 8
	vm, err := bpf.NewVM(assemble(calls([]int{tap, other})))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls(nil) {
		if c.when == nil {
			if got := verdict(t, vm, arch, uint32(c.number), 1, 2, 3, 4, 5, 6); got != allow {
				t.Errorf("%s: %#x", c.name, got)
			}
			if got := verdict(t, vm, arch+1, uint32(c.number)); got != refuse {
				t.Errorf("%s by another architecture's number: %#x", c.name, got)
			}
		}
	}
	listed := make(map[uint32]bool)
	for _, c := range calls(nil) {
		if listed[uint32(c.number)] {
			t.Errorf("%s is there twice", c.name)
		}
		listed[uint32(c.number)] = true
	}
	for number := range uint32(1 << 10) {
		want := refuse
		if number == unix.SYS_CLONE3 {
			want = absent
		}
		if got := verdict(t, vm, arch, number); !listed[number] && got != want {
			t.Errorf("call %d, which is not listed: %#x", number, got)
		}
		if got := verdict(t, vm, arch, number|1<<30); got != refuse {
			t.Errorf("call %d of x32: %#x", number, got)
		}
	}
	self := uint64(os.Getpid())
	const upper = uint64(1) << 32 // which the kernel does not read of an int
	for _, try := range []struct {
		what      string
		number    uint32
		arguments []uint64
		want      uint32
	}{
		{"read a file", unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDONLY | unix.O_CLOEXEC}, allow},
		{"read a folder", unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC}, allow},
		{"write a file", unix.SYS_OPENAT, []uint64{0, 0, unix.O_WRONLY | unix.O_CLOEXEC}, refuse},
		{"write a file, upper bits set", unix.SYS_OPENAT, []uint64{0, 0, unix.O_WRONLY | upper}, refuse},
		{"read and write a file", unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDWR}, refuse},
		{"make a file", unix.SYS_OPENAT, []uint64{0, 0, unix.O_CREAT}, refuse},
		{"cut a file off", unix.SYS_OPENAT, []uint64{0, 0, unix.O_TRUNC}, refuse},
		{"make a nameless file", unix.SYS_OPENAT, []uint64{0, 0, unix.O_TMPFILE | unix.O_RDWR}, refuse},
		{"UDP", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}, allow},
		{"TCP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0}, allow},
		{"TCP by name", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP}, allow},
		{"UDP by name", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, allow},
		{"SCTP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, refuse},
		{"Multipath TCP", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, refuse},
		{"L2TP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, 115}, refuse},
		{"UDP-Lite", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE}, refuse},
		{"ICMP as any user's ping", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, refuse},
		{"a raw socket", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP}, refuse},
		{"a raw IPv6 socket", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW}, refuse},
		{"a packet socket", unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_DGRAM, 0}, refuse},
		{"SOCK_PACKET", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_PACKET, 0}, refuse},
		{"rtnetlink", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE}, allow},
		{"nftables", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, refuse},
		{"a Unix socket", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, refuse},
		{"no delay", unix.SYS_SETSOCKOPT, []uint64{3, unix.IPPROTO_TCP, unix.TCP_NODELAY}, allow},
		{"a RST instead of a FIN", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.SO_LINGER}, allow},
		{"an interface", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX}, allow},
		{"take a filter off", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.SO_DETACH_FILTER}, refuse},
		{"another filter", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, refuse},
		{"write IP headers", unix.SYS_SETSOCKOPT, []uint64{3, unix.IPPROTO_IP, unix.IP_HDRINCL}, refuse},
		{"a thread", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD}, allow},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, refuse},
		{"a thread in a namespace", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND | unix.CLONE_NEWUSER}, refuse},
		{"clone3", unix.SYS_CLONE3, nil, absent},
		{"memory", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{"memory for code", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse},
		{"memory into code", unix.SYS_MPROTECT, []uint64{0, 4096, unix.PROT_EXEC}, refuse},
		{"a signal to itself", unix.SYS_TGKILL, []uint64{self, self, uint64(unix.SIGURG)}, allow},
		{"a signal to init", unix.SYS_TGKILL, []uint64{1, 1, uint64(unix.SIGKILL)}, refuse},
		{"a signal to all", unix.SYS_KILL, []uint64{^uint64(0), uint64(unix.SIGKILL)}, refuse},
		{"precise timers", unix.SYS_PRCTL, []uint64{unix.PR_SET_TIMERSLACK, 1}, allow},
		{"be dumped again", unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, refuse},
		{"a flag of a descriptor", unix.SYS_FCNTL, []uint64{3, unix.F_SETFL}, allow},
		{"send by a raw socket", unix.SYS_SENDMMSG, []uint64{3}, allow},
		{"send by a tap", unix.SYS_SENDMMSG, []uint64{tap}, refuse},
		{"send by another tap", unix.SYS_SENDTO, []uint64{other}, refuse},
		{"send by a tap, upper bits set", unix.SYS_SENDTO, []uint64{tap | upper}, refuse},
		{"write to a tap", unix.SYS_WRITE, []uint64{tap}, refuse},
		{"write to stderr", unix.SYS_WRITE, []uint64{2}, allow},
		{"a tap under another number", unix.SYS_FCNTL, []uint64{tap, unix.F_DUPFD_CLOEXEC}, refuse},
		{"a socket under another number", unix.SYS_FCNTL, []uint64{3, unix.F_DUPFD_CLOEXEC}, allow},
		{"type at a terminal", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, refuse},
		{"a lock", unix.SYS_FCNTL, []uint64{3, unix.F_SETLK}, refuse},
	} {
		if got := verdict(t, vm, arch, try.number, try.arguments...); got != try.want {
			t.Errorf("%s: %#x, want %#x", try.what, got, try.want)
		}
	}
	// What a process that has been taken over would be used for.
	for _, name := range []string{
		"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "io_uring_setup", "perf_event_open", "mount",
		"setns", "unshare", "keyctl", "add_key", "userfaultfd", "memfd_create", "unlinkat", "renameat2", "mkdirat", "listen", "capset",
		"setuid", "prlimit64", "openat2", "pidfd_getfd", "kexec_load", "init_module", "ioctl", "seccomp", "dup", "dup2", "dup3", "recvmsg", "recvmmsg", "sendmsg", "splice", "sendfile",
	} {
		if strings.Contains(" "+strings.Join(Allowed(), " ")+" ", " "+name+" ") {
			t.Errorf("%s is allowed", name)
		}
	}
}

// A host with many cores has many loops, each with three descriptors that are mute.
func TestFilterOfManyLoops(t *testing.T) {
	const first, past, most = 100, 100 + 3*64, 4096 // BPF_MAXINSNS
	var mute []int
	for fd := first; fd < past; fd++ {
		mute = append(mute, fd)
	}
	code := assemble(calls(mute))
	if len(code) > most {
		t.Errorf("%d instructions: the kernel takes %d", len(code), most)
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	for fd := uint64(first - 10); fd < past+10; fd++ {
		want := allow
		if first <= fd && fd < past {
			want = refuse
		}
		for _, number := range []uint32{unix.SYS_SENDTO, unix.SYS_SENDMMSG, unix.SYS_WRITE} {
			if got := verdict(t, vm, arch, number, fd); got != want {
				t.Fatalf("call %d by %d: %#x", number, fd, got)
			}
		}
		if got := verdict(t, vm, arch, unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC); got != want {
			t.Fatalf("a copy of %d: %#x", fd, got)
		}
	}
	if got := verdict(t, vm, arch, unix.SYS_MMAP, 0, 4096, unix.PROT_EXEC); got != refuse {
		t.Errorf("memory for code: %#x", got)
	}
}

// A thread that could not be given the filter is no success.
func TestInstalled(t *testing.T) {
	for _, c := range []struct {
		r     uintptr
		errno unix.Errno
		want  string
	}{
		{0, 0, ""},
		{4711, 0, "seccomp: thread 4711 has a filter of its own and can't be given this one"},
		{^uintptr(0), unix.EINVAL, "seccomp: invalid argument"},
	} {
		got := ""
		if err := installed(c.r, c.errno); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%d, %d: %q, want %q", c.r, c.errno, got, c.want)
		}
	}
}
