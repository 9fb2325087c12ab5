// Package memory keeps probed from being killed for what it reads: where the kernel
// bounds its memory, as it does a container's, what would take more is refused.
package memory

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Budget is the memory that the process may have. A nil Budget is without bounds.
type Budget struct {
	limit int64 // octets; 0: none

	mu       sync.Mutex
	reserved int64
}

// Limited returns a budget of so many octets.
func Limited(octets int64) *Budget { return &Budget{limit: octets} }

// Find returns the budget that this process's control groups give it.
func Find() *Budget {
	groups, _ := os.ReadFile("/proc/self/cgroup") // without any there is no limit
	return Limited(limit(os.DirFS("/sys/fs/cgroup"), string(groups)))
}

// Keep has Go's collector keep within the budget, unless GOMEMLIMIT says what to keep to.
func (b *Budget) Keep() {
	if b.limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(b.ours())
	}
}

// ours is how much of the limit we plan with: the kernel counts what it has of us itself too,
// sockets and files.
func (b *Budget) ours() int64 { return b.limit - b.limit/5 }

// Sockets is how much of it connections may have in the kernel's buffers, all together;
// 0 without bounds.
func (b *Budget) Sockets() int64 {
	if b == nil {
		return 0
	}
	return b.limit / 8
}

// enough is a limit within which web clients may have everything that they may have without one.
const enough = 256 << 20

// Part is how much there may be within the budget of what there may be so much of without
// bounds: less in proportion, where the limit is a small one.
func (b *Budget) Part(most int) int {
	if b == nil || b.limit == 0 || b.limit >= enough {
		return most
	}
	return int(max(int64(most)*b.limit/enough, 1))
}

// Reserve sets octets aside for what is about to be read, until release is called, or
// says that there is no room for them.
func (b *Budget) Reserve(octets int64) (release func(), err error) {
	if b == nil || b.limit == 0 {
		return func() {}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fits := func() bool { return resident()+b.reserved+octets <= b.ours() }
	if !fits() {
		debug.FreeOSMemory()
	}
	if !fits() {
		left := max(b.ours()-resident()-b.reserved, 0)
		return nil, fmt.Errorf("reading it takes %d MiB of memory or more, and of the %d MiB that the control group gives probed %d are left for it",
			octets>>20, b.limit>>20, left>>20)
	}
	b.reserved += octets
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reserved -= octets
	}), nil
}

// limit returns the least of the limits that the groups have and those above them; 0
// if there is none. hierarchy is /sys/fs/cgroup, groups /proc/self/cgroup.
func limit(hierarchy fs.FS, groups string) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		base, file := ".", "memory.max"
		if slices.Contains(strings.Split(parts[1], ","), "memory") { // of version 1
			base, file = "memory", "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		// A container may see its own group at the top, whatever it is called outside.
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			text, err := fs.ReadFile(hierarchy, path.Join(base, dir, file))
			if n, wrong := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && wrong == nil {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if least > 1<<50 { // which is how version 1 says that there is none
		return 0
	}
	return least
}

// resident is how much memory this process has.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	return 0
}
