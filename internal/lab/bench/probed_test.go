package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/probed/probed/internal/lab"
)

// An asked is what a probed is configured to do.
type asked struct {
	module   string // the module's body, in YAML's flow style
	targets  int    // the first of prefix, port firstPort
	interval time.Duration
}

// probed starts the daemon, its limits lifted, on our core.
func (w *world) probed(a asked) *lab.Cmd {
	w.t.Helper()
	return w.probedOn(ours, a)
}

func (w *world) probedOn(core int, a asked) *lab.Cmd {
	w.t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, `global:
  source_ports: 20000-27999
  limits: {packets_per_second: 100000000, packets_per_second_per_address: 100000000}
modules:
  m: {%s}
jobs:
- name: bench
  module: m
  interval: %s
  timeout: 900ms
  targets:
`, a.module, a.interval)
	for i := range a.targets {
		fmt.Fprintf(&text, "  - %s:%d\n", target(i), firstPort)
	}
	file := filepath.Join(w.t.TempDir(), "probed.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return w.command(core, w.here, probedPath(w.t), "--config.file="+file)
}
