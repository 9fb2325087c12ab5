package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// An account is what has been used and done up to a moment.
type account struct {
	at      time.Time
	process time.Duration    // what a process has used of the processors, its ended threads included
	softirq time.Duration    // what ksoftirqd of our core has: the kernel's work when there is too much of it
	idle    [2]time.Duration // what the cores have had nothing to do, or were not given
	peer    map[string]int64 // the targets' kernel counters
}

// take reads everything at once.
func (w *world) take(pid int) account {
	w.t.Helper()
	return account{
		time.Now(), lab.CPUTime(w.t, pid), lab.CPUTime(w.t, ksoftirqd(w.t, ours)),
		[2]time.Duration{idle(w.t, ours), idle(w.t, theirs)}, w.there.Counters(),
	}
}

// A span is what lies between two accounts.
type span struct {
	length  time.Duration
	process time.Duration // with ksoftirqd's share
	busy    [2]time.Duration
	peer    map[string]int64
}

func (a account) until(b account) span {
	s := span{length: b.at.Sub(a.at), process: b.process - a.process + b.softirq - a.softirq, peer: make(map[string]int64)}
	for core := range s.busy {
		s.busy[core] = s.length - (b.idle[core] - a.idle[core])
	}
	for name, n := range b.peer {
		s.peer[name] = n - a.peer[name]
	}
	return s
}

// plus adds up two spans.
func (s span) plus(o span) span {
	sum := span{s.length + o.length, s.process + o.process, [2]time.Duration{s.busy[0] + o.busy[0], s.busy[1] + o.busy[1]}, make(map[string]int64)}
	for name, n := range o.peer {
		sum.peer[name] = s.peer[name] + n
	}
	return sum
}

// ksoftirqd finds a core's kernel thread of that name.
func ksoftirqd(t testing.TB, core int) (pid int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		if string(bytes.TrimSpace(name)) == fmt.Sprint("ksoftirqd/", core) {
			pid, err = strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no ksoftirqd/%d in /proc: this wants the machine's own process table", core)
	return 0
}

// idle is how long a core has had nothing to do: idle, iowait and what the
// hypervisor took, of its line in /proc/stat (proc_stat(5)), in 10 ms. The rest is
// not read there: the kernel samples it, this it measures.
func idle(t testing.TB, core int) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseIdle(string(text), core)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func parseIdle(text string, core int) (time.Duration, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != fmt.Sprint("cpu", core) {
			continue
		}
		var ticks int64
		for _, i := range []int{4, 5, 8} {
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
		return time.Duration(ticks) * (time.Second / 100), nil
	}
	return 0, errors.New("/proc/stat does not know the core")
}
