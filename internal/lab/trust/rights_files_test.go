package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/confine"
)

// readOnly has this binary give up writing and try to, in a folder.
const readOnly = "PROBED_TRUST_READ_ONLY"

// giveUpWriting prints what came of what is forbidden, and of what is not, to a process
// that has no list of calls.
func giveUpWriting(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	var threads sync.WaitGroup
	confined := make(chan struct{})
	for range 4 { // of before
		threads.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-confined
			say("write on another thread", os.WriteFile(at("file"), nil, 0o600))
		})
	}
	log, err := os.OpenFile(at("log"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(confine.Keep(), confine.ReadOnly()); err != nil {
		return err
	}
	close(confined)
	threads.Wait()
	say("write", os.WriteFile(at("file"), nil, 0o600))
	say("truncate", os.Truncate(at("file"), 0))
	say("make a file", os.WriteFile(at("new"), nil, 0o600))
	say("make a folder", os.Mkdir(at("folder"), 0o700))
	say("make a link", os.Symlink(at("file"), at("link")))
	say("make a pipe", unix.Mkfifo(at("pipe"), 0o600))
	say("rename", os.Rename(at("file"), at("other")))
	say("remove", os.Remove(at("file")))
	say("execute", exec.Command("/bin/true").Run())
	_, err = os.ReadFile(at("file"))
	say("anyway: read", err)
	_, err = os.ReadDir(dir)
	say("anyway: list", err)
	_, err = log.WriteString("a line\n")
	say("anyway: go on with the log", err)
	return nil
}

func say(what string, err error) {
	switch {
	case err == nil:
		fmt.Println(what + ": goes")
	case errors.Is(err, fs.ErrPermission):
		fmt.Println(what + ": refused")
	default:
		fmt.Printf("%s: %v\n", what, err)
	}
}

// Where there is no list of calls for an architecture, or none can be installed, Landlock
// alone keeps files from being written, made and executed, on every thread.
func TestRightsToWriteFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"file", "log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("here"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	note, want := "by Landlock alone, without the list of calls", "refused"
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
		note, want = "this kernel has no Landlock: the list of calls alone refuses them", "goes"
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), readOnly+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tried, went := 0, 0
	for line := range strings.Lines(string(out)) {
		what, came, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if what == "anyway" {
			if !strings.HasSuffix(came, ": goes") {
				t.Errorf("probed needs to %s", came)
			}
			continue
		}
		tried++
		// Without Landlock each is tried, and some go.
		if came != "refused" && want == "refused" {
			t.Errorf("%s: %s", what, came)
			went++
		}
	}
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); tried != 13 || len(lines) != 16 || want == "goes" && !slices.Contains(lines, "write: goes") {
		t.Errorf("%d tried:\n%s", tried, out)
	}
	book(t, Row{Part: "rights", What: "taken over: writing, making, moving and executing files", Tried: tried, Of: "calls", False: went, Left: unlooked, Note: note})
}
