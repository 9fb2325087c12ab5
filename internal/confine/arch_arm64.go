package confine

import "golang.org/x/sys/unix"

// arch is what the kernel calls this architecture.
const arch = unix.AUDIT_ARCH_AARCH64
