package trust

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab/bench"
)

func TestMain(m *testing.M) {
	if played, err := play(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, "trust:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	// Most tests mostly wait: more at a time than there are processors, unless -parallel says.
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		if err := p.Value.Set("6"); err != nil {
			fmt.Fprintln(os.Stderr, "trust:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if path := os.Getenv("TRUST_OUT"); path != "" {
		if err := report(path, os.Getenv("TRUST_PAGE")); err != nil {
			fmt.Fprintln(os.Stderr, "trust:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// play is what the binary does instead of tests if one of them has started it.
func play() (played bool, err error) {
	if path := os.Getenv(forbidding); path != "" {
		return true, become(path)
	}
	if dir := os.Getenv(takenOver); dir != "" {
		return true, takeOver(dir)
	}
	if dir := os.Getenv(readOnly); dir != "" {
		return true, giveUpWriting(dir)
	}
	return false, nil
}

// report prints the table of a file of rows, and puts it into a page if there is one.
func report(path, page string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	rows, err := Read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	table := Table(rows)
	fmt.Printf("\n%s", table)
	if page == "" || len(rows) == 0 {
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	last := rows[len(rows)-1]
	length := "at full length"
	if !last.Full {
		length = "the short form of each"
	}
	written, err := bench.Page(string(text), "trust", fmt.Sprintf("%s, %s, %s.\n\n%s", last.Date, last.Version, length, table))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(written), 0o644)
}

// full is whether tests run as long as docs/trust.md says.
func full() bool { return os.Getenv("TRUST_FULL") != "" }

// times is how often something is tried: n, or, in short, few.
func times(n, few int) int {
	if full() {
		return n
	}
	return few
}

// booking serialises the tests that run in parallel.
var booking sync.Mutex

// book prints a row, appends it to TRUST_OUT, and fails the test where a promise is
// broken: a false verdict, or something left behind.
func book(t *testing.T, r Row) {
	t.Helper()
	if r.False != 0 || r.Left != 0 && r.Left != unlooked {
		t.Errorf("%s: %d false, %d left behind", r.What, r.False, r.Left)
	}
	r.Full, r.Date, r.Version = full(), time.Now().UTC().Format(time.DateOnly), version(t)
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	path := os.Getenv("TRUST_OUT")
	if path == "" {
		return
	}
	booking.Lock()
	defer booking.Unlock()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// probedPath is the daemon, built by make.
func probedPath(t testing.TB) string {
	t.Helper()
	path := os.Getenv("PROBED")
	if path == "" {
		path = "../../../probed"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("probed is not built: make build (%v)", err)
	}
	return path
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
