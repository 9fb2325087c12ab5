package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/confine"
	"github.com/probed/probed/internal/lab"
)

// What can't be mended is no warning, what can be is one line.
func TestRightsSaid(t *testing.T) {
	t.Parallel()
	unlisted := fmt.Errorf("%w for riscv64", confine.ErrNoList)
	cgo := errors.New("built with cgo")
	const info, warn = `level=INFO msg="system calls are not filtered" why="no list of system calls for riscv64"`,
		`level=WARN msg="going on with more rights than probing needs" err="built with cgo"`
	for _, c := range []struct {
		err  error
		want []string
	}{
		{nil, nil},
		{errors.Join(nil, errors.Join(nil, nil, unlisted)), []string{info}},
		{errors.Join(cgo, errors.Join(cgo, unlisted)), []string{warn, info}},
		{cgo, []string{warn}},
	} {
		var b bytes.Buffer
		d := daemon{unconfined: c.err, log: slog.New(slog.NewTextHandler(&b, nil))}
		d.sayUnconfined()
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(c.want) == 0 {
			lines = nil
			if b.Len() > 0 {
				t.Errorf("%v: %s", c.err, &b)
			}
		}
		if len(lines) != len(c.want) {
			t.Errorf("%v: %s", c.err, &b)
			continue
		}
		for i, want := range c.want {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("%v: %s, want %s", c.err, lines[i], want)
			}
		}
	}
}

// barredDir returns a folder for everybody, with one in it that is another user's alone.
func barredDir(t *testing.T) (dir, others string) {
	t.Helper()
	dir = readableDir(t)
	others = filepath.Join(dir, "others")
	for _, err := range []error{os.Mkdir(others, 0o700), os.Chown(others, 65533, 65533)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, others
}

// A folder that may not be entered is an error that says what to do, at the start, in
// check-config and at a reload. (What root is told: TestRightsToOthersFolders.)
func TestRightsToFiles(t *testing.T) {
	t.Parallel()
	dir, others := barredDir(t)
	at := func(name, yaml string) string {
		file := filepath.Join(dir, name)
		write(t, file, yaml)
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	h, user := lab.NewHost(t, "a"), unprivileged(unix.CAP_NET_RAW)
	check := func(file string) (code int, stdout, stderr string) {
		cmd := program(t, h, "check-config", file)
		user(cmd)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		code = exitCode(t, cmd.Run())
		return code, out.String(), errs.String()
	}
	const lists = "jobs: [{name: j, file_sd_configs: [{files: [%s]}]}]\n"
	at("others/list.yml", "- targets: [\"127.0.0.1:80\"]\n")
	folder := "the folder " + others + " may not be entered; make it readable by probed's user (o+rx), or move the files to /etc/probed"
	for _, c := range []struct{ file, want string }{
		{at("others/probed.yml", minimal), "permission denied: the folder " + others + " may not be entered: copy the file to /etc/probed, or give probed's user the right (o+x)"},
		{at("pattern.yml", fmt.Sprintf(lists, "others/*.yml")), "pattern.yml:1:45: jobs[0].file_sd_configs[0].files[0]: " + folder},
		{at("file.yml", fmt.Sprintf(lists, "others/list.yml")), "file.yml:1:45: jobs[0].file_sd_configs[0].files[0]: " + folder},
	} {
		p := launchFile(t, h, c.file, user)
		if code := p.end(5 * time.Second); code != 1 || !strings.Contains(p.said(), c.want) {
			t.Errorf("%s: exit code %d: %s\nwant %s", c.file, code, p.said(), c.want)
		}
		if code, stdout, stderr := check(c.file); code != 1 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("check-config %s: exit code %d: %s%s\nwant %s", c.file, code, stdout, stderr, c.want)
		}
	}
	at("listed.yml", fmt.Sprintf(lists, "listed/a.yml"))
	if err := os.Mkdir(filepath.Join(dir, "listed"), 0o755); err != nil { // made before it is shut
		t.Fatal(err)
	}
	at("listed/a.yml", "- targets: [\"127.0.0.1:80\"]\n")
	for _, err := range []error{os.Chmod(filepath.Join(dir, "listed"), 0o711), os.Chown(filepath.Join(dir, "listed"), 65533, 65533)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if code, stdout, stderr := check(filepath.Join(dir, "listed.yml")); code != 0 {
		t.Errorf("a file by its name: %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr := check(at("listed.yml", fmt.Sprintf(lists, "listed/*.yml"))); code != 1 || !strings.Contains(stderr, "listed may not be listed") {
		t.Errorf("a pattern: %d, %s", code, stderr)
	}

	good := at("reloaded.yml", fmt.Sprintf(lists, "none/*.yml")) // that there is none is no error
	p := launchFile(t, h, good, user)
	p.awaitReady()
	at("reloaded.yml", fmt.Sprintf(lists, "others/*.yml"))
	if code, body := p.do("POST", "/-/reload"); code != 500 || !strings.Contains(body, folder) {
		t.Errorf("reload: %d %s", code, body)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(5 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
