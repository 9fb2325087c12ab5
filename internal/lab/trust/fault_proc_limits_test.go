package trust

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// Idle clients take all the descriptors that probed may have. Probing needs none that it
// doesn't hold; a reload that can't open its file says so and changes nothing, and files of
// targets that can't be looked for keep theirs; and when the clients go all is as before.
func TestFaultDescriptors(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	servers(there)
	capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
	lists := t.TempDir()
	if err := os.WriteFile(filepath.Join(lists, "found.yml"), []byte("- targets: ['198.18.64.100:80', '198.18.64.101:80']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found := fmt.Sprintf("- {name: found, module: half, file_sd_configs: [{files: [%q], refresh_interval: 100ms}]}\n", lists+"/*.yml")
	d := start(t, here, everyKind(20)+found, asRoot) // whose limits only its like may change
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 100) })
	d.http.CloseIdleConnections()
	n := times(10, 2)
	var slowest time.Duration
	for range n {
		before := d.scrape()
		d.http.CloseIdleConnections()
		pid := d.cmd.Process.Pid
		had := descriptors(t, pid)
		var old unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			t.Fatal(err)
		}
		low := unix.Rlimit{Cur: uint64(had + 3), Max: old.Max}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
			t.Fatal(err)
		}
		var idle []net.Conn
		for range 50 { // most of them wait in the listener's queue
			c, err := here.Dial("tcp", "127.0.0.1:10965", patience)
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, c)
		}
		lab.Eventually(t, patience, func() error {
			if k := descriptors(t, pid); k < int(low.Cur) {
				return fmt.Errorf("%d descriptors open of %d", k, low.Cur)
			}
			return nil
		})
		said := len(d.out.String())
		d.signal(syscall.SIGHUP)
		lab.Eventually(t, patience, func() error {
			_, out, ok := strings.Cut(d.out.String()[said:], "configuration not reloaded")
			if !ok || !strings.Contains(out, "too many open files") {
				return errors.New("it did not say that it can't reload")
			}
			return nil
		})
		time.Sleep(500 * time.Millisecond)
		for _, c := range idle {
			c.Close()
		}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
		freed := time.Now()
		now := d.scrape().good()
		for id, k := range before.good() {
			if now[id] < k {
				t.Errorf("%s lost its counters: %.0f, and before %.0f", id, now[id], k)
			}
		}
		slowest = max(slowest, d.recovers(before, freed))
		if code, body := d.do("POST", "/-/reload"); code != 200 {
			t.Errorf("reload: %d %s", code, body)
		}
		d.http.CloseIdleConnections()
		lab.Eventually(t, patience, func() error {
			if k := descriptors(t, pid); k > had+2 {
				return fmt.Errorf("%d descriptors, and there were %d", k, had)
			}
			return nil
		})
	}
	time.Sleep(time.Second)
	s, x := d.scrape(), exchanges(capture.Packets())
	if k := s.sum("prometheus_sd_file_read_errors_total"); k == 0 {
		t.Error("no file was looked for in vain")
	}
	if k := s.sum("probed_probes_discarded_total"); k > 0 {
		t.Errorf("%.0f probes discarded, which need no descriptor", k)
	}
	book(t, Row{
		Part: "fault", What: "descriptors used up by idle clients", Tried: n, Of: "times", Probes: int(s.sum("probed_probes_total")),
		False: s.falsehoods(x), Discarded: s.ours(), Recovery: slowest, Left: lasting(there), Note: x.String(),
	})
	if t.Failed() {
		t.Log(s.told(x))
	}
}

// many is a configuration of n targets of half_open.
func many(n int, every time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {limits: {packets_per_second: 100000}}\njobs:\n- name: many\n  interval: %v\n  timeout: %v\n  targets:\n", every, min(every*9/10, time.Minute))
	for i := range n {
		fmt.Fprintf(&b, "  - 198.18.%d.%d:80\n", 64+i/250, 1+i%250)
	}
	return b.String()
}

// The Go runtime may use less memory than probed needs: its collector runs all the time,
// by half of the processors at most, and none of that gets into a figure.
func TestFaultMemoryLimitOfTheRuntime(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/18")
	there.Listen("tcp", "0.0.0.0:80")
	const targets = 2000
	capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
	d := start(t, here, many(targets, time.Second), withEnv("GOMEMLIMIT=4MiB"))
	probes := float64(times(60, 2)) * targets
	lab.Eventually(t, 3*time.Minute, func() error { return atLeast(d.scrape(), probes) })
	s, x := d.scrape(), exchanges(capture.Packets())
	late := s.sum("probed_probes_skipped_total", "reason", "late") / (s.sum("probed_probes_total") + float64(s.ours()))
	if late > 0.5 {
		t.Errorf("%.0f %% of the probes were late by their interval", 100*late)
	}
	book(t, Row{
		Part: "fault", What: "GOMEMLIMIT below what is needed", Tried: 1, Of: "times", Probes: int(s.sum("probed_probes_total")),
		False: s.falsehoods(x), Discarded: s.ours(), Left: lasting(there),
		Note: fmt.Sprintf("%d collections, schedule delay beyond 10 ms: %d; %v", s["go_gc_duration_seconds"].GetMetric()[0].GetSummary().GetSampleCount(), s.above(10*time.Millisecond, "probed_schedule_delay_seconds"), x),
	})
}

// A reload asks for more memory than the control group has. The kernel kills probed: its
// peers are left with nothing, and it starts again with what it had.
func TestCrashOutOfMemory(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	servers(there)
	g := newGroup(t, "memory")
	g.set("memory.limit_in_bytes", "50331648", "memory.max", "50331648")
	n := times(10, 1)
	stuck, probes, ours := 0, 0, 0
	capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
	var lives []scrape
	var slowest time.Duration
	for range n {
		began := time.Now()
		d := start(t, here, everyKind(20))
		g.add(d.cmd.Process.Pid)
		slowest = max(slowest, d.recovers(scrape{}, began))
		s := d.scrape()
		probes, ours, lives = probes+int(s.sum("probed_probes_total")), ours+s.ours(), append(lives, s)
		d.write(many(40_000, time.Hour))
		d.signal(syscall.SIGHUP)
		d.end(3 * time.Minute)
		if status, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Errorf("probed ended otherwise: %v", d.err)
		}
		for _, s := range staying(there, left(there), time.Now().Add(twice)) {
			stuck++
			t.Logf("the peer is left with %v", s)
		}
	}
	book(t, Row{
		Part: "crash", What: "killed for want of memory (control group)", Tried: n, Of: "times", Probes: probes,
		False: falsehoods(exchanges(capture.Packets()), lives...), Discarded: ours, Recovery: slowest, Left: stuck,
	})
}
