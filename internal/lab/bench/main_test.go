package bench

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// as turns this program into one of those that are measured.
const (
	as       = "PROBED_BENCH_AS"
	asDialer = "dialer" // the loop around net.Dialer
	asBare   = "bare"   // the least that a program can do
)

func TestMain(m *testing.M) {
	if role := os.Getenv(as); role != "" {
		if err := play(role, os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if path := os.Getenv("BENCH_OUT"); path != "" {
		if err := report(path, os.Getenv("BENCH_PAGE"), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// play is one of those that are measured.
func play(role string, args []string) error {
	if role == asBare {
		return bare(args)
	}
	return dial(args, os.Stdout)
}

// report writes the tables of a file of results, and puts those that there are into
// a page if there is one.
func report(path, page string, out io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := Read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := os.ReadFile(page)
	if page != "" && err != nil {
		return err
	}
	for _, p := range []struct{ place, table string }{
		{"ratios", Table(r)}, {"accuracy", AccuracyTable(r)}, {"growth", GrowthTable(r)}, {"profile", ProfileTable(r)},
	} {
		if p.table == "" {
			continue
		}
		if p.place == "ratios" {
			p.table = About(r) + p.table
		}
		if _, err := fmt.Fprintf(out, "\n%s", p.table); err != nil {
			return err
		}
		if page == "" {
			continue
		}
		written, err := Page(string(text), p.place, p.table)
		if err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
		text = []byte(written)
	}
	if page == "" {
		return nil
	}
	return os.WriteFile(page, text, 0o644)
}

// rounds is how often each tool is measured.
func rounds(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(setting("BENCH_ROUNDS", "1"))
	if err != nil || n < 1 {
		t.Fatalf("BENCH_ROUNDS: %q is no number of rounds", os.Getenv("BENCH_ROUNDS"))
	}
	return n
}

// window is how long each is measured for.
func window(t testing.TB) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(setting("BENCH_WINDOW", "300ms"))
	if err != nil || d <= 0 {
		t.Fatalf("BENCH_WINDOW: %q is no duration", os.Getenv("BENCH_WINDOW"))
	}
	return d
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// probedPath is the daemon, built by make.
func probedPath(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs(setting("PROBED", "../../../probed"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("probed is not built: make build (%v)", err)
	}
	return path
}

// A book is the file that results are appended to.
type book struct {
	t    testing.TB
	file *os.File
}

// open opens it, and says when, where and of what the lines that follow are.
func open(t testing.TB) *book {
	t.Helper()
	path := setting("BENCH_OUT", filepath.Join(t.TempDir(), "results.txt"))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	b := &book{t, file}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	b.write(fmt.Sprintf("goos: %s\ngoarch: %s\npkg: github.com/probed/probed/internal/lab/bench\ncpu: %s\n"+
		"cores: %d\nkernel: %s\ndate: %s\nprobed: %s\nwindow: %s",
		runtime.GOOS, runtime.GOARCH, processor(t), runtime.NumCPU(), kernel(t), time.Now().UTC().Format(time.DateOnly),
		version(t), window(t)))
	return b
}

// add writes a line, here and to the log.
func (b *book) add(l Line) {
	b.t.Helper()
	b.t.Log(l)
	b.write(l.String())
}

func (b *book) write(text string) {
	b.t.Helper()
	if _, err := b.file.WriteString(text + "\n"); err != nil {
		b.t.Fatal(err)
	}
}

// processor is the model that /proc/cpuinfo names.
func processor(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kernel(t testing.TB) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(os.NewSyscallError("uname", err))
	}
	return "Linux " + string(bytes.TrimRight(name.Release[:], "\x00"))
}

// version is what the daemon calls itself.
func version(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), probedPath(t), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
