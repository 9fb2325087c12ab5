package booted

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownGroup makes a control group for a machine to live in, where no systemd does: in
// one group two machines would share their services' address filters. It is removed
// at the end.
func ownGroup(t *testing.T, name string) *os.File {
	t.Helper()
	root := "/sys/fs/cgroup"
	var kind unix.Statfs_t
	if err := unix.Statfs(root, &kind); err != nil {
		t.Fatal(err)
	}
	if kind.Type != unix.CGROUP2_SUPER_MAGIC {
		root += "/unified"
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, ours, found := strings.Cut("\n"+string(b), "\n0::")
	if !found {
		t.Fatalf("no control group of the second version:\n%s", b)
	}
	ours, _, _ = strings.Cut(ours, "\n")
	path := filepath.Join(ours, name)
	if err := os.Mkdir(root+path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// nspawn makes the same one in the first version's hierarchy, if there is one.
		err := errors.Join(removeGroup(root+path), removeGroup("/sys/fs/cgroup/systemd"+path))
		if err != nil {
			t.Error(err)
		}
	})
	group, err := os.Open(root + path)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

// removeGroup removes a control group and those in it. What was killed in them may
// take a moment to go.
func removeGroup(path string) error {
	var groups []string
	err := filepath.WalkDir(path, func(dir string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			groups = append(groups, dir)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && len(groups) == 0 {
		return nil
	}
	for _, group := range slices.Backward(groups) {
		for range 100 {
			if err = os.Remove(group); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a control group: %w", err)
		}
	}
	return nil
}
