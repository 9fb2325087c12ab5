package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with testdata/NAME, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		write(t, file, got)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with go test -update", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%swant\n%s", name, got, want)
	}
}

// runHere runs a command that does not probe, within the test.
func runHere(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(args, func() error { return nil }, &out, &errs) // the tests go on needing root
	return code, out.String(), errs.String()
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		golden string
		files  []string
		code   int
		flags  []string
	}{
		{"check-good", []string{"good.yml"}, 0, nil},
		{"check-bad", []string{"bad.yml"}, 1, nil},
		{"check-both", []string{"bad.yml", "good.yml", "missing.yml"}, 1, nil},
		{"check-discovery", []string{"discovery.yml"}, 0, nil},
		{"check-discovery-bad", []string{"discovery-bad.yml"}, 1, nil},
		{"check-lists", []string{"lists.yml"}, 1, nil},
		{"check-shard", []string{"discovery.yml"}, 0, []string{"--shard=1/2"}},
		{"check-rendezvous", []string{"discovery.yml"}, 0, []string{"--shard=1/2", "--shard.hash=rendezvous"}},
	} {
		args := append([]string{"check-config"}, c.flags...)
		for _, f := range c.files {
			args = append(args, filepath.Join("testdata", f))
		}
		code, stdout, stderr := runHere(args...)
		if code != c.code {
			t.Errorf("%s: exit code %d", c.golden, code)
		}
		golden(t, c.golden+".stdout", stdout)
		golden(t, c.golden+".stderr", stderr)
	}
}

// TestHelp runs the real program, because kingpin ends it after help.
func TestHelp(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"help.txt": {"--help"}, "help-run.txt": {"run", "--help"}, "help-check-config.txt": {"check-config", "--help"},
		"help-ping.txt": {"ping", "--help"},
	} {
		code, stdout, stderr := runAlone(t, args...)
		if code != 0 || stderr != "" {
			t.Errorf("%v: exit code %d, stderr %s", args, code, stderr)
		}
		golden(t, name, stdout)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}, {"-V"}} {
		code, stdout, stderr := runAlone(t, args...)
		if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "probed, version ") || !strings.Contains(stdout, "go version:") {
			t.Errorf("%v: exit code %d, stdout %s, stderr %s", args, code, stdout, stderr)
		}
	}
}
