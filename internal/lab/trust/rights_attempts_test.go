package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/confine"
	"github.com/probed/probed/internal/host"
)

// The variables by which a test has its own binary play a probed that somebody has taken
// over.
const (
	takenOver   = "TRUST_TAKEN_OVER"   // the folder that is its user's own
	unconfined  = "TRUST_UNCONFINED"   // not empty: before it was confined, for comparison
	sendsFrames = "TRUST_SENDS_FRAMES" // not empty: its configuration had transmit: packet
	forbidding  = "TRUST_FORBIDDING"   // a program to become, with seccomp(2) and capset(2) forbidden
)

// An account is what somebody in probed's place found out.
type account struct {
	Attempts  map[string]string // what was tried → the error, "" if it went
	Overheard int               // packets of others that were read
	Packets   int               // packet sockets that were at hand
	Sending   int               // those of them that a packet from anybody's address could be sent by
	Raw       int               // and raw ones
	Works     map[string]string // what probed goes on doing → the error, "" if it went
	Foreign   string            // to send from somebody else's address by a raw socket: the error
}

// takeOver opens what probed opens, confines itself as probed does, and then tries what
// somebody would who can have it make any system call. It tells on standard output.
func takeOver(dir string) error {
	n, err := host.Open(host.Ports{Reserved: host.Range{First: 61000, Last: 61003}, Guarded: host.Range{First: 61004, Last: 61007}, Packet: os.Getenv(sendsFrames) != ""})
	if err != nil {
		return err
	}
	defer n.Close()
	if os.Getenv(unconfined) == "" {
		// What it has been given is CAP_NET_RAW alone: confine.Keep has nothing to do.
		if err := errors.Join(confine.Undumpable(), confine.Filter(n.Listeners()...)); err != nil {
			return err
		}
	}
	a := account{Attempts: make(map[string]string), Works: stillWorks(dir)}
	for _, try := range attempts(dir) {
		err := try.do()
		a.Attempts[try.what] = ""
		if err != nil {
			a.Attempts[try.what] = err.Error()
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until others have talked
	a.sockets()
	return json.NewEncoder(os.Stdout).Encode(a)
}

// sockets looks through the open ones, as somebody would who has not opened them.
func (a *account) sockets() {
	var at []int
	for fd := 3; fd < 256; fd++ {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			continue
		}
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		switch {
		case domain == unix.AF_PACKET:
			a.Packets++
			at = append(at, fd)
			a.openUp(fd, "packet socket")
			if a.sendFrame(fd) == nil {
				a.Sending++
			}
			all := unix.SockaddrLinklayer{Protocol: 0x0300} // ETH_P_ALL, in network byte order
			_ = unix.Bind(fd, &all)                         // it may be bound
		case kind == unix.SOCK_RAW && domain != unix.AF_NETLINK:
			a.Raw++
			at = append(at, fd)
			a.openUp(fd, "raw socket")
			a.note("write IP headers by a raw socket", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1))
			a.note("have a raw socket take any source", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
			if domain == unix.AF_INET {
				a.Foreign = sendFrom(fd, [4]byte{198, 18, 0, 77}, [4]byte{198, 18, 0, 2})
			}
		}
	}
	for _, fd := range at {
		drain(fd) // the self-test's
	}
	time.Sleep(time.Second)
	for _, fd := range at {
		a.Overheard += drain(fd)
	}
}

// openUp takes a socket's filter off, or puts one there that lets everything pass.
func (a *account) openUp(fd int, what string) {
	a.note("take the filter off a "+what, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16}
	a.note("give a "+what+" another filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all}))
	a.note("unlock the filter of a "+what, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0))
}

// note keeps the first success, if there is one.
func (a *account) note(what string, err error) {
	if before, known := a.Attempts[what]; known && before == "" {
		return
	}
	a.Attempts[what] = ""
	if err != nil {
		a.Attempts[what] = err.Error()
	}
}

// sendFrame sends a packet to the link by a packet socket, or by a copy of it.
func (a *account) sendFrame(fd int) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	to := unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: links[len(links)-1].Index, Halen: 6, Addr: [8]byte{2, 0, 0, 0, 0, 77}} // ETH_P_IP
	packet := make([]byte, 40)
	err = unix.Sendto(fd, packet, 0, &to)
	if err == nil {
		return nil
	}
	if copied, dup := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); dup == nil {
		defer unix.Close(copied)
		err = unix.Sendto(copied, packet, 0, &to)
	}
	return err
}

// drain counts what can be read.
func drain(fd int) int {
	for n := 0; ; n++ {
		if _, _, err := unix.Recvfrom(fd, make([]byte, 1<<16), unix.MSG_DONTWAIT); err != nil {
			return n
		}
	}
}

// sendFrom sends a segment from an address by a raw socket.
func sendFrom(fd int, from, to [4]byte) string {
	control := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	header.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	(*unix.Inet4Pktinfo)(unsafe.Pointer(&control[unix.CmsgLen(0)])).Spec_dst = from
	if err := unix.Sendmsg(fd, make([]byte, 20), control, &unix.SockaddrInet4{Addr: to}, 0); err != nil {
		return err.Error()
	}
	return ""
}

// An attempt is a system call that a filter should refuse.
type attempt struct {
	what string
	do   func() error
	// anyway: the kernel refuses it to an ordinary user too, filter or not.
	anyway bool
}

// attempts are system calls that go further than probed does. They are harmless where
// they are not refused: of a file in dir, of a process of its own, or with arguments that
// the kernel finds wrong once it has let the call pass.
func attempts(dir string) []attempt {
	raw := func(number uintptr, arguments ...uintptr) func() error {
		var a [6]uintptr
		copy(a[:], arguments)
		return func() error {
			_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno != 0 {
				return errno
			}
			return nil
		}
	}
	socket := func(family, kind, protocol int) func() error {
		return func() error {
			fd, err := unix.Socket(family, kind, protocol)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	open := func(name string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(name, flags, 0o600)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	file := filepath.Join(dir, "file")
	return []attempt{
		{"write to a file of its own", open(file, unix.O_WRONLY), false},
		{"make a file", open(filepath.Join(dir, "new"), unix.O_WRONLY|unix.O_CREAT), false},
		{"cut a file off", open(file, unix.O_RDONLY|unix.O_TRUNC), false},
		{"write to /dev/null", open("/dev/null", unix.O_RDWR), false},
		{"make a folder", func() error { return unix.Mkdir(filepath.Join(dir, "folder"), 0o700) }, false},
		{"rename a file", func() error { return unix.Rename(file, file) }, false},
		{"link a file", func() error { return unix.Link(file, filepath.Join(dir, "link")) }, false},
		{"link by name", func() error { return unix.Symlink(file, filepath.Join(dir, "symlink")) }, false},
		{"change a file's mode", func() error { return unix.Chmod(file, 0o600) }, false},
		{"change a file's length", func() error { return unix.Truncate(file, 0) }, false},
		{"remove a file", func() error { return unix.Unlink(filepath.Join(dir, "other")) }, false},
		{"make memory that is a file", raw(unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(&[]byte("x\x00")[0])), 0), false},
		{"open by openat2", raw(unix.SYS_OPENAT2, 0, 0, 0, 0), false},

		{"run a program", raw(unix.SYS_EXECVE, 0, 0, 0), false},
		{"run a program by descriptor", raw(unix.SYS_EXECVEAT, ^uintptr(0), 0, 0, 0, 0), false},
		{"make a process", fork, false},
		{"make a process by clone3", raw(unix.SYS_CLONE3, 0, 0), false},
		{"make memory into code", func() error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return err
			}
			return errors.Join(unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
		}, false},
		{"have memory for code", func() error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err == nil {
				_ = unix.Munmap(m)
			}
			return err
		}, false},
		{"end another process", raw(unix.SYS_KILL, uintptr(1<<22+1), 0), false},
		{"signal another's thread", raw(unix.SYS_TGKILL, uintptr(1<<22+1), uintptr(1<<22+1), 0), false},
		{"hold another process", raw(unix.SYS_PIDFD_OPEN, uintptr(os.Getpid()), 0), false},
		{"trace another process", raw(unix.SYS_PTRACE, ^uintptr(0), 0, 0, 0), false},
		{"read another's memory", raw(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()), 0, 0, 0, 0, 0), false},

		{"have a namespace of its own", raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWIPC|unix.CLONE_SIGHAND), false},
		{"enter a namespace", raw(unix.SYS_SETNS, ^uintptr(0), 0), false},
		{"mount", raw(unix.SYS_MOUNT, 0, 0, 0, 0, 0), true},
		{"load an eBPF program", raw(unix.SYS_BPF, 5, 0, 0), true},
		{"use io_uring", raw(unix.SYS_IO_URING_SETUP, 1, 0), false},
		{"count events of the processor", raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0), false},
		{"use keys of the kernel", raw(unix.SYS_KEYCTL, 0, ^uintptr(2), 0), false},
		{"handle page faults", raw(unix.SYS_USERFAULTFD, 1), false},
		{"be dumped again", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }, false},
		{"change its limits", func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
				return err
			}
			return unix.Setrlimit(unix.RLIMIT_CORE, &l)
		}, false},
		{"have its capabilities set", func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			data[0].Permitted, data[0].Effective = 1<<unix.CAP_NET_RAW, 1<<unix.CAP_NET_RAW
			return unix.Capset(&header, &data[0])
		}, false},
		{"become root", raw(unix.SYS_SETUID, 0), true},

		{"read packets of others", socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300), false},
		{"send packets of any kind", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), false},
		{"send IPv6 packets of any kind", socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW), false},
		{"have the kernel load SCTP", socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), false},
		{"have the kernel load L2TP", socket(unix.AF_INET, unix.SOCK_DGRAM, 115), false},
		{"speak to services of this host", socket(unix.AF_UNIX, unix.SOCK_STREAM, 0), false},
		{"speak to the firewall", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER), false},
		{"use the kernel's ciphers", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), false},
		{"listen", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Listen(fd, 1)
		}, false},
	}
}

// fork makes a process, which ends at once.
func fork() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(int(pid), &status, 0, nil)
	return err
}

// stillWorks is what probed goes on doing: none of it may be refused.
func stillWorks(dir string) map[string]string {
	all := make(map[string]string)
	note := func(what string, err error) {
		all[what] = ""
		if err != nil {
			all[what] = err.Error()
		}
	}
	_, err := os.ReadFile(filepath.Join(dir, "file"))
	note("read a file", err)
	_, err = os.ReadDir(dir)
	note("list a folder", err)
	_, err = net.InterfaceAddrs()
	note("list addresses", err)
	_, err = net.Interfaces()
	note("list interfaces", err)
	c, err := net.Dial("udp", "198.18.0.2:9")
	note("open a UDP socket", err)
	if err == nil {
		c.Close()
	}
	note("begin threads", beginThreads())
	return all
}

// beginThreads has the runtime start some.
func beginThreads() error {
	began := make(chan bool)
	for range 8 {
		go func() {
			runtime.LockOSThread()
			began <- true
			time.Sleep(50 * time.Millisecond)
		}()
	}
	for range 8 {
		select {
		case <-began:
		case <-time.After(patience):
			return fmt.Errorf("no thread after %v", patience)
		}
	}
	return nil
}

// become forbids to install a filter and to set capabilities, and becomes a program.
func become(path string) error {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // struct seccomp_data: the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SECCOMP, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CAPSET, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return unix.Exec(path, os.Args, os.Environ())
}
