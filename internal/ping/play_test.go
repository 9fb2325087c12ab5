package ping_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with testdata/NAME, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with go test -update", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%swant\n%s", name, got, want)
	}
}

const scripts = "../../probe/testdata/script/"

// play plays a script against the conversation itself and returns the transcript
// of probe number n.
func play(t testing.TB, name string, n uint64, remote netip.AddrPort) *probe.Transcript {
	t.Helper()
	file := scripts + name + ".script"
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := script.Parse(file, src)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := all[0].Run(script.Start{ISS: 1000, IRS: 2000})
	if err != nil {
		t.Fatal(err)
	}
	local := "198.18.0.1:61300"
	if remote.Addr().Is6() {
		local = "[2001:db8::1]:61300"
	}
	tr.Tuple = probe.FourTuple{Local: netip.MustParseAddrPort(local), Remote: remote}
	tr.Number, tr.Offset = n, 1_800_000_000_000_000_000-1_000_000_000_000 // as package script has its clocks
	return &tr
}

// names lists the scripts.
func names(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(scripts + "*.script")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".script")
	}
	return files
}

// The targets of the tests.
var (
	remote4 = netip.MustParseAddrPort("198.18.0.2:443")
	remote6 = netip.MustParseAddrPort("[2001:db8:0:1:2:3:4:5]:443")
)

func target(name string, remote netip.AddrPort, k probe.Kind) *ping.Target {
	return &ping.Target{Name: name, Remote: remote, Kind: k, Interval: time.Second, Timeout: 900 * time.Millisecond}
}
