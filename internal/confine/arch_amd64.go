package confine

import "golang.org/x/sys/unix"

// arch is what the kernel calls this architecture. A call of the x32 variety has the
// same one and a number of its own, which no list has.
const arch = unix.AUDIT_ARCH_X86_64
