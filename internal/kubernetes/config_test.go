package kubernetes

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// probed builds probed as its releases are, and returns its path.
func probed(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "probed")
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "../../cmd/probed")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// TestConfigurations has probed itself check what every pod would read, with what it
// says of shards on the command line.
func TestConfigurations(t *testing.T) {
	probed := probed(t)
	for name, built := range variants(t) {
		for object := range objects(t, built) {
			if !strings.HasPrefix(object, "StatefulSet/") && !strings.HasPrefix(object, "DaemonSet/") {
				continue
			}
			t.Run(name+", "+object, func(t *testing.T) {
				c := node(t, built, object, 0)
				dir := t.TempDir()
				for path, text := range c.Files {
					if filepath.Dir(path) != "/etc/probed" {
						t.Errorf("%s is mounted beside /etc/probed", path)
					}
					write(t, filepath.Join(dir, filepath.Base(path)), text)
				}
				args := append([]string{"check-config"}, c.Args...)
				said := command(t, "", probed, append(args, filepath.Join(dir, "probed.yml"))...)
				if !strings.Contains(said, ": good\n") {
					t.Errorf("check-config said: %s", said)
				}
			})
		}
	}
}
