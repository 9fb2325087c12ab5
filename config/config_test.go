package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/probed/probed/probe"
	"github.com/prometheus/common/model"

	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestBad(t *testing.T) {
	names := files(t, "testdata/bad/*.yml")
	if len(names) < 40 {
		t.Errorf("%d broken configurations; the issue asks for at least 40", len(names))
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(name), data)
			if err == nil || c != nil {
				t.Fatal("it parsed")
			}
			if errs := (Errors{}); !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("not an Errors but %T: %v", err, err)
			}
			for _, leak := range []string{"yaml:", "unmarshal", "[]string", "map[", "config.", "netip", "strconv", "%!"} {
				if strings.Contains(strings.ReplaceAll(err.Error(), "tls_config.", ""), leak) {
					t.Errorf("%q shows in %q", leak, err)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yml")+".err", err.Error()+"\n")
		})
	}
}

func TestRoundTrip(t *testing.T) {
	for _, name := range append(files(t, "testdata/good/*.yml"), "default.yml", "../deploy/probed.yml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			again(t, c)
		})
	}
}

// again asserts that c, printed and parsed, is c.
func again(t *testing.T, c *Config) {
	t.Helper()
	back, err := Parse("printed", c.YAML())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.YAML())
	}
	if !reflect.DeepEqual(c, back) {
		t.Fatalf("the printed configuration is another one\n%s\n%+v\n%+v", c.YAML(), c, back)
	}
}

func TestDefault(t *testing.T) {
	c, err := Default([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:4321"), netip.MustParseAddrPort("[::1]:4321")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	kinds := make(map[probe.Kind]bool)
	for _, target := range c.Targets() {
		check(t, &target)
		kinds[target.Module.Probe] = true
		got = append(got, target.Module.Name+" "+target.Address+" "+target.Interval.String())
	}
	var want []string
	for _, m := range []string{"half_open %s 1s", "active_close %s 5s", "passive_close %s 5s", "time_wait %s 10s", "time_wait_duration %s 2m0s"} {
		want = append(want, fmt.Sprintf(m, "127.0.0.1:4321"), fmt.Sprintf(m, "[::1]:4321"))
	}
	if !reflect.DeepEqual(got, want) || len(kinds) != len(allKinds) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c, err := Default(nil); err != nil || len(c.Targets()) != 0 || len(c.Jobs) != 5 {
		t.Errorf("without a web listener: %+v, %v", c, err)
	}
}

func TestGood(t *testing.T) {
	for _, name := range append(files(t, "testdata/good/*.yml"), "../deploy/probed.yml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, target := range c.Targets() {
				check(t, &target)
				fmt.Fprintf(&b, "%s %s %s host=%s ip=%v port=%d every %s timeout %s jitter %s labels=%q\n    %+v\n", target.Job, target.Module.Name,
					target.Address, target.Host, target.IP, target.Port, target.Interval, target.Timeout, target.Jitter, target.Labels, *target.Module)
			}
			golden(t, filepath.Join("testdata/good", strings.TrimSuffix(filepath.Base(name), ".yml")+".targets"), b.String())
		})
	}
}

// check asserts what holds for every target of every configuration.
func check(t *testing.T, x *Target) {
	t.Helper()
	switch {
	case x.Job == "" || x.Module.Name == "" || x.Host == "" || x.Port == 0 || x.Address == "",
		x.Interval < 10*time.Millisecond || x.Timeout < time.Millisecond || x.Jitter < 0 || x.Jitter > x.Interval,
		x.Module.Pace != x.Pace,
		x.Module.Probe == 0 || x.Module.Flows < 1 || len(x.Module.Send) > maxSend,
		x.Module.Probe != probe.HalfOpen && x.Module.open(x.Pace) > 32256,
		!slices.IsSorted(x.Module.Buckets),
		x.IP.IsValid() && (NotUnicast(x.IP) != "" || x.IP.Is4In6() || !x.Module.IPProtocol.admits(x.IP)):
		t.Fatalf("no target should be like this: %+v", x)
	}
	for i, l := range x.Labels {
		if strings.HasPrefix(l.Name, "__") || !model.LegacyValidation.IsValidLabelName(l.Name) || l.Value == "" || !utf8.ValidString(l.Value) || i > 0 && x.Labels[i-1].Name >= l.Name {
			t.Fatalf("no target should have these labels: %q", x.Labels)
		}
	}
}

func TestPorts(t *testing.T) {
	for r, want := range map[PortRange][2]PortRange{
		{61000, 61255}: {{61000, 61127}, {61128, 61255}},
		{1024, 1025}:   {{1024, 1024}, {1025, 1025}},
		{65533, 65535}: {{65533, 65534}, {65535, 65535}},
		{1024, 65535}:  {{1024, 33279}, {33280, 65535}},
	} {
		if got := [2]PortRange{r.Reserved(), r.Guarded()}; got != want {
			t.Errorf("%v: %v, want %v", r, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	m := initial().Modules["half_open"]
	ip4, ip6 := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1")
	for to, mss := range map[netip.Addr]uint16{ip4: 1460, ip6: 1440} {
		o := m.Options(to)
		if all := probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale; o.Set != all || o.MSS != mss || o.WindowScale != 7 {
			t.Errorf("the default SYN to %v is not Linux's: %+v", to, o)
		}
	}
	m.MSS = 1220
	if o := m.Options(ip6); o.MSS != 1220 {
		t.Errorf("MSS %d, want 1220", o.MSS)
	}
	m.MSS, m.TCPOptions = MSSOff, TCPOptions{WindowScale: -1}
	if o := m.Options(ip4); o != (probe.Options{}) {
		t.Errorf("options though all are off: %+v", o)
	}
}

// TestParams holds what the tables read against what the conversation gets.
func TestParams(t *testing.T) {
	c, err := Load("testdata/good/kinds.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		probe.Params
		once, packets int
	}{
		"half_open":     {probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond}, 2, 2},
		"active_close":  {probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second}, 6, 6},
		"passive_close": {probe.Params{Kind: probe.PassiveClose, Timeout: 5 * time.Second}, 4, 4},
		"time_wait":     {probe.Params{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Measure: probe.MeasureReuse, After: time.Second}, 7, 7},
		"held":          {probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Send: 6, Hold: 250 * time.Millisecond}, 7, 7},
		"at-once":       {probe.Params{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Send: 256, FINWithData: true}, 7, 7},
		"idle":          {probe.Params{Kind: probe.PassiveClose, Timeout: 10 * time.Minute, Combined: true}, 4, 4},
		"refused":       {probe.Params{Kind: probe.TimeWaitProbe, Timeout: 2 * time.Second, Measure: probe.MeasureReuse, After: 3 * time.Second, Lower: true}, 7, 7},
		"lasts":         {probe.Params{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Send: 1, Measure: probe.MeasureDuration, Limit: 4 * time.Minute}, 8, 247},
	} {
		m, ok := c.Modules[name]
		if p := m.Params(); !ok || p != want.Params || m.PacketsAtOnce() != want.once || m.PacketsPerProbe() != want.packets {
			t.Errorf("%s: %+v, %d and %d packets", name, p, m.PacketsAtOnce(), m.PacketsPerProbe())
		}
	}
	if m := c.Modules["lasts"]; m.Interval != 5*time.Minute || m.TCPOptions.Timestamps {
		t.Errorf("a TIME-WAIT that is to be timed: %+v", m)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if got := c.Modules["at-once"].Send; !bytes.Equal(got, all) {
		t.Errorf("all octets became %q", got)
	}
	if got := c.Modules["from-file"].Send; string(got) != "QUIT\n\xff" {
		t.Errorf("the file's octets became %q", got)
	}
}

// TestSendFile asserts what a file to send may be.
func TestSendFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"empty": 0, "most": maxSend, "large": maxSend + 1} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"most":                       "",
		filepath.Join(dir, "most"):   "",
		"large":                      "/large\" is too large to send; allowed: 16,384 octets",
		"empty":                      "/empty\" is empty; leave send_file out to send nothing",
		"pipe":                       "/pipe\" is not a regular file",
		".":                          "\" is not a regular file",
		filepath.Join(dir, "absent"): "/absent\" cannot be read: no such file or directory",
	} {
		_, err := Parse(filepath.Join(dir, "f.yml"), []byte("modules:\n  m:\n    probe: active_close\n    send_file: "+file+"\njobs: []\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "f.yml")+":4:16: modules.m.send_file: ") || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// many writes a job with n targets.
func many(n int, format string) []byte {
	b := []byte("jobs:\n  - name: edge\n    targets:\n")
	for i := range n {
		b = fmt.Appendf(b, "      - "+format+"\n", i>>8, i&0xff)
	}
	return b
}

func TestBounds(t *testing.T) {
	bomb := "jobs:\n  - &j\n    name: a\n    targets: [" + strings.Repeat(`"h:1", `, 5000) + "]\n" + strings.Repeat("  - *j\n", 5000)
	for what, c := range map[string]struct {
		data  string
		lines int
		last  string
	}{
		"too large":       {strings.Repeat("#", maxFile+1), 1, "too large; allowed: 16 MiB"},
		"too many errors": {string(many(5000, "198.18.%d.%d")), maxErrors + 1, "and 4000 more errors, which are not shown"},
		"too many probes": {string(many(12000, "198.18.%d.%d:443")), 1, "12,000 targets × 2 packets every 1s make 24,000 packets per second, the limit is 20,000; raise it, or lengthen the interval"},
		"bomb":            {bomb, 1, "the aliases (*name) of this file unfold to more than 500,000 values; write them out"},
	} {
		_, err := Parse("f", []byte(c.data))
		if err == nil {
			t.Errorf("%s: it parsed", what)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if got := lines[len(lines)-1]; len(lines) != c.lines || !strings.HasSuffix(got, c.last) {
			t.Errorf("%s: %d lines, the last %q", what, len(lines), got)
		}
	}
}

func TestLoad(t *testing.T) {
	for _, path := range []string{"testdata/no-such-file.yml", "testdata"} {
		_, err := Load(path)
		if !errors.As(err, new(*os.PathError)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yml", "testdata/bad/*.yml", "../deploy/*.yml", "default.yml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("not an Errors but %T: %v", err, err)
			}
			for _, e := range errs {
				if e.Line < 1 || e.Column < 1 || e.Message == "" {
					t.Fatalf("%+v", e)
				}
			}
			return
		}
		for _, target := range c.Targets() {
			check(t, &target)
		}
		if !secretive(c) {
			again(t, c)
		}
	})
}

func BenchmarkParse10000(b *testing.B) {
	data := many(10000, "198.18.%d.%d:443")
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("f", data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTargets10000(b *testing.B) {
	c, err := Parse("f", many(10000, "198.18.%d.%d:443"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(c.Targets()) != 10000 {
			b.Fatal("targets went missing")
		}
	}
}
