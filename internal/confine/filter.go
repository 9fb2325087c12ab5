//go:build linux && (amd64 || arm64)

package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where struct seccomp_data has what (linux/seccomp.h), in octets.
const (
	dataNumber    = 0
	dataArch      = 4
	dataArguments = 16 // 64 bits each; the lower half comes first on both architectures
)

const (
	allow  = uint32(unix.SECCOMP_RET_ALLOW)
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// A C library takes ENOSYS as "use clone(2)", whose flags a filter can see.
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// Filter has the kernel refuse, to every thread of the process, all system calls but
// those of [Allowed], and to send anything by the descriptors mute. It sets no_new_privs,
// without which the kernel takes no filter.
func Filter(mute ...int) error {
	program, err := bpf.Assemble(assemble(calls(mute)))
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	code := make([]unix.SockFilter, len(program))
	for i, r := range program {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	runtime.LockOSThread() // the others get what this thread has
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	// Refusals are logged. We run nobody else's code, so that the loop need not be slowed
	// by what protects against speculation (Linux before 5.16 does, for any filter).
	const all, plain = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, unix.SECCOMP_FILTER_FLAG_TSYNC
	err = install(all, &fprog)
	if errors.Is(err, unix.EINVAL) { // before Linux 4.17
		err = install(plain, &fprog)
	}
	return err
}

func install(flags uintptr, fprog *unix.SockFprog) error {
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(fprog)))
	return installed(r, errno)
}

// installed says what seccomp(2) has answered: with SECCOMP_FILTER_FLAG_TSYNC a failure
// may be the id of a thread that could not be given the filter, with no errno.
func installed(r uintptr, errno unix.Errno) error {
	switch {
	case errno != 0:
		return os.NewSyscallError("seccomp", errno)
	case r != 0:
		return fmt.Errorf("seccomp: thread %d has a filter of its own and can't be given this one", r)
	}
	return nil
}

// Allowed are the names of the system calls that [Filter] lets pass, some with certain
// arguments only.
func Allowed() []string {
	var names []string
	for _, c := range calls(nil) {
		names = append(names, c.name)
	}
	return names
}

// assemble makes the filter's program: the calls that are always allowed, a jump each
// to one end, and then a block for each of the others.
func assemble(all []call) []bpf.Instruction {
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: refuse}, // another architecture's calls have other numbers
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
	}
	var plain, others []call
	for _, c := range all {
		if c.when == nil && c.never == nil {
			plain = append(plain, c)
		} else {
			others = append(others, c)
		}
	}
	for i, c := range plain {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.number), SkipTrue: uint8(len(plain) - i)})
	}
	code = append(code, bpf.Jump{Skip: 1}, bpf.RetConstant{Val: allow})
	for _, c := range others {
		code = append(code, block(c)...)
	}
	return append(code,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE3, SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		bpf.RetConstant{Val: absent},
	)
}

// block decides a call by its arguments; with another number one goes past it.
func block(c call) []bpf.Instruction {
	var body []bpf.Instruction
	for _, m := range c.never {
		body = append(body, m.code(refuse)...)
	}
	for _, m := range c.when {
		body = append(body, m.code(allow)...)
	}
	last := refuse
	if c.when == nil {
		last = allow
	}
	body = append(body, bpf.RetConstant{Val: last})
	past := bpf.Jump{Skip: uint32(len(body))} // a conditional one goes past 255, and many descriptors may be mute
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.number), SkipTrue: 1}, past}, body...)
}

// code gives what matches a verdict and goes past its end with what does not.
func (m match) code(verdict uint32) []bpf.Instruction {
	code := []bpf.Instruction{bpf.RetConstant{Val: verdict}}
	for i := len(m) - 1; i >= 0; i-- {
		c := m[i]
		test := []bpf.Instruction{bpf.LoadAbsolute{Off: uint32(dataArguments + 8*c.argument), Size: 4}}
		if c.mask != whole {
			test = append(test, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask})
		}
		test = append(test, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.value, SkipTrue: uint8(len(code))})
		code = append(test, code...)
	}
	return code
}
