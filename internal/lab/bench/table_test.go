package bench

import (
	"os"
	"strings"
	"testing"
)

const someResults = `goos: linux
cpu: A Processor
cores: 2
kernel: Linux 6.18
date: 2026-11-21
probed: probed, version 1
window: 2s
BenchmarkHandshakes/kernel=inline/tool=probed 1 10000 cpu-ns/probe 100000 handshakes/cpu-s
BenchmarkHandshakes/kernel=inline/tool=zmap 1 13000 cpu-ns/probe
BenchmarkHandshakes/kernel=inline/tool=probed 1 20000 cpu-ns/probe
BenchmarkHandshakes/kernel=inline/tool=zmap 1 30000 cpu-ns/probe
BenchmarkHandshakes/kernel=inline/tool=bare 1 8600 cpu-ns/probe
BenchmarkAccuracy/load=idle/tool=ping 1 25000 bias-ns 39000 p99-error-ns
BenchmarkAccuracy/load=idle/tool=probed 1 -500 bias-ns 700 p99-error-ns
BenchmarkAccuracy/load=busy/tool=ping 1 50000 bias-ns 70000 p99-error-ns
BenchmarkAccuracy/load=busy/tool=probed 1 -500 bias-ns 700 p99-error-ns
BenchmarkGrowth/probe=half_open/targets=100 1 5000 cpu-ns/probe 30 rss-MiB 314572.8 rss-B/target 4 text-ms 0.4 text-MB 6 gzip-ms 0.02 gzip-MB 5 protobuf-gzip-ms 0.019 protobuf-gzip-MB
PASS
`

func TestTables(t *testing.T) {
	r, err := Read(strings.NewReader(someResults))
	if err != nil {
		t.Fatal(err)
	}
	want := `| against | work | probed, µs | it, µs | ratio | least to greatest (runs) | at most | goal |
|---|---|---|---|---|---|---|---|
| zmap | handshakes, the peer's kernel included | 15.0 | 21.5 | **1.40** | 1.30 to 1.50 (2) | 2.50 | ≥ 1.3 |
`
	if got := Table(r); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	want = `| tool | bias, idle | p99 of the error, idle | bias, busy | p99, busy | times probed's | goal |
|---|---|---|---|---|---|---|
| probed | -0.50 µs | 0.70 µs | -0.50 µs | 0.70 µs |  | ≤ 0.5, ≤ 1 µs |
| ping | 25.0 µs | 39.0 µs | 50.0 µs | 70.0 µs | 50.0, 55.7, 100, 100 | ≥ 10 |
`
	if got := AccuracyTable(r); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	want = `| kind | targets | CPU a probe | memory | of it a target | text | gzip | protobuf, gzip |
|---|---|---|---|---|---|---|---|
| ` + "`half_open`" + ` | 100 | 5.00 µs | 30.0 MiB | 307 KiB | 0.40 MB, 4.00 ms | 0.02 MB, 6.00 ms | 0.02 MB, 5.00 ms |
`
	if got := GrowthTable(r); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	want = "2026-11-21, probed, version 1, 2 × A Processor, Linux 6.18; windows of 2s.\n\n"
	if got := About(r); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLinesAreReadAsTheyAreWritten(t *testing.T) {
	l := Line{"Handshakes/kernel=inline/tool=zmap", []Figure{{13264.5, "cpu-ns/probe"}, {1e-7, "x"}}}
	r, err := Read(strings.NewReader(l.String() + "\n"))
	if err != nil || len(r.Lines) != 1 || r.Lines[0].String() != l.String() {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := Read(strings.NewReader("BenchmarkX 1 2\n")); err == nil {
		t.Error("a value without a unit")
	}
}

// The page has the places that its tables go to.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"ratios", "accuracy", "growth", "profile"} {
		got, err := Page(string(text), place, "NEW\n")
		if err != nil || !strings.Contains(got, "<!-- "+place+" -->\nNEW\n<!-- end of "+place+" -->\n") {
			t.Errorf("%s: %v", place, err)
		}
	}
	if _, err := Page("nothing", "ratios", ""); err == nil {
		t.Error("a page without the place")
	}
}
