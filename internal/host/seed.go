package host

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// secretLen is how many octets a secret has.
const secretLen = 32

// Seed keys the initial sequence numbers, so that a probed that starts again goes on
// where it was: peers that still have its four-tuples in TIME-WAIT take a SYN only if
// its sequence number is above theirs. It is made of the boot's identity, which nobody
// outside this host knows, and of a secret in dir, a folder of the process's own that
// lives as long as the boot, which it is put into first. With no dir, "", there is no
// secret, and whoever has a shell on this host can work the numbers out.
//
// An error is about the secret; the seed is good all the same. It is empty where
// neither is to be had.
func Seed(dir string) ([]byte, error) {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // a container may hide it
	secret, err := secretIn(dir)
	if len(id)+len(secret) == 0 {
		return nil, err
	}
	sum := sha256.Sum256(slices.Concat([]byte("probed ISS "), id, secret))
	return sum[:], err
}

// secretIn returns the secret of a folder, a new one if it has none that is whole.
func secretIn(dir string) ([]byte, error) {
	if dir == "" {
		return nil, nil
	}
	path := filepath.Join(dir, "iss.key")
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == secretLen {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the key of sequence numbers: %w", err)
	}
	secret = make([]byte, secretLen)
	_, _ = rand.Read(secret)                      // never fails since Go 1.24
	file, err := os.CreateTemp(dir, ".iss.key-*") // its owner's alone
	if err != nil {
		return nil, fmt.Errorf("the key of sequence numbers: %w", err)
	}
	_, err = file.Write(secret)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return nil, fmt.Errorf("the key of sequence numbers: %w", err)
	}
	return secret, nil
}
