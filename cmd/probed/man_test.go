package main

import (
	"os"
	"strings"
	"testing"
)

// The lines of probed(1) that the flags are between.
const (
	manBegin = `.\" flags: written by go test ./cmd/probed -run TestManPage -update` + "\n"
	manEnd   = `.\" flags: end` + "\n"
)

// TestManPage holds probed(1) against the flags.
func TestManPage(t *testing.T) {
	const page = "../../deploy/package/probed.1"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), manBegin)
	_, tail, ok2 := strings.Cut(rest, manEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", page, manBegin, manEnd)
	}
	code, out, stderr := runAlone(t, "--help-man")
	_, flags, ok := strings.Cut(out, ".SH \"OPTIONS\"\n")
	if code != 0 || !ok {
		t.Fatalf("--help-man: exit code %d\n%s%s", code, out, stderr)
	}
	want := head + manBegin + ".SH OPTIONS\n" + manual(flags) + manEnd + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what --help says: go test ./cmd/probed -run TestManPage -update rewrites it", page)
	}
}

// manual mends what kingpin writes for man(1): it escapes nothing, and leaves empty
// lines and paragraphs.
func manual(page string) string {
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`)
	var b strings.Builder
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, " \n")
		name, bold := strings.CutPrefix(line, `\fB`)
		switch {
		case line == "" || line == ".PP":
			continue
		case bold:
			line = `\fB` + escape.Replace(strings.TrimSuffix(name, `\fR`)) + `\fR`
		case !strings.HasPrefix(line, "."):
			line = escape.Replace(line)
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
