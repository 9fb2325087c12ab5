package discovery

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	sd "github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"golang.org/x/sys/unix"
)

// A folder is one with the files of a source that runs, as its manager sees it.
type folder struct {
	*testing.T
	path     string
	registry *prometheus.Registry

	mu    sync.Mutex
	found map[string]*targetgroup.Group
	least int // targets that there were at any time
}

func newFolder(t *testing.T) *folder {
	f := &folder{T: t, path: filepath.Join(t.TempDir(), "targets"), registry: prometheus.NewRegistry(), found: make(map[string]*targetgroup.Group)}
	if err := os.Mkdir(f.path, 0o755); err != nil {
		t.Fatal(err)
	}
	f.write("a.yml", `[{targets: [a, b]}, {targets: [c]}]`)
	f.write("d.json", "[\n\t{\"targets\": [\"d\"]}\n]")
	metrics, err := sd.CreateAndRegisterSDMetrics(f.registry)
	if err != nil {
		t.Fatal(err)
	}
	c := &file.SDConfig{Files: []string{f.path + "/*.yml", f.path + "/d.json"}, RefreshInterval: model.Duration(20 * time.Millisecond)}
	d, err := newSource(c, nil).NewDiscoverer(sd.DiscovererOptions{Logger: slog.New(slog.DiscardHandler), Metrics: metrics.MechanismMetrics["file"], SetName: "job"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	up := make(chan []*targetgroup.Group)
	running.Go(func() { d.Run(ctx, up) })
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case groups := <-up:
				f.mu.Lock()
				for _, g := range groups {
					f.found[g.Source] = g
				}
				f.least = min(f.least, len(f.targets()))
				f.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	f.becomes("a b c d")
	return f
}

func (f *folder) write(name, text string) {
	f.Helper()
	temporary := filepath.Join(f.path, "new")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(f.path, name)); err != nil {
		f.Fatal(err)
	}
}

func (f *folder) targets() (all []string) {
	for g := range maps.Values(f.found) {
		for _, t := range g.Targets {
			all = append(all, string(t[model.AddressLabel]))
		}
	}
	slices.Sort(all)
	return all
}

// becomes waits until the targets are those, and stay them.
func (f *folder) becomes(want string) {
	f.Helper()
	got, since := "", time.Now()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		now := strings.Join(f.targets(), " ")
		f.mu.Unlock()
		if now != got {
			got, since = now, time.Now()
		}
		if got == want && time.Since(since) > 100*time.Millisecond {
			return
		}
	}
	f.Fatalf("targets %q, want %q", got, want)
}

// mistakes is what the metric of files that could not be read counts.
func (f *folder) mistakes() float64 {
	f.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range families {
		if m.GetName() == "prometheus_sd_file_read_errors_total" {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	f.Fatal("no metric")
	return 0
}

// A folder that can't be read for a while is no empty one: its files' targets stay, and
// that is counted.
func TestFoldersUnread(t *testing.T) {
	for what, hide := range map[string]func(f *folder) (back func()){
		"not allowed": func(f *folder) func() {
			was := os.Geteuid()
			if err := os.Chmod(f.path, 0); err != nil {
				f.Fatal(err)
			}
			if was == 0 { // who may read everything
				if err := syscall.Seteuid(65534); err != nil {
					f.Fatal(err)
				}
			}
			return func() { _, _ = syscall.Seteuid(was), os.Chmod(f.path, 0o755) }
		},
		"no descriptors": func(f *folder) func() {
			var old syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
				f.Fatal(err)
			}
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
				f.Fatal(err)
			}
			return func() {
				if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
					f.Fatal(err)
				}
			}
		},
		"too many links": (*folder).loop,
	} {
		t.Run(what, func(t *testing.T) {
			f := newFolder(t)
			for range 2 {
				f.unread(hide, func() {})
				f.becomes("a b c d")
			}
		})
	}
}

// What became of the files while their folder could not be read holds once it can be.
func TestFilesChangedUnread(t *testing.T) {
	for what, tt := range map[string]struct {
		change func(f *folder)
		want   string
	}{
		"a group less":   {func(f *folder) { f.write("a.yml", `[{targets: [b]}]`) }, "b d"},
		"a group more":   {func(f *folder) { f.write("a.yml", `[{targets: [a, b]}, {targets: [c]}, {targets: [e]}]`) }, "a b c d e"},
		"no group":       {func(f *folder) { f.write("a.yml", `[]`) }, "d"},
		"a file less":    {func(f *folder) { f.remove("a.yml") }, "d"},
		"another's file": {func(f *folder) { f.remove("a.yml"); f.write("f.yml", `[{targets: [f]}]`) }, "d f"},
		"no file":        {func(f *folder) { f.remove("a.yml"); f.remove("d.json") }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFolder(t)
			f.unread((*folder).loop, func() {
				f.path += ".loop"
				tt.change(f)
				f.path = strings.TrimSuffix(f.path, ".loop")
			})
			f.becomes(tt.want)
		})
	}
}

// unread hides a folder, does something then, and sees that its targets stay meanwhile.
func (f *folder) unread(hide func(f *folder) (back func()), do func()) {
	f.Helper()
	before := f.mistakes()
	f.low(4)
	back := hide(f)
	do()
	time.Sleep(100 * time.Millisecond)
	least, counted := f.low(4), f.mistakes()-before
	back()
	if least < 4 || counted == 0 {
		f.Errorf("down to %d of 4 targets, %v mistakes counted", least, counted)
	}
}

// loop puts a symbolic link to itself into a folder's place, and the folder beside it.
func (f *folder) loop() (back func()) {
	beside := f.path + ".loop"
	if err := os.Symlink(f.path, beside); err != nil {
		f.Fatal(err)
	}
	exchange := func() {
		if err := unix.Renameat2(unix.AT_FDCWD, f.path, unix.AT_FDCWD, beside, unix.RENAME_EXCHANGE); err != nil {
			f.Fatal(err)
		}
	}
	exchange()
	return func() {
		exchange()
		_ = os.Remove(beside)
	}
}

// low returns the least number of targets, and lets it begin anew.
func (f *folder) low(from int) (least int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	least, f.least = f.least, from
	return least
}

func (f *folder) remove(name string) {
	f.Helper()
	if err := os.Remove(filepath.Join(f.path, name)); err != nil {
		f.Fatal(err)
	}
}

// A file that is gone takes its targets along, and so does one that is empty; neither is a
// mistake.
func TestFilesGone(t *testing.T) {
	f := newFolder(t)
	f.write("d.json", "[\n\t\n]")
	f.becomes("a b c")
	f.write("a.yml", `[{targets: [a]}]`)
	f.becomes("a")
	f.remove("a.yml")
	f.becomes("")
	f.write("a.yml", `[{targets: [z]}]`)
	f.becomes("z")
	if n := f.mistakes(); n > 0 {
		t.Errorf("%v mistakes counted", n)
	}
}
