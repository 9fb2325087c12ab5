package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	fmt.Fprintf(&text, global+`modules:
  m: {%s}
jobs:
- name: bench
  module: m
  interval: %dms
  timeout: 900ms
  targets:
`, a.module, a.interval.Milliseconds())
	for i := range a.targets {
		// Beyond the addresses there are, the next port.
		fmt.Fprintf(&text, "  - %s:%d\n", target(i), firstPort+i>>16)
	}
	file := filepath.Join(w.t.TempDir(), "probed.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return w.command(core, w.here, probedPath(w.t), configFile+file)
}

// probedMetrics is where the daemon is scraped.
const probedMetrics = "http://127.0.0.1:10965/metrics"

const configFile = "--config.file="

// global lifts the limits. So many source ports that none is used twice in a run's
// stride.
const global = `global:
  source_ports: 20000-27999
  limits: {packets_per_second: 100000000, packets_per_second_per_address: 100000000}
`

// scanning has the daemon probe what is scanned as often as makes the rate.
func scanning(module string) func(*world, int) *lab.Cmd {
	return func(w *world, rate int) *lab.Cmd {
		every := time.Second * scanned / time.Duration(rate)
		return w.probed(asked{module: module, targets: scanned, interval: every.Round(time.Millisecond)})
	}
}

// agrees takes probed's targets away by a reload and then holds its own counters
// against the kernel's of the targets: every segment that this sent was seen, and
// every one that probed says left has arrived; but for those that probed says its tap
// lost, and those that found the queue of
// the core that should take them full, on the way there or back.
func agrees(w *world, r *running) {
	w.t.Helper()
	var file string
	for _, arg := range r.cmd.Args {
		if f, ok := strings.CutPrefix(arg, configFile); ok {
			file = f
		}
	}
	if err := os.WriteFile(file, []byte(global+"jobs: []\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
	client := w.client(w.here, 1)
	lab.Eventually(w.t, 20*time.Second, func() error {
		says := make(map[string]float64)
		err := get(w.t.Context(), client, probedMetrics, func(body io.Reader) error {
			return samples(body, func(s sample) { says[s.name] += s.value })
		})
		if err != nil {
			return err
		}
		peer := w.there.Counters()
		sent, received := int64(says["probed_segments_sent_total"]), int64(says["probed_segments_received_total"])
		thither, hither := w.dropped(w.there), w.dropped(w.here)
		// The tap may have lost some, and of what a queue has dropped a few may have been no TCP.
		agree := func(more, dropped int64) bool {
			few := min(dropped, 10)
			return -few <= more && more <= few+int64(says["probed_tap_drops_total"])
		}
		if !agree(peer["TcpInSegs"]+thither-sent, thither) || !agree(peer["TcpOutSegs"]-hither-received, hither) {
			return fmt.Errorf("%d sent, %d dropped, %d arrived; %d sent back, %d dropped, %d arrived; %.0f frames lost by the tap",
				sent, thither, peer["TcpInSegs"], peer["TcpOutSegs"], hither, received, says["probed_tap_drops_total"])
		}
		return nil
	})
}
