package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestReadmeExample runs check-config on the README's first configuration: it says
// what the README has.
func TestReadmeExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(# probed.yml\n.*?)```\n.*?```\n\\$ probed check-config probed.yml\n(.*?)\\$ ").FindSubmatch(text)
	if m == nil {
		t.Fatal("README.md has no configuration with check-config below it")
	}
	t.Chdir(t.TempDir())
	write(t, "probed.yml", string(m[1]))
	if code, stdout, stderr := runHere("check-config", "probed.yml"); code != 0 || stdout != string(m[2]) {
		t.Errorf("exit code %d, stderr %q, stdout\n%swant\n%s", code, stderr, stdout, m[2])
	}
}
