package confine

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unwritten is what Landlock's version 1 knows to forbid of files but to read them, and
// since are what later versions added to that, by version.
const unwritten = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
	unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
	unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
	unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
	unix.LANDLOCK_ACCESS_FS_MAKE_SYM

var since = map[uintptr]uint64{
	2: unix.LANDLOCK_ACCESS_FS_REFER,
	3: unix.LANDLOCK_ACCESS_FS_TRUNCATE,
	5: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
}

// ReadOnly has the kernel refuse, to every thread of the process, to open any file for
// writing, to make, move or remove one, and to execute one: by Landlock, where the
// kernel has it and nothing around us forbids it. What is open stays. It is the wall
// behind [Filter]'s, and the only one on an architecture without a list of calls; where
// it is not to be had there is no error. no_new_privs must be set ([Keep]).
func ReadOnly() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return nil // none
	}
	handled := uint64(unwritten)
	for v, more := range since {
		if version >= v {
			handled |= more
		}
	}
	// A ruleset without a rule: what it handles is nowhere allowed. It is struct
	// landlock_ruleset_attr as it was in the beginning, which every version takes.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled), 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	return errors.Join(onAllThreads("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0), unix.Close(int(fd)))
}
