package host

import (
	"crypto/sha256"
	"os"
)

// Seed keys the initial sequence numbers. It is made of the boot's identity, which
// nobody outside this host knows, so that a probed that starts again goes on where
// it was: peers that still have its four-tuples in TIME-WAIT take a SYN only if its
// sequence number is above theirs. Empty where the kernel does not tell.
func Seed() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(append([]byte("probed ISS "), id...))
	return sum[:]
}
