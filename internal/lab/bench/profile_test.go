package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkProfile has perf(1) look where the time of a probe goes, 50,000 a second.
// It is no test: perf is made for one kernel, and isn't everywhere. PROBED_SYMBOLS is
// the daemon with its symbols, which 'make build' leaves out.
func BenchmarkProfile(b *testing.B) {
	out := open(b)
	for _, module := range []string{"raw", "packet"} {
		for _, p := range []place{{name: "split", there: theirs, here: -1}, {name: "inline", there: -1, here: -1}} {
			b.Run(module+"-"+p.name, func(b *testing.B) {
				for range b.N {
					l := profiled(b, module, p)
					l.Name = fmt.Sprintf("Profile/transmit=%s/kernel=%s", module, p.name)
					out.add(l)
				}
			})
		}
	}
}

func profiled(b *testing.B, transmit string, p place) (l Line) {
	b.Helper()
	binary := os.Getenv("PROBED_SYMBOLS")
	if binary == "" {
		b.Fatal("PROBED_SYMBOLS names no daemon with symbols: go build -o FILE ./cmd/probed")
	}
	w := newWorld(b)
	w.listen()
	w.steer(w.there, p.there)
	cmd := scanning("probe: half_open, transmit: "+transmit)(w, 50_000)
	for i, arg := range cmd.Args {
		if arg == probedPath(b) {
			cmd.Args[i] = binary
		}
	}
	r := w.run(cmd)
	time.Sleep(5 * time.Second)
	from := w.take(r.pid)
	data := filepath.Join(b.TempDir(), "perf.data")
	record := exec.CommandContext(b.Context(), "perf", "record", "--quiet", "--output", data, "--freq", "2000", "--call-graph", "fp",
		"--pid", fmt.Sprint(r.pid), "--", "sleep", "3")
	if said, err := record.CombinedOutput(); err != nil {
		b.Fatalf("perf record (Debian: linux-perf): %v\n%s", err, said)
	}
	span := from.until(w.take(r.pid))
	r.stop()
	script, err := exec.CommandContext(b.Context(), "perf", "script", "--input", data, "--fields", "ip,sym,dso").Output()
	if err != nil {
		b.Fatalf("perf script: %v", err)
	}
	counts, total, err := Profile(strings.NewReader(string(script)))
	if err != nil {
		b.Fatal(err)
	}
	done := float64(span.peer[reset])
	each := float64(span.process) / done
	l.Figures = []Figure{{each, "cpu-ns/probe"}, {done / span.length.Seconds(), "probes/s"}, {float64(total), "samples"}}
	for _, part := range Parts() {
		l.Figures = append(l.Figures, Figure{each * float64(counts[part.Unit]) / float64(total), part.Unit})
	}
	return l
}

func TestProfile(t *testing.T) {
	counts, total, err := Profile(strings.NewReader(`
	    5580 github.com/probed/probed/probe/wire.Append (/tmp/probed)
	    5590 github.com/probed/probed/probe/engine.(*Shard).send (/tmp/probed)

	ffffffff81 memcpy ([kernel.kallsyms])
	ffffffff82 tpacket_rcv ([kernel.kallsyms])
	ffffffff83 dev_queue_xmit_nit ([kernel.kallsyms])
	ffffffff84 __x64_sys_sendmmsg ([kernel.kallsyms])
	    5590 github.com/probed/probed/rawsock.(*Sender).Send (/tmp/probed)

	ffffffff81 tcp_v4_rcv ([kernel.kallsyms])
	ffffffff83 net_rx_action ([kernel.kallsyms])
	ffffffff84 __x64_sys_sendmmsg ([kernel.kallsyms])

	    5570 runtime.memmove (/tmp/probed)
	    5580 github.com/probed/probed/probe.(*Transcript).AppendOctets (/tmp/probed)
	    5590 github.com/probed/probed/internal/recorder.(*Recorder).Settled (/tmp/probed)

	    5570 runtime.findRunnable (/tmp/probed)
`))
	want := "map[recorder-ns:1 runtime-ns:1 softirq-ns:1 tap-ns:1 wire-ns:1]"
	if got := fmt.Sprint(counts); got != want || total != 5 || err != nil {
		t.Errorf("%s of %d, %v; want %s", got, total, err, want)
	}
	if _, _, err := Profile(strings.NewReader("\n")); err == nil {
		t.Error("no stack is no error")
	}
}
